//! Warnings about the whole: valid, and probably not what was meant.

use std::collections::HashSet;

use super::Merged;
use crate::access::{Binding, Provider};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::GatewayTls;
use crate::suggest::quote;

pub(super) fn warn(merged: &Merged, out: &mut Diagnostics) {
    gateway(merged, out);
    providers(merged, out);
    super::inspect::warn(merged, out);
    super::limit::warn(merged, out);
    let called: HashSet<&str> =
        merged.services.iter().flat_map(|s| s.calls.iter().map(|c| c.service.as_str())).collect();
    for service in &merged.services {
        super::access::warn(merged, service, out);
        let reached = called.contains(service.name.as_str()) || !service.routes.is_empty();
        if service.listen.is_some() && !reached {
            let message =
                format!("nobody may reach {}: no route and no call leads to it", quote(&service.name));
            let help = "add it to the `calls` of a service or give it `routes`".to_owned();
            out.push(Diagnostic::warning("unreachable", service.position.clone(), message).help(help));
        }
    }
    for cycle in cycles(merged) {
        let Some(first) = cycle.first().and_then(|at| merged.services.get(*at)) else { continue };
        let mut names: Vec<&str> =
            cycle.iter().take(8).filter_map(|at| merged.services.get(*at)).map(|s| s.name.as_str()).collect();
        if cycle.len() > names.len() {
            names.push("…");
        }
        let message = format!("these services call each other in a circle: {}", names.join(", "));
        let help =
            "none of them can be ready before the others: they start in order of declaration".to_owned();
        out.push(Diagnostic::warning("cycle", first.position.clone(), message).help(help));
    }
}

fn gateway(merged: &Merged, out: &mut Diagnostics) {
    let Some(gateway) = &merged.gateway else { return };
    if merged.services.iter().all(|service| service.routes.is_empty()) {
        let message = "the gateway leads nowhere: no service has `routes`";
        out.push(Diagnostic::warning("unused", gateway.position.clone(), message));
    }
    if gateway.tls == GatewayTls::Off && gateway.listen.iter().any(|address| !address.ip().is_loopback()) {
        let message = "the gateway speaks plain text to the network: anyone on the way reads and changes it";
        let help = "say `tls: internal`, or listen at 127.0.0.1".to_owned();
        out.push(Diagnostic::warning("plain-text", gateway.position.clone(), message).help(help));
    }
}

fn providers(merged: &Merged, out: &mut Diagnostics) {
    let mut said = |provider: &Provider, code, message: &str, help: &str| {
        let warning = Diagnostic::warning(code, provider.position.clone(), message.to_owned());
        out.push(warning.help(help.to_owned()));
    };
    for provider in &merged.providers {
        let public = provider.client.as_ref().is_some_and(|client| client.proof.is_none());
        if provider.introspect && public {
            let help = "add `secret` or `key` to its `client`";
            said(
                provider,
                "public-client",
                "few providers say what a token is to a client that proves nothing",
                help,
            );
        }
        let plain = merged.gateway.as_ref().is_some_and(|gateway| gateway.tls == GatewayTls::Off);
        if provider.bound == Binding::Mtls && plain {
            let help = "say `tls: internal` at the gateway, or leave `bound` out";
            said(provider, "never", "no token is bound to a certificate at a gateway without TLS", help);
        }
    }
}

/// The groups of services that reach each other, in order of declaration. Tarjan's algorithm on an explicit stack: a
/// chain of calls is as long as the fence has services.
fn cycles(merged: &Merged) -> Vec<Vec<usize>> {
    let edges: Vec<Vec<usize>> = merged
        .services
        .iter()
        .map(|s| s.calls.iter().filter_map(|call| merged.index.get(&call.service).copied()).collect())
        .collect();
    const UNSEEN: usize = usize::MAX;
    let count = edges.len();
    let (mut order, mut low, mut on_stack) = (vec![UNSEEN; count], vec![0; count], vec![false; count]);
    let (mut stack, mut groups, mut next) = (Vec::new(), Vec::new(), 0);
    for root in 0..count {
        if order[root] != UNSEEN {
            continue;
        }
        let mut work = vec![(root, 0)];
        while let Some((node, edge)) = work.pop() {
            if edge == 0 {
                (order[node], low[node]) = (next, next);
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            if let Some(&to) = edges[node].get(edge) {
                work.push((node, edge + 1));
                if order[to] == UNSEEN {
                    work.push((to, 0));
                } else if on_stack[to] {
                    low[node] = low[node].min(order[to]);
                }
                continue;
            }
            if let Some(&(parent, _)) = work.last() {
                low[parent] = low[parent].min(low[node]);
            }
            if low[node] == order[node] {
                let start = stack.iter().rposition(|n| *n == node).unwrap_or(0);
                let group = stack.split_off(start);
                for member in &group {
                    on_stack[*member] = false;
                }
                if group.len() > 1 {
                    groups.push(group);
                }
            }
        }
    }
    groups
}
