//! Who may reach whom: routes, calls and egress.

use super::{Decoder, spec};
use crate::fence::{Allow, Call, Egress, Handling, Protocol, Route};
use crate::pattern::{PathPattern, prefix};
use crate::suggest::quote;
use crate::yaml::{Mark, Node, Value};

/// Methods that a client may well mean; others are valid tokens too.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

impl Decoder<'_> {
    pub(super) fn routes(&mut self, node: &Node, protocol: Protocol) -> Vec<Route> {
        let mut routes = Vec::new();
        for item in self.list(node, "routes", "[{ path: / }]") {
            let Some(fields) = self.fields(item, &spec::ROUTE) else { continue };
            let host = fields.get("host").and_then(|n| self.host(n));
            let path = fields.get("path");
            if protocol == Protocol::Tcp {
                if fields.get("host").is_none() {
                    let help = Some("add `host`, the name that clients send when they open TLS".to_owned());
                    self.error(
                        "missing-key",
                        item.mark,
                        "a tcp service is chosen by server name, and this route has none",
                        help,
                    );
                }
                if let Some(path) = path {
                    self.error(
                        "conflict",
                        path.mark,
                        "tcp has no paths",
                        Some("leave `path` out".to_owned()),
                    );
                }
            } else if path.is_none() {
                self.missing(item.mark, "path", "this route", "add the path prefix, `path: /` for all");
            }
            let path = match path {
                Some(node) => self.parsed(node, "a path prefix", route_path),
                None => Some("/".to_owned()),
            };
            let Some(path) = path else { continue };
            let access = self.access(fields);
            if let (false, Protocol::Tcp) = (access.is_open(), protocol) {
                self.no_credentials(item.mark);
            }
            let waf = fields.entry("waf").and_then(|entry| self.route_waf(entry, protocol));
            let limit = self.limit(fields, protocol);
            let priority = fields.entry("priority").and_then(|entry| self.priority(entry, protocol));
            let cost = fields.get("cost").and_then(|n| self.cost(n)).unwrap_or(1);
            let mut responses = self.responses(fields, protocol);
            responses.cors = fields.entry("cors").and_then(|entry| self.cors(entry, protocol));
            let handling = self.handling(fields, protocol);
            let position = self.at(item.mark);
            routes.push(Route {
                host,
                path,
                access,
                waf,
                limit,
                priority,
                cost,
                responses,
                handling,
                position,
            });
        }
        routes
    }

    pub(super) fn no_credentials(&mut self, mark: Mark) {
        let message = "tcp carries no credentials that could be looked at";
        self.error("conflict", mark, message, Some("leave `accept` out".to_owned()));
    }

    pub(super) fn calls(&mut self, node: &Node) -> Vec<Call> {
        let mut calls = Vec::new();
        for item in self.list(node, "services", "[NAME]") {
            let (name, allow, on_behalf, limit, handling) = if let Value::Scalar { .. } = item.value {
                (item, Vec::new(), false, Vec::new(), Handling::default())
            } else {
                let Some(fields) = self.fields(item, &spec::CALL) else { continue };
                let Some(name) = fields.get("service") else {
                    self.missing(item.mark, "service", "this call", "add whom it calls: `service: NAME`");
                    continue;
                };
                let on_behalf = fields.get("on_behalf").and_then(|n| self.choice(n, &[("required", true)]));
                let allow = fields.get("allow").map_or_else(Vec::new, |n| self.allows(n));
                // What the callee speaks is known when all is read.
                let limit = self.limit(fields, Protocol::Http);
                let handling = self.handling(fields, Protocol::Http);
                (name, allow, on_behalf.unwrap_or(false), limit, handling)
            };
            let Some(service) = self.text(name, "the name of a service") else { continue };
            let position = self.at(name.mark);
            calls.push(Call { service: service.to_owned(), allow, on_behalf, limit, handling, position });
        }
        calls
    }

    fn allows(&mut self, node: &Node) -> Vec<Allow> {
        let items = self.list(node, "what may pass", "[{ methods: [GET], paths: [/a/*] }]");
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            let help = Some("leave `allow` out to allow everything, or remove the call".to_owned());
            self.error("empty", node.mark, "this allows nothing", help);
        }
        items.iter().filter_map(|item| self.allow(item)).collect()
    }

    fn allow(&mut self, item: &Node) -> Option<Allow> {
        let fields = self.fields(item, &spec::ALLOW)?;
        let mut allow = Allow { methods: Vec::new(), paths: Vec::new(), position: self.at(item.mark) };
        if fields.get("methods").is_none() && fields.get("paths").is_none() {
            let help = Some("add `methods`, `paths` or both".to_owned());
            self.error("empty", item.mark, "this says nothing about what may pass", help);
        }
        if let Some(node) = fields.get("methods") {
            for method in self.nonempty(node, "methods", "[GET]") {
                if let Some(method) = self.method(method) {
                    allow.methods.push(method);
                }
            }
        }
        if let Some(node) = fields.get("paths") {
            for path in self.nonempty(node, "path patterns", "[/a/*]") {
                let parse = |text: &str| PathPattern::parse(text).map_err(|e| e.to_string());
                allow.paths.extend(self.parsed(path, "a path pattern", parse));
            }
        }
        Some(allow)
    }

    /// A list in which nothing would mean everything to the reader of the types, so it may not be empty.
    pub(super) fn nonempty<'n>(&mut self, node: &'n Node, of: &str, example: &str) -> &'n [Node] {
        let items = self.list(node, of, example);
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            let help = Some("leave the key out for any".to_owned());
            self.error("empty", node.mark, format!("a list of {of} without any allows nothing"), help);
        }
        items
    }

    fn method(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "an HTTP method")?;
        let token =
            text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'));
        if token {
            return Some(text.to_owned());
        }
        let upper = text.to_ascii_uppercase();
        let help = METHODS
            .contains(&upper.as_str())
            .then(|| format!("methods are upper case: did you mean `{upper}`?"));
        self.error("bad-value", node.mark, format!("{} is not an HTTP method", quote(text)), help);
        None
    }

    pub(super) fn egress(&mut self, node: &Node) -> Vec<Egress> {
        let mut hosts = Vec::new();
        for item in self.list(node, "hosts", "[{ host: smtp.example.net, port: 587 }]") {
            let Some(fields) = self.fields(item, &spec::EGRESS) else { continue };
            if fields.get("host").is_none() {
                self.missing(item.mark, "host", "this egress", "add the name it reaches: `host: NAME`");
            }
            if fields.get("port").is_none() {
                self.missing(item.mark, "port", "this egress", "add the port it reaches: `port: 443`");
            }
            let host = fields.get("host").and_then(|n| self.host(n));
            let port = fields.get("port").and_then(|n| self.port(n));
            let tls = fields.get("tls").map(|n| self.truth(n).unwrap_or(true));
            let allow_private = fields.get("allow_private").and_then(|n| self.truth(n)).unwrap_or(false);
            let (Some(host), Some(port)) = (host, port) else { continue };
            let position = self.at(item.mark);
            hosts.push(Egress { host, port, tls: tls.unwrap_or(port == 443), allow_private, position });
        }
        hosts
    }
}

/// A prefix in whole segments, in the one form that two equal ones share.
fn route_path(text: &str) -> Result<String, String> {
    prefix(text).map_err(|e| e.to_string())?;
    if text.contains('*') {
        return Err("a route is a prefix and covers all below it, without wildcards".to_owned());
    }
    if text.len() > 1 && text.ends_with('/') {
        return Err(format!(
            "a prefix covers whole segments: write it without the last slash, `{}`",
            text.trim_end_matches('/')
        ));
    }
    Ok(text.to_owned())
}
