//! The graph for other programs: JSON, Mermaid, Graphviz.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{OUTSIDE, summary};
use crate::access::Access;
use crate::fence::{Fence, Kind, Service};

impl Fence {
    /// The graph as one JSON object: `nodes` are services, `edges` the calls in force with `from` and `to`; `routes` lead
    /// in through the gateway, `egress` leads out, `proposed` calls wait for the callee's consent.
    #[must_use]
    pub fn graph_json(&self) -> Value {
        let nodes: Vec<Value> = self
            .services
            .iter()
            .map(|s| {
                json!({ "name": s.name, "kind": kind(s), "protocol": s.protocol, "listen": s.listen, "port": s.port,
                        "accept": accepted(&s.access),
                        "position": s.position.to_string() })
            })
            .collect();
        let call = |from: &Service, call: &crate::Call| {
            let allow: Vec<Value> = call
                .allow
                .iter()
                .map(
                    |a| json!({ "methods": a.methods, "paths": a.paths, "position": a.position.to_string() }),
                )
                .collect();
            json!({ "from": from.name, "to": call.service, "allow": allow, "on_behalf": call.on_behalf, "position": call.position.to_string() })
        };
        let edges: Vec<Value> = self.edges().map(|edge| call(edge.caller, edge.call)).collect();
        let proposed: Vec<Value> =
            self.services.iter().flat_map(|s| s.proposed.iter().map(move |c| call(s, c))).collect();
        let routes = self.services.iter().flat_map(|s| {
            s.routes.iter().map(|r| json!({ "from": OUTSIDE, "to": s.name, "host": r.host, "path": r.path, "accept": accepted(&r.access), "position": r.position.to_string() }))
        });
        let egress = self.services.iter().flat_map(|s| {
            s.egress.iter().map(|e| {
                json!({ "from": s.name, "host": e.host, "port": e.port, "tls": e.tls, "allow_private": e.allow_private,
                        "position": e.position.to_string() })
            })
        });
        json!({ "fence": self.name, "trust_domain": self.trust_domain, "nodes": nodes, "edges": edges,
                "routes": routes.collect::<Vec<_>>(), "egress": egress.collect::<Vec<_>>(), "proposed": proposed })
    }

    /// The graph as a Mermaid flowchart.
    #[must_use]
    pub fn graph_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        // Names may be words of Mermaid (`end`), so nodes have numbers. Writing to a String cannot fail.
        let label = |text: &str| {
            text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
        };
        if self.services.iter().any(|s| !s.routes.is_empty()) {
            let _ = writeln!(out, "    out((\"{OUTSIDE}\"))");
        }
        for (at, service) in self.services.iter().enumerate() {
            let (open, close) = if service.is_external() { ("[[", "]]") } else { ("[", "]") };
            let _ = writeln!(out, "    n{at}{open}\"{}\"{close}", label(&service.name));
        }
        for (at, service) in self.services.iter().enumerate() {
            for route in &service.routes {
                let text = label(&format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path));
                let _ = writeln!(out, "    out -->|\"{text}\"| n{at}");
            }
            for call in service.calls.iter() {
                let Some(to) = self.index.get(&call.service) else { continue };
                let text = label(&summary(call));
                let _ = if text.is_empty() {
                    writeln!(out, "    n{at} --> n{to}")
                } else {
                    writeln!(out, "    n{at} -->|\"{text}\"| n{to}")
                };
            }
            for (number, egress) in service.egress.iter().enumerate() {
                let _ = writeln!(
                    out,
                    "    n{at} -.-> e{at}_{number}(\"{}:{}\")",
                    label(&egress.host),
                    egress.port
                );
            }
        }
        out
    }

    /// The graph for Graphviz.
    #[must_use]
    pub fn graph_dot(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut out = format!("digraph {} {{\n    rankdir=LR;\n    node [shape=box];\n", quoted(&self.name));
        if self.services.iter().any(|s| !s.routes.is_empty()) {
            let _ = writeln!(out, "    {OUTSIDE} [shape=circle];");
        }
        for service in &self.services {
            let style = if service.is_external() { " [style=dashed]" } else { "" };
            let _ = writeln!(out, "    {}{style};", quoted(&service.name));
        }
        for service in &self.services {
            let name = quoted(&service.name);
            for route in &service.routes {
                let text = format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path);
                let _ = writeln!(out, "    {OUTSIDE} -> {name} [label={}];", quoted(&text));
            }
            for call in &service.calls {
                let text = summary(call);
                let label =
                    if text.is_empty() { String::new() } else { format!(" [label={}]", quoted(&text)) };
                let _ = writeln!(out, "    {name} -> {}{label};", quoted(&call.service));
            }
            for egress in &service.egress {
                let host = quoted(&format!("{}:{}", egress.host, egress.port));
                let _ = writeln!(out, "    {host} [shape=ellipse];\n    {name} -> {host} [style=dashed];");
            }
        }
        out.push_str("}\n");
        out
    }
}

/// The credentials that are accepted, in words; empty for everybody.
fn accepted(access: &Access) -> Vec<String> {
    access.accept.iter().map(|accepted| accepted.credential.to_string()).collect()
}

/// How a service comes to run, in a word.
pub(super) const fn kind(service: &Service) -> &'static str {
    match service.kind {
        Kind::Run { .. } => "run",
        Kind::External { .. } => "external",
        Kind::Waits { .. } => "waits",
    }
}

#[cfg(test)]
mod tests {
    use crate::Fence;

    fn fence(services: &str) -> Fence {
        let head = "fence: t\ntrust_domain: t.example\ngateway: { listen: '127.0.0.1:1' }\nservices:\n";
        Fence::parse(vec![("ringfence.yaml", format!("{head}{services}"))]).unwrap()
    }

    #[test]
    fn pictures_hold_every_service_and_edge_and_their_own_signs_are_escaped() {
        let fence = fence(
            "  end: { listen: 1, routes: [{ path: / }], calls: [{ service: b, allow: [{ paths: ['/\"<x>'] }] }] }\n  b: { listen: 2 }\n",
        );
        let mermaid = fence.graph_mermaid();
        for line in
            ["out((\"outside\"))", "n0[\"end\"]", "out -->|\"/\"| n0", "n0 -->|\"/&quot;&lt;x&gt;\"| n1"]
        {
            assert!(mermaid.contains(line), "{line} is not in\n{mermaid}");
        }
        let dot = fence.graph_dot();
        assert!(
            dot.contains("\"end\" -> \"b\" [label=\"/\\\"<x>\"];") && dot.contains("outside -> \"end\""),
            "{dot}"
        );
    }

    #[test]
    fn a_tree_shows_each_service_once_in_full_and_stays_small() {
        let shared =
            fence("  a: { listen: 1, calls: [c] }\n  b: { calls: [c] }\n  c: { listen: 2, calls: [a] }\n");
        let tree = shared.graph_tree(false);
        assert_eq!(tree.matches("see above").count(), 1, "{tree}");
        let chain: String =
            (0..3000).map(|n| format!("  s{n}: {{ listen: 1, calls: [s{}] }}\n", n + 1)).collect();
        let long = fence(&format!("{chain}  s3000: {{ listen: 1 }}\n")).graph_tree(false);
        assert!(
            long.len() < 1 << 20 && (0..=3000).all(|n| long.contains(&format!("s{n} "))),
            "{}",
            long.len()
        );
    }
}
