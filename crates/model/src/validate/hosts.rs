//! Machines: one has control, and what runs somewhere runs on one that there is.

use super::Merged;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::MAX_HOSTS;
use crate::position::Position;
use crate::suggest::{did_you_mean, quote};

pub(super) fn check(merged: &Merged, out: &mut Diagnostics) {
    let mut error = |code: &'static str, position: &Position, message: String, help: Option<String>| {
        out.push(Diagnostic::error(code, position.clone(), message).help(help));
    };
    if let Some(host) = merged.hosts.get(MAX_HOSTS) {
        error("too-large", &host.position, format!("a fence has at most {MAX_HOSTS} hosts"), None);
    }
    let mut control = merged.hosts.iter().filter(|host| host.control.is_some());
    match (control.next(), control.next()) {
        (None, _) => {
            if let Some(host) = merged.hosts.first() {
                let help = "say on one of them where the others reach it: `control: 10.0.0.1:7443`";
                let message =
                    "none of the hosts has control, so nobody tells them what to enforce".to_owned();
                error("missing-key", &host.position, message, Some(help.to_owned()));
            }
        }
        (Some(first), Some(second)) => {
            let message = format!("{} has control already", quote(&first.name));
            let help = Some("leave `control` out of all but one".to_owned());
            error("conflict", &second.position, message, help);
        }
        (Some(_), None) => {}
    }
    let mut taken: Vec<(std::net::SocketAddr, &str)> = Vec::new();
    for host in &merged.hosts {
        for address in std::iter::once(host.mesh).chain(host.control) {
            if let Some((_, other)) = taken.iter().find(|(known, _)| *known == address) {
                let message = format!("`{address}` is where {} is reached already", quote(other));
                error("duplicate", &host.position, message, None);
            }
            taken.push((address, &host.name));
        }
    }
    let gateway = merged.gateway.iter().map(|gateway| (&gateway.at, &gateway.position));
    let services = merged.services.iter().map(|service| (&service.at, &service.position));
    for (at, position) in gateway.chain(services) {
        for name in at {
            if merged.hosts.iter().any(|host| host.name == *name) {
                continue;
            }
            let names = merged.hosts.iter().map(|host| host.name.as_str());
            let help = if merged.hosts.is_empty() {
                Some(format!("declare it: `hosts: {{ {name}: {{ mesh: 10.0.0.2:8443 }} }}`"))
            } else {
                did_you_mean(name, names)
            };
            error("unknown-host", position, format!("unknown host {}", quote(name)), help);
        }
    }
}
