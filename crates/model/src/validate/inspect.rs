//! What is looked for and cannot be, or not any more.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Merged;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::{Protocol, Waf};

/// What holds where the fence does not say how attacks are looked for, and something that can be looked into is reachable from outside.
pub(super) fn unless_said(merged: &Merged) -> Option<Waf> {
    let services = merged.services.iter().filter(|service| service.protocol != Protocol::Tcp);
    let mut routes = services.flat_map(|service| &service.routes);
    let looked_at = routes.find(|route| !route.waf.is_some_and(|mode| mode.is_off()))?;
    let gateway = merged.gateway.as_ref().map_or(&looked_at.position, |gateway| &gateway.position);
    Some(Waf::unless_said(gateway.clone()))
}

pub(super) fn warn(merged: &Merged, out: &mut Diagnostics) {
    let routes = || merged.services.iter().flat_map(|service| &service.routes);
    if let Some(waf) = &merged.waf {
        if routes().next().is_none() {
            let message = "attacks are looked for at the gateway, and no service has `routes`";
            out.push(Diagnostic::warning("unused", waf.position.clone(), message));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        for exclusion in waf.exclude.iter().filter(|exclusion| exclusion.until.is_over(now)) {
            let message =
                format!("this exclusion ended with {} and does not count any more", exclusion.until);
            let help = "take it out, or give it another day when it is still right".to_owned();
            out.push(Diagnostic::warning("expired", exclusion.position.clone(), message).help(help));
        }
        if waf.crs.is_none() && waf.paranoia > Waf::PARANOIA {
            let message = "the embedded rules know one paranoia level";
            let help =
                "name a Core Rule Set: `crs: crs`, brought by `ringfence content fetch crs`".to_owned();
            out.push(Diagnostic::warning("never", waf.position.clone(), message).help(help));
        }
    }
    for service in &merged.services {
        if let Some(openapi) = &service.openapi
            && service.routes.is_empty()
        {
            let message =
                "requests are held to a description at the gateway, and this service has no `routes`";
            out.push(Diagnostic::warning("unused", openapi.position.clone(), message));
        }
    }
}
