//! `consent: required`: an edge into another fragment is in force only when that fragment accepts it.
//!
//! A call that is not accepted is a warning, not an error: one team's wish must not stop the fence of all others. It is
//! moved out of `calls`, so that no reader can take it for an edge.

use std::collections::HashSet;

use super::Merged;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::position::Position;
use crate::suggest::{did_you_mean, quote};

pub(super) fn settle(merged: &mut Merged, complete: bool, out: &mut Diagnostics) {
    if complete {
        check_accepts(merged, out);
    }
    if merged.consent.is_none() {
        return;
    }
    let accepted: HashSet<(String, String)> = merged
        .services
        .iter()
        .flat_map(|callee| callee.accepts.iter().map(|accept| (accept.caller.clone(), callee.name.clone())))
        .collect();
    let homes: Vec<Position> = merged.services.iter().map(|service| service.position.clone()).collect();
    for caller in &mut merged.services {
        let (held, proposed) = std::mem::take(&mut caller.calls).into_iter().partition(|call| {
            let home = merged.index.get(&call.service).and_then(|at| homes.get(*at));
            home.is_none_or(|home| home.file == caller.position.file)
                || accepted.contains(&(caller.name.clone(), call.service.clone()))
        });
        caller.calls = held;
        caller.proposed = proposed;
        for call in &caller.proposed {
            let home = merged.index.get(&call.service).and_then(|at| homes.get(*at));
            let message =
                format!("{} has not accepted this call, so it is not in force", quote(&call.service));
            let mut warning = Diagnostic::warning("not-accepted", call.position.clone(), message);
            if let Some(home) = home {
                warning = warning.help(format!("its owner adds `accepts: [{}]` at {home}", caller.name));
            }
            out.push(warning);
        }
    }
}

fn check_accepts(merged: &Merged, out: &mut Diagnostics) {
    for callee in &merged.services {
        let mut seen = HashSet::new();
        for accept in &callee.accepts {
            let position = accept.position.clone();
            if !seen.insert(&accept.caller) {
                out.push(Diagnostic::error(
                    "duplicate",
                    position,
                    format!("{} stands here twice", quote(&accept.caller)),
                ));
                continue;
            }
            let Some(caller) = merged.service(&accept.caller) else {
                let names = merged.index.keys().map(String::as_str);
                let help = if out.is_full() { None } else { did_you_mean(&accept.caller, names) };
                let message = format!("unknown service {}", quote(&accept.caller));
                out.push(Diagnostic::error("unknown-service", position, message).help(help));
                continue;
            };
            if !caller.calls.iter().any(|call| call.service == callee.name) {
                let message = format!("{} does not call {}", quote(&caller.name), quote(&callee.name));
                let help = "remove it, or it stays open to whoever gets to write that call".to_owned();
                out.push(Diagnostic::warning("unused", position, message).help(help));
            } else if merged.consent.is_none() {
                let help = "say `consent: required` at the top, or remove it".to_owned();
                let message = "calls are in force without being accepted here";
                out.push(Diagnostic::warning("unused", position, message).help(help));
            }
        }
    }
}
