//! Whoever is accepted must be somebody, and no spelling of a path may lead around what is demanded.

use std::collections::HashMap;

use super::Merged;
use crate::access::{Accepted, Access, Credential};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::{GatewayTls, Route, Service};
use crate::suggest::{did_you_mean, quote};

/// Two authorities of one name would vouch for each other's clients.
pub(super) fn authorities(merged: &Merged, out: &mut Diagnostics) {
    let mut named: HashMap<String, &Accepted> = HashMap::new();
    let routes = merged.services.iter().flat_map(|service| &service.routes).map(|route| &route.access);
    let all = routes.chain(merged.services.iter().map(|service| &service.access));
    for accepted in all.flat_map(|access| &access.accept) {
        let Some(file) = accepted.credential.authority() else { continue };
        let name = accepted.credential.vouched_by().into_owned();
        let other = *named.entry(name.clone()).or_insert(accepted);
        if other.credential.authority() != Some(file) {
            let message = format!(
                "two authorities are called {}, so their clients could not be told apart",
                quote(&name)
            );
            let help = "call the files differently, whatever folders they are in".to_owned();
            let error = Diagnostic::error("same-authority", accepted.position.clone(), message).help(help);
            out.push(error.related(&other.position, "the other one"));
        }
    }
}

/// Most pairs of routes of one service that are compared.
const MAX_PAIRS: usize = 1 << 20;

pub(super) fn check(merged: &Merged, service: &Service, out: &mut Diagnostics) {
    for access in service.routes.iter().map(|route| &route.access).chain([&service.access]) {
        for accepted in &access.accept {
            let error = |code, message: String, help: String| {
                Diagnostic::error(code, accepted.position.clone(), message).help(help)
            };
            let Some(name) = accepted.credential.provider() else { continue };
            let names = || merged.providers.iter().map(|provider| provider.name.as_str());
            let Some(provider) = merged.providers.iter().find(|provider| provider.name == name) else {
                let help = did_you_mean(name, names().collect::<Vec<_>>()).unwrap_or_else(|| {
                    format!("declare it: `providers: {{ {name}: {{ issuer: https://… }} }}`")
                });
                out.push(error("unknown-provider", format!("unknown provider {}", quote(name)), help));
                continue;
            };
            if matches!(accepted.credential, Credential::Login(_)) && provider.login.is_none() {
                let message = format!("nobody can sign in at {}: it has no `login`", quote(name));
                let help = format!("add `client` and `login` to {} at {}", quote(name), provider.position);
                out.push(error("no-login", message, help));
            }
        }
    }
    for access in service.routes.iter().map(|route| &route.access).chain([&service.access]) {
        let asked = |credential: &Credential| {
            let Credential::Token(name) = credential else { return false };
            merged.providers.iter().any(|provider| provider.name == *name && provider.introspect)
        };
        let mut opaque = access.accept.iter().filter(|accepted| asked(&accepted.credential));
        if let (Some(first), Some(second)) = (opaque.next(), opaque.next()) {
            let message = "only one provider can be asked for tokens that are no JWT: shown to two, a token is each one's to use";
            let help = "give them routes of their own, or take `opaque: introspect` from one of them";
            let error = Diagnostic::error("conflict", second.position.clone(), message).help(help.to_owned());
            out.push(error.related(&first.position, "the other one"));
        }
    }
    let plain = merged.gateway.as_ref().is_some_and(|gateway| gateway.tls == GatewayTls::Off);
    for accepted in service.routes.iter().flat_map(|route| &route.access.accept).filter(|_| plain) {
        if accepted.credential.authority().is_some() {
            let message = "a gateway without TLS sees no certificates";
            let help = "say `tls: internal`, or leave the certificate out".to_owned();
            out.push(Diagnostic::error("conflict", accepted.position.clone(), message).help(help));
        }
    }
    spellings(service, out);
}

