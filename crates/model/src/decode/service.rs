//! One service: what it runs, where it listens, what it may use.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{Decoder, Fields, spec};
use crate::access::Access;
use crate::fence::{Accept, ExternalTls, FileRule, HostPort, Kind, Protocol, Ready, Service};
use crate::pattern::checked_segments;
use crate::scalar::{as_service_name, host_port, service_name, spiffe_id};
use crate::suggest::quote;
use crate::yaml::{Entry, Node, Value};

/// Most addresses of one external service.
const MOST_ADDRESSES: usize = 16;

impl Decoder<'_> {
    pub(super) fn service(&mut self, entry: &Entry) -> Service {
        let mut service = self.blank(entry);
        // A service may have nothing to say: `worker:` alone.
        if entry.value.value == Value::Null {
            return service;
        }
        let Some(fields) = self.fields(&entry.value, &spec::SERVICE) else { return service };
        service.listen = fields.get("listen").and_then(|n| self.port(n));
        service.port = fields.get("port").and_then(|n| self.port(n)).or(service.listen);
        if let (Some(port), None) = (fields.entry("port"), fields.get("listen")) {
            let help = Some("add `listen`, the port inside the service's network".to_owned());
            self.error(
                "missing-key",
                port.mark,
                "`port` says where callers find what listens, and nothing does",
                help,
            );
        }
        self.common(&mut service, fields);
        service.access = self.access(fields);
        if let (Some(entry), Protocol::Tcp) = (fields.entry("accept"), service.protocol) {
            self.no_credentials(entry.mark);
        }
        service.calls = fields.get("calls").map_or_else(Vec::new, |n| self.calls(n));
        service.at = self.placed(fields);
        service.egress = fields.get("egress").map_or_else(Vec::new, |n| self.egress(n));
        let env = fields.get("env").map_or_else(BTreeMap::new, |n| self.env(n));
        let files = fields.get("files").map_or_else(Vec::new, |n| self.files(n));
        let ready = fields.entry("ready").and_then(|e| self.ready(e, &service));
        service.kind = match fields.get("run") {
            Some(node) => Kind::Run { command: self.command(node), env, files, ready },
            None => Kind::Waits { env, files, ready },
        };
        service
    }

    pub(super) fn external(&mut self, entry: &Entry) -> Service {
        let mut service = self.blank(entry);
        let Some(fields) = self.fields(&entry.value, &spec::EXTERNAL) else { return service };
        let mut more = Vec::new();
        let address = match fields.get("address") {
            Some(node) => {
                let mut all = self.addresses(node).into_iter();
                let first = all.next();
                more.extend(all);
                first
            }
            None => {
                self.missing(
                    entry.mark,
                    "address",
                    "an external service",
                    "add where it runs: `address: HOST:PORT`",
                );
                None
            }
        };
        let address = address.unwrap_or_else(|| HostPort { host: String::new(), port: 1 });
        service.listen = Some(address.port);
        service.port = fields.get("port").and_then(|n| self.port(n)).or(service.listen);
        self.common(&mut service, fields);
        if let (false, Protocol::Tcp, Some(node)) = (more.is_empty(), service.protocol, fields.get("address"))
        {
            let message = "tcp has no requests that could be spread over several addresses";
            self.error("conflict", node.mark, message, Some("name one address".to_owned()));
        }
        let tls = match fields.get("tls") {
            Some(node) => self.external_tls(node),
            None => {
                let plain = |address: &&HostPort| {
                    let loopback = address.host.parse().is_ok_and(|a: std::net::IpAddr| a.is_loopback());
                    address.host != "localhost" && !loopback && !address.host.is_empty()
                };
                if let Some(address) = [&address].into_iter().chain(&more).find(plain) {
                    let message = format!(
                        "what is sent to `{address}` is sent in plain text, with no proof of who answers"
                    );
                    let warning = crate::Diagnostic::warning("plain-text", self.at(entry.mark), message);
                    self.out
                        .push(warning.help("say `tls: spiffe`, or `tls: off` when that is meant".to_owned()));
                }
                ExternalTls::Off
            }
        };
        service.kind = Kind::External { address, more, tls };
        service
    }

    fn blank(&mut self, entry: &Entry) -> Service {
        if let Err(reason) = service_name(&entry.key) {
            let help = as_service_name(&entry.key).map(|name| format!("such as `{name}`"));
            self.error(
                "bad-name",
                entry.mark,
                format!("{} cannot name a service: {reason}", quote(&entry.key)),
                help,
            );
        }
        Service {
            name: entry.key.clone(),
            kind: Kind::Waits { env: BTreeMap::new(), files: Vec::new(), ready: None },
            listen: None,
            port: None,
            protocol: Protocol::Http,
            routes: Vec::new(),
            access: Access::default(),
            openapi: None,
            limit: Vec::new(),
            calls: Vec::new(),
            proposed: Vec::new(),
            accepts: Vec::new(),
            egress: Vec::new(),
            at: Vec::new(),
            position: self.at(entry.mark),
        }
    }

    /// What services of both kinds have.
    fn common(&mut self, service: &mut Service, fields: Fields<'_>) {
        if let Some(node) = fields.get("protocol") {
            let choices = [("http", Protocol::Http), ("grpc", Protocol::Grpc), ("tcp", Protocol::Tcp)];
            service.protocol = self.choice(node, &choices).unwrap_or_default();
        }
        service.routes = fields.get("routes").map_or_else(Vec::new, |n| self.routes(n, service.protocol));
        let responses = self.responses(fields, service.protocol);
        for route in &mut service.routes {
            route.responses = std::mem::take(&mut route.responses).within(&responses);
        }
        service.openapi = fields.entry("openapi").and_then(|entry| self.openapi(entry, service.protocol));
        service.limit = self.limit(fields, service.protocol);
        for node in fields.get("accepts").map_or(&[][..], |n| self.list(n, "callers", "[portal]")) {
            let Some(caller) = self.text(node, "the name of a service") else { continue };
            service.accepts.push(Accept { caller: caller.to_owned(), position: self.at(node.mark) });
        }
    }

    fn command(&mut self, node: &Node) -> Vec<String> {
        let mut command = Vec::new();
        let words =
            node.text().map(|text| text.split_whitespace().map(quote_word).collect::<Vec<_>>().join(", "));
        for (at, word) in self
            .list(node, "program and arguments", &format!("[{}]", words.unwrap_or_default()))
            .iter()
            .enumerate()
        {
            match &word.value {
                // An argument may be empty, the program may not.
                Value::Scalar { text, .. } if at > 0 || !text.is_empty() => command.push(text.clone()),
                _ => self.mismatch(word, if at == 0 { "a program" } else { "an argument" }),
            }
        }
        if node.items().is_empty() && matches!(node.value, Value::List(_)) {
            let help =
                Some("name the program, or leave `run` out when it is started by `ringfence run`".to_owned());
            self.error("empty", node.mark, "there is nothing to run", help);
        }
        command
    }

    fn env(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for entry in self.named(node, "value") {
            let name = entry.key.as_str();
            let shaped = name.len() <= 256
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !shaped {
                let message = format!("{} cannot name an environment variable", quote(name));
                self.error(
                    "bad-name",
                    entry.mark,
                    message,
                    Some("it has letters, digits and `_`".to_owned()),
                );
            } else if name.starts_with("RINGFENCE_") {
                let message = format!("{} is set by Ringfence itself", quote(name));
                self.error(
                    "reserved",
                    entry.mark,
                    message,
                    Some("choose a name without `RINGFENCE_`".to_owned()),
                );
            }
            match &entry.value.value {
                Value::Scalar { text, .. } => drop(env.insert(entry.key.clone(), text.clone())),
                Value::Null => {
                    let help = Some("for an empty one write \"\"".to_owned());
                    self.error("wrong-type", entry.mark, "this variable has no value", help);
                }
                _ => self.mismatch(&entry.value, "a text"),
            }
        }
        env
    }

    fn files(&mut self, node: &Node) -> Vec<FileRule> {
        let mut rules: Vec<FileRule> = Vec::new();
        for item in self.list(node, "paths", "[data]") {
            let (path, write) = if let Value::Scalar { .. } = item.value {
                (Some(item), false)
            } else {
                let Some(fields) = self.fields(item, &spec::FILE) else { continue };
                if fields.get("path").is_none() {
                    self.missing(item.mark, "path", "this file rule", "add `path`");
                }
                (fields.get("path"), fields.get("write").and_then(|n| self.truth(n)).unwrap_or(false))
            };
            let Some(path) = path.and_then(|n| self.parsed(n, "a path", file_path)) else { continue };
            if rules.iter().any(|rule| rule.path == path) {
                self.error(
                    "duplicate",
                    item.mark,
                    format!("{} stands here twice", quote(&path.to_string_lossy())),
                    None,
                );
            }
            rules.push(FileRule { path, write, position: self.at(item.mark) });
        }
        rules
    }

    fn ready(&mut self, entry: &Entry, service: &Service) -> Option<Ready> {
        let node = &entry.value;
        if service.listen.is_none() {
            let help = Some("add `listen`, the port inside the service's network".to_owned());
            self.error(
                "missing-key",
                entry.mark,
                "whether it is ready is asked at its port, and it has no `listen`",
                help,
            );
        }
        if let Value::Scalar { .. } = node.value {
            return self.choice(node, &[("tcp", ())]).map(|()| Ready::Tcp);
        }
        let fields = self.fields(node, &spec::READY)?;
        let Some(path) = fields.get("http") else {
            self.missing(
                node.mark,
                "http",
                "this `ready`",
                "write `ready: tcp` or `ready: { http: /healthz }`",
            );
            return None;
        };
        if service.protocol != Protocol::Http {
            let help = Some("write `ready: tcp`".to_owned());
            self.error(
                "conflict",
                node.mark,
                format!("a {} service does not answer a plain GET", service.protocol),
                help,
            );
        }
        let path = self.parsed(path, "a path", |text| {
            let part = text.split_once('?').map_or(text, |(path, _)| path);
            checked_segments(part).map(|_| text.to_owned()).map_err(|e| e.to_string())
        })?;
        Some(Ready::Http { path })
    }

    /// One address, or a few of one service.
    fn addresses(&mut self, node: &Node) -> Vec<HostPort> {
        let Value::List(items) = &node.value else {
            return self.parsed(node, "an address", host_port).into_iter().collect();
        };
        if items.is_empty() {
            let help = Some("name where it runs: `address: [HOST:PORT, HOST:PORT]`".to_owned());
            self.error("empty", node.mark, "this service runs nowhere", help);
        }
        if let Some(item) = items.get(MOST_ADDRESSES) {
            self.error(
                "too-large",
                item.mark,
                format!("a service has at most {MOST_ADDRESSES} addresses"),
                None,
            );
        }
        let mut all: Vec<HostPort> = Vec::new();
        for item in items.iter().take(MOST_ADDRESSES) {
            let Some(address) = self.parsed(item, "an address", host_port) else { continue };
            if all.contains(&address) {
                self.error("duplicate", item.mark, format!("`{address}` stands here twice"), None);
            }
            all.push(address);
        }
        all
    }

    fn external_tls(&mut self, node: &Node) -> ExternalTls {
        if let Value::Map(_) = node.value {
            let id = self.fields(node, &spec::EXTERNAL_TLS).and_then(|fields| {
                let Some(id) = fields.get("spiffe") else {
                    self.missing(
                        node.mark,
                        "spiffe",
                        "this `tls`",
                        "write `tls: { spiffe: \"spiffe://…\" }`",
                    );
                    return None;
                };
                self.parsed(id, "a SPIFFE ID", |text| spiffe_id(text).map(|()| text.to_owned()))
            });
            return ExternalTls::Spiffe { id };
        }
        let tls = self.choice(node, &[("off", false), ("spiffe", true)]);
        if tls == Some(true) { ExternalTls::Spiffe { id: None } } else { ExternalTls::Off }
    }
}

/// A word as it may stand in a flow list.
fn quote_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let bare = word.chars().all(plain)
        && word.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '.' | '/'));
    if bare { word.to_owned() } else { format!("{word:?}") }
}

fn file_path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if text.len() > 4095 {
        return Err("it is longer than any path".to_owned());
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return Err("it has no `..`: name the place it means".to_owned());
    }
    // `a`, `./a` and `a/` are one place.
    let clean: PathBuf = path.components().filter(|c| *c != Component::CurDir).collect();
    Ok(if clean.as_os_str().is_empty() { PathBuf::from(".") } else { clean })
}
