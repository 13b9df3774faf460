//! The top of a file: what the fence as a whole says, and its gateway.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Decoder, spec};
use crate::access::Provider;
use crate::diagnostic::Diagnostics;
use crate::fence::{
    Entities, Gateway, GatewayTls, Guards, Host, Limits, Metrics, Policies, Protocol, Responses, Service, Waf,
};
use crate::position::Position;
use crate::scalar::{dns_name, trust_domain};
use crate::suggest::quote;
use crate::yaml::{Entry, Node, Value};

/// What one file says. Values that were refused are absent or defaults; an error has then been reported.
#[derive(Debug)]
pub(crate) struct Fragment {
    pub(crate) file: Arc<str>,
    pub(crate) owner: Option<String>,
    pub(crate) name: Option<(String, Position)>,
    pub(crate) trust_domain: Option<(String, Position)>,
    pub(crate) consent: Option<Position>,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) limits: Option<(Limits, Position)>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) policies: Option<Policies>,
    pub(crate) entities: Option<(Entities, Position)>,
    pub(crate) waf: Option<Waf>,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) services: Vec<Service>,
    /// Services with errors of their own: what they seem to lack may be what could not be read.
    pub(crate) broken: HashSet<String>,
}

/// Decodes the one document of a file.
pub(crate) fn decode(file: &Arc<str>, node: &Node, out: &mut Diagnostics) -> Fragment {
    let mut decoder = Decoder { file: Arc::clone(file), out };
    let mut fragment = Fragment {
        file: Arc::clone(file),
        owner: None,
        name: None,
        trust_domain: None,
        consent: None,
        gateway: None,
        limits: None,
        providers: Vec::new(),
        policies: None,
        entities: None,
        waf: None,
        metrics: None,
        hosts: Vec::new(),
        services: Vec::new(),
        broken: HashSet::new(),
    };
    let Some(fields) = decoder.fields(node, &spec::FENCE) else { return fragment };
    if let Some(entry) = fields.entry("fence") {
        let name = decoder.parsed(&entry.value, "a name", fence_name).unwrap_or_default();
        fragment.name = Some((name, decoder.at(entry.mark)));
    }
    if let Some(entry) = fields.entry("trust_domain") {
        let parse = |text: &str| trust_domain(text).map(|()| text.to_owned());
        let name = decoder.parsed(&entry.value, "a trust domain", parse).unwrap_or_default();
        fragment.trust_domain = Some((name, decoder.at(entry.mark)));
    }
    fragment.owner = fields.get("owner").and_then(|n| decoder.parsed(n, "an owner", owner));
    if let Some(entry) = fields.entry("consent")
        && decoder.choice(&entry.value, &[("required", ())]).is_some()
    {
        fragment.consent = Some(decoder.at(entry.mark));
    }
    fragment.gateway = fields.entry("gateway").map(|entry| decoder.gateway(entry));
    fragment.limits = fields.entry("limits").map(|e| (decoder.limits(&e.value), decoder.at(e.mark)));
    fragment.policies = fields.entry("policies").map(|entry| decoder.policies(entry));
    fragment.entities = fields.entry("entities").and_then(|entry| decoder.entities(entry));
    fragment.waf = fields.entry("waf").map(|entry| decoder.waf(entry));
    fragment.metrics = fields.entry("metrics").and_then(|entry| decoder.metrics(entry));
    // In order of declaration, whichever of the two maps stands first.
    for entry in fields.entries {
        match entry.key.as_str() {
            "providers" => {
                for provider in decoder.named(&entry.value, "provider") {
                    fragment.providers.extend(decoder.provider(provider));
                }
            }
            "hosts" => {
                for host in decoder.named(&entry.value, "host") {
                    fragment.hosts.extend(decoder.host_entry(host));
                }
            }
            "services" => {
                for service in decoder.named(&entry.value, "service") {
                    let before = decoder.out.count();
                    fragment.services.push(decoder.service(service));
                    if decoder.out.count() > before {
                        fragment.broken.insert(service.key.clone());
                    }
                }
            }
            "external" => {
                for service in decoder.named(&entry.value, "external service") {
                    fragment.services.push(decoder.external(service));
                }
            }
            _ => {}
        }
    }
    fragment
}

