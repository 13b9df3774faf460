//! Faults that are injected: nobody is to come upon one by surprise.

use super::Merged;
use crate::diagnostic::{Diagnostic, Diagnostics};

pub(super) fn warn(merged: &Merged, out: &mut Diagnostics) {
    for service in &merged.services {
        let of_routes = service.routes.iter().map(|route| &route.handling);
        let of_calls = service.calls.iter().map(|call| &call.handling);
        let faults = of_routes.chain(of_calls).filter_map(|handling| handling.fault.as_ref());
        for fault in faults.filter(|fault| fault.mode.enforces()) {
            let message = format!("a fault is injected here: {}", fault.summary());
            let help = "take `fault` out when the trial is over, or say `mode: off`".to_owned();
            out.push(Diagnostic::warning("fault", fault.position.clone(), message).help(help));
        }
    }
}