/// Many services take `/Admin` for `/admin`: two routes that such a service cannot tell apart must let in the same callers.
fn spellings(service: &Service, out: &mut Diagnostics) {
    let routes = &service.routes;
    if routes.iter().all(|route| route.access.is_open()) {
        return;
    }
    let lower: Vec<String> = routes.iter().map(|route| route.path.to_ascii_lowercase()).collect();
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, path) in lower.iter().enumerate() {
        places.entry(path).or_default().push(at);
    }
    let pairs = (0..routes.len()).flat_map(|at| {
        let around = prefixes(&lower[at]).filter_map(|prefix| places.get(prefix)).flatten();
        around.map(move |of| (at, *of))
    });
    for (count, (at, of)) in pairs.enumerate() {
        let (inner, outer) = (&routes[at], &routes[of]);
        if count > MAX_PAIRS {
            let message = format!("{} has more routes than can be compared", quote(&service.name));
            out.push(Diagnostic::error("too-many", service.position.clone(), message));
            return;
        }
        let hosts = inner.host.is_none() || outer.host.is_none() || inner.host == outer.host;
        // Two that are equal are said once, at the later one.
        let looked_at = hosts && (lower[at] != lower[of] || at > of);
        if looked_at && !outer.covers(&inner.path) && !inner.access.is_as(&outer.access) {
            let (here, there) = if at > of { (inner, outer) } else { (outer, inner) };
            let message = format!(
                "many services take {} for {}, whatever the case of its letters, and {}",
                quote(&inner.path),
                if lower[at] == lower[of] {
                    quote(&outer.path)
                } else {
                    format!("a path below {}", quote(&outer.path))
                },
                differ(inner, outer)
            );
            let help = "let both accept and require the same, or write both in the same case".to_owned();
            let error = Diagnostic::error("same-path", here.position.clone(), message).help(help);
            out.push(error.related(&there.position, "the other one"));
        }
    }
}

/// The path itself and all that it lies below, in whole segments.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let cuts =
        path.char_indices().filter(|(at, c)| *c == '/' && *at > 0).filter_map(|(at, _)| path.get(..at));
    cuts.chain((path != "/").then_some("/")).chain([path])
}

fn differ(one: &Route, other: &Route) -> String {
    match [one, other].into_iter().find(|route| route.access.is_open()) {
        Some(open) => format!("{} is open to all", quote(&open.path)),
        None => "they let in different callers".to_owned(),
    }
}

/// What nobody can show is probably not meant.
pub(super) fn warn(merged: &Merged, service: &Service, out: &mut Diagnostics) {
    let all = service.routes.iter().map(|route| &route.access).chain([&service.access]);
    for access in all.filter(|access| !access.is_open()) {
        let Some(position) = &access.require.position else { continue };
        if let Some(word) = unshown(access) {
            let message = format!("nobody has {word} here: only {} is accepted", access.summary());
            let help = "an API key has scopes, a client certificate has none; `acr` and `groups` come with a token or login";
            out.push(Diagnostic::warning("never", position.clone(), message).help(help.to_owned()));
        }
        for name in access.accept.iter().filter_map(|accepted| accepted.credential.provider()) {
            let provider = merged.providers.iter().find(|provider| provider.name == name);
            if !access.require.groups.is_empty() && provider.is_some_and(|p| p.groups_claim.is_none()) {
                let message = format!("nobody who comes from {} has groups: none are believed", quote(name));
                let help = format!(
                    "say where its tokens list them: `claims: {{ groups: groups }}` of {}",
                    quote(name)
                );
                out.push(Diagnostic::warning("never", position.clone(), message).help(help));
            }
        }
    }
}

/// What is required and comes with no credential that is accepted.
fn unshown(access: &Access) -> Option<&'static str> {
    let any = |has: fn(&Credential) -> bool| access.accept.iter().any(|accepted| has(&accepted.credential));
    let require = &access.require;
    if any(|credential| credential.provider().is_some()) {
        None
    } else if !require.acr.is_empty() {
        Some("an `acr`")
    } else if !require.groups.is_empty() {
        Some("`groups`")
    } else if !require.scopes.is_empty() && !any(|credential| *credential == Credential::ApiKey) {
        Some("`scopes`")
    } else {
        None
    }
}
