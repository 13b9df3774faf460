//! The fence as a graph: its edges, what they mean for two names, and pictures of the whole.

mod draw;
mod tree;
mod why;

pub use why::{Missing, Rule, Step, UnknownName, Why};

use std::collections::VecDeque;

use crate::fence::{Call, Fence, Service};

/// The gateway's clients, wherever a caller is named.
pub const OUTSIDE: &str = "outside";

/// A caller, a callee, and what is declared between them. Only edges in force.
#[derive(Clone, Copy, Debug)]
pub struct Edge<'f> {
    /// Who calls.
    pub caller: &'f Service,
    /// Who is called.
    pub callee: &'f Service,
    /// What may pass, and which line says so.
    pub call: &'f Call,
}

impl Fence {
    /// All edges in force, in order of declaration.
    pub fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.services.iter().flat_map(move |caller| {
            caller.calls.iter().filter_map(move |call| {
                let callee = self.service(&call.service)?;
                Some(Edge { caller, callee, call })
            })
        })
    }

    /// The edge from one service to another, when it is in force.
    #[must_use]
    pub fn edge(&self, caller: &str, callee: &str) -> Option<Edge<'_>> {
        let caller = self.service(caller)?;
        let call = caller.calls.iter().find(|call| call.service == callee)?;
        Some(Edge { caller, callee: self.service(callee)?, call })
    }

    /// All services, callees before their callers; within a circle, in order of declaration.
    #[must_use]
    pub fn start_order(&self) -> Vec<&Service> {
        let mut waits: Vec<usize> = vec![0; self.services.len()];
        let mut callers: Vec<Vec<usize>> = vec![Vec::new(); self.services.len()];
        for (at, service) in self.services.iter().enumerate() {
            for callee in service.calls.iter().filter_map(|call| self.index.get(&call.service)) {
                waits[at] += 1;
                callers[*callee].push(at);
            }
        }
        let mut ready: VecDeque<usize> = (0..waits.len()).filter(|at| waits[*at] == 0).collect();
        let mut started = vec![false; waits.len()];
        let mut order = Vec::with_capacity(waits.len());
        let mut rest = 0;
        loop {
            let Some(at) = ready.pop_front() else {
                // Only circles are left: the first of them goes first.
                while started.get(rest).copied().unwrap_or(false) {
                    rest += 1;
                }
                if rest == started.len() {
                    return order;
                }
                ready.push_back(rest);
                continue;
            };
            if std::mem::replace(&mut started[at], true) {
                continue;
            }
            order.push(&self.services[at]);
            for caller in &callers[at] {
                waits[*caller] = waits[*caller].saturating_sub(1);
                if waits[*caller] == 0 {
                    ready.push_back(*caller);
                }
            }
        }
    }
}

/// What may pass along an edge, in a few words.
fn summary(call: &Call) -> String {
    let part = |allow: &crate::fence::Allow| {
        let paths: Vec<&str> = allow.paths.iter().map(crate::pattern::PathPattern::as_str).collect();
        match (allow.methods.is_empty(), paths.is_empty()) {
            (true, _) => paths.join(" "),
            (false, true) => allow.methods.join(" "),
            (false, false) => format!("{} {}", allow.methods.join(" "), paths.join(" ")),
        }
    };
    call.allow.iter().map(part).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use crate::Fence;

    fn order(services: &str) -> Vec<String> {
        let text = format!("fence: t\ntrust_domain: t.example\nservices:\n{services}");
        let fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        fence.start_order().into_iter().map(|s| s.name.clone()).collect()
    }

    #[test]
    fn callees_start_before_their_callers() {
        let chain = "  a: { listen: 1, calls: [b, c] }\n  b: { listen: 2, calls: [c] }\n  c: { listen: 3 }\n";
        assert_eq!(order(chain), ["c", "b", "a"]);
    }

    #[test]
    fn a_circle_starts_in_order_of_declaration_and_nobody_is_left_out() {
        let circle = "  a: { listen: 1, calls: [b] }\n  b: { listen: 2, calls: [a] }\n  c: { calls: [a] }\n  d: { listen: 3 }\n";
        assert_eq!(order(circle), ["d", "a", "b", "c"]);
    }
}
