//! Limits that nobody could keep, or that would never count.

use super::Merged;
use crate::access::Access;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::{By, LimitRule, Service};

pub(super) fn check(merged: &Merged, out: &mut Diagnostics) {
    let mut error = |code, rule: &LimitRule, message: String, help: &str| {
        out.push(Diagnostic::error(code, rule.position.clone(), message).help(help.to_owned()));
    };
    let mut cost = |rule: &LimitRule, of_route: u32| {
        if u64::from(rule.cost).saturating_mul(u64::from(of_route)) > rule.most() {
            let message = format!(
                "a request costs {} here and at most {} are there at once: none passes",
                u64::from(rule.cost) * u64::from(of_route),
                rule.most()
            );
            error("never", rule, message, "raise `burst` (or `quota`), or lower `cost`");
        }
    };
    let gateway = merged.gateway.as_ref().map_or(&[][..], |gateway| &gateway.limit);
    gateway.iter().for_each(|rule| cost(rule, 1));
    for service in &merged.services {
        service.limit.iter().for_each(|rule| cost(rule, 1));
        service.calls.iter().flat_map(|call| &call.limit).for_each(|rule| cost(rule, 1));
        for route in &service.routes {
            route.limit.iter().for_each(|rule| cost(rule, route.cost));
            if route.cost > 1 {
                gateway.iter().chain(&service.limit).for_each(|rule| cost(rule, route.cost));
            }
        }
    }
    for rule in gateway.iter().chain(merged.services.iter().flat_map(|s| &s.routes).flat_map(|r| &r.limit)) {
        if rule.by == By::Caller {
            let message = "whoever comes through the gateway is no service, so there is one caller";
            error("never", rule, message.to_owned(), "count by `user`, `client`, `address` or `route`");
        }
    }
    for rule in merged.services.iter().flat_map(|service| &service.calls).flat_map(|call| &call.limit) {
        if rule.by == By::Address {
            let message = "services are told apart by their identity, not by an address";
            error("never", rule, message.to_owned(), "count by `caller` or `user`");
        }
    }
}

pub(super) fn warn(merged: &Merged, out: &mut Diagnostics) {
    let mut warn = |rule: &LimitRule, message: &str| {
        let help = "count by `address` or `route`, or say what the route accepts".to_owned();
        out.push(Diagnostic::warning("never", rule.position.clone(), message.to_owned()).help(help));
    };
    let known = |access: &Access| !access.is_open();
    for service in &merged.services {
        for route in service.routes.iter().filter(|route| !known(&route.access)) {
            for rule in route.limit.iter().filter(|rule| rule.by.is_about_somebody()) {
                warn(rule, "on a route that is open to all nobody is known, so this counts nothing");
            }
        }
    }
    let routes = || merged.services.iter().flat_map(|service: &Service| &service.routes);
    if let Some(gateway) = merged.gateway.as_ref().filter(|_| !routes().any(|route| known(&route.access))) {
        for rule in gateway.limit.iter().filter(|rule| rule.by.is_about_somebody()) {
            warn(rule, "no route accepts credentials, so nobody is known and this counts nothing");
        }
    }
}

/// The claims that limits count by: providers' tokens keep them.
pub(super) fn claims(merged: &Merged) -> Vec<String> {
    let services = || merged.services.iter();
    let all = merged.gateway.iter().flat_map(|gateway| &gateway.limit);
    let all = all.chain(services().flat_map(|service| &service.limit));
    let all = all.chain(services().flat_map(|service| &service.routes).flat_map(|route| &route.limit));
    let all = all.chain(services().flat_map(|service| &service.calls).flat_map(|call| &call.limit));
    let claims = all.filter_map(|rule| match &rule.by {
        By::Claim(claim) => Some(claim.clone()),
        _ => None,
    });
    claims.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