fn fence_name(text: &str) -> Result<String, String> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(ok) {
        Ok(text.to_owned())
    } else {
        Err("it has letters, digits, `-`, `_` and `.`, begins with a letter or digit, and has at most 63"
            .to_owned())
    }
}

fn owner(text: &str) -> Result<String, String> {
    if text.chars().count() <= 128 && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("it has at most 128 characters on one line".to_owned())
    }
}

impl Decoder<'_> {
    fn gateway(&mut self, entry: &Entry) -> Gateway {
        let position = self.at(entry.mark);
        let mut gateway = Gateway {
            listen: Vec::new(),
            tls: GatewayTls::Internal,
            hosts: Vec::new(),
            limit: Vec::new(),
            guards: Guards::default(),
            responses: Responses::default(),
            at: Vec::new(),
            position,
        };
        let Some(fields) = self.fields(&entry.value, &spec::GATEWAY) else { return gateway };
        match fields.get("listen") {
            None => self.missing(
                entry.mark,
                "listen",
                "the gateway",
                "add where it listens: `listen: 127.0.0.1:8443`",
            ),
            Some(node) => {
                let nodes = if let Value::List(items) = &node.value {
                    items.as_slice()
                } else {
                    std::slice::from_ref(node)
                };
                if nodes.is_empty() {
                    self.error(
                        "empty",
                        node.mark,
                        "the gateway listens nowhere",
                        Some("add `127.0.0.1:8443`".to_owned()),
                    );
                }
                for node in nodes {
                    let Some(address) = self.parsed(node, "an address to listen at", socket_address) else {
                        continue;
                    };
                    if gateway.listen.contains(&address) {
                        self.error("duplicate", node.mark, format!("`{address}` stands here twice"), None);
                    } else {
                        gateway.listen.push(address);
                    }
                }
            }
        }
        if let Some(node) = fields.get("tls") {
            gateway.tls = self.gateway_tls(node);
        }
        for node in fields.get("hosts").map_or(&[][..], |n| self.list(n, "host names", "[clinic.example]")) {
            gateway.hosts.extend(self.host(node));
        }
        gateway.at = self.placed(fields);
        gateway.limit = self.limit(fields, Protocol::Http);
        gateway.guards = self.guards(fields);
        gateway.responses = self.responses(fields, Protocol::Http);
        gateway
    }

    fn gateway_tls(&mut self, node: &Node) -> GatewayTls {
        if let Value::Map(_) = node.value {
            let Some(fields) = self.fields(node, &spec::GATEWAY_TLS) else { return GatewayTls::Internal };
            let mut part = |key| match fields.get(key) {
                Some(node) => self.text(node, "a path").map(PathBuf::from),
                None => {
                    self.missing(
                        node.mark,
                        key,
                        "the gateway's tls",
                        "name both files: `{ cert: FILE, key: FILE }`",
                    );
                    None
                }
            };
            return match (part("cert"), part("key")) {
                (Some(cert), Some(key)) => GatewayTls::Files { cert, key },
                _ => GatewayTls::Internal,
            };
        }
        self.choice(node, &[("internal", false), ("off", true)])
            .map_or(GatewayTls::Internal, |off| if off { GatewayTls::Off } else { GatewayTls::Internal })
    }

    /// A host name, in lower case as names are compared.
    pub(super) fn host(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "a host name")?;
        let name = text.to_ascii_lowercase();
        match dns_name(&name) {
            Ok(()) => Some(name),
            Err(reason) => {
                self.error(
                    "bad-value",
                    node.mark,
                    format!("{} is not a host name: {reason}", quote(text)),
                    None,
                );
                None
            }
        }
    }
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err("it is an IP address and a port from 1 to 65535, such as `127.0.0.1:8443` or `[::]:443`"
            .to_owned()),
    }
}
