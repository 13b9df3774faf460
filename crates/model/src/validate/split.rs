//! Splits that would lead past what their target says: only ways that are declared for the same caller may be taken.

use super::Merged;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::{Branch, Cohort, Route, Service, Split};
use crate::suggest::{did_you_mean, quote};

pub(super) fn check(merged: &Merged, out: &mut Diagnostics) {
    for service in &merged.services {
        for route in &service.routes {
            let Some(split) = &route.handling.split else { continue };
            for branch in &split.to {
                if let Some(target) = target(merged, service, branch, out) {
                    of_route(route, branch, target, out);
                }
            }
        }
        for call in &service.calls {
            let (Some(split), Some(callee)) = (&call.handling.split, merged.service(&call.service)) else {
                continue;
            };
            by_address(split, out);
            for branch in &split.to {
                let Some(target) = target(merged, callee, branch, out) else { continue };
                if !service.calls.iter().any(|call| call.service == target.name) {
                    let message = format!(
                        "{} does not declare that it calls {}",
                        quote(&service.name),
                        quote(&target.name)
                    );
                    let help = format!(
                        "add `{}` to its `calls`: what that says counts for what is split off",
                        target.name
                    );
                    error(out, "undeclared", branch, message, Some(help));
                }
            }
        }
    }
}

fn error(out: &mut Diagnostics, code: &'static str, branch: &Branch, message: String, help: Option<String>) {
    out.push(Diagnostic::error(code, branch.position.clone(), message).help(help));
}

fn by_address(split: &Split, out: &mut Diagnostics) {
    if split.by == Some(Cohort::Address) {
        let message = "services are told apart by their identity, not by an address";
        let error = Diagnostic::error("conflict", split.position.clone(), message);
        out.push(error.help("name a field: `by: { header: NAME }`".to_owned()));
    }
}

/// Where a part goes that would else go to `from`.
fn target<'m>(
    merged: &'m Merged,
    from: &Service,
    branch: &Branch,
    out: &mut Diagnostics,
) -> Option<&'m Service> {
    let Some(target) = merged.service(&branch.service) else {
        let names = merged.index.keys().map(String::as_str);
        let help = if out.is_full() { None } else { did_you_mean(&branch.service, names) };
        error(out, "unknown-service", branch, format!("unknown service {}", quote(&branch.service)), help);
        return None;
    };
    if target.name == from.name {
        let message = format!("what is split off from {} goes there again", quote(&from.name));
        error(out, "conflict", branch, message, Some("name another service".to_owned()));
        return None;
    }
    if target.protocol != from.protocol {
        let message =
            format!("{} and {} do not speak the same protocol", quote(&from.name), quote(&target.name));
        error(out, "conflict", branch, message, None);
        return None;
    }
    Some(target)
}

/// Whoever passes at a route has to pass at the target's own by the same words.
fn of_route(route: &Route, branch: &Branch, target: &Service, out: &mut Diagnostics) {
    let mut same = target.routes.iter().filter(|other| other.path == route.path);
    let name = quote(&target.name);
    let Some(other) = same.next() else {
        let message =
            format!("no route of {name} has the path `{}`, so nothing says who may pass there", route.path);
        let help = format!(
            "add `routes: [{{ host: NAME, path: {} }}]` to it, with the same `accept` and `require`",
            route.path
        );
        return error(out, "undeclared", branch, message, Some(help));
    };
    if let Some(third) = same.next() {
        let message =
            format!("two routes of {name} have the path `{}`: which of them counts is not said", route.path);
        let error = Diagnostic::error("conflict", branch.position.clone(), message);
        return out.push(error.related(&third.position, "this is the second"));
    }
    if !other.access.is_as(&route.access) {
        let message = format!("who may pass at the route of {name} is not who may pass here");
        let error = Diagnostic::error("conflict", branch.position.clone(), message);
        out.push(error.related(&other.position, "it says other things under `accept` or `require`"));
    }
}
