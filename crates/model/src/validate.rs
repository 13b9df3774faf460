//! What no single element can know: names that must exist, edges that need both sides, ways that must not collide.

mod access;
mod consent;
mod fault;
mod hosts;
mod inspect;
mod limit;
mod shape;
mod split;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use crate::access::Provider;
use crate::decode::Fragment;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::{
    Entities, Fence, Gateway, Host, Limits, Metrics, Policies, Protocol, Service, SourceFile, Waf,
};
use crate::pattern::shape;
use crate::position::Position;
use crate::suggest::{did_you_mean, quote};

/// What a service finds its own sidecar under; said again by the crate that gives addresses.
const OWN_HOST: &str = "ringfence.internal";

/// Services of one fence: each has an address of its own in 198.18.0.0/15, and snapshots hold them all.
const MAX_SERVICES: usize = 10_000;

/// Merges the fragments and checks the whole. `complete` says that every file could be read to its end.
pub(crate) fn assemble(
    fragments: Vec<Fragment>,
    sources: Vec<SourceFile>,
    complete: bool,
    mut out: Diagnostics,
) -> Result<Fence, Diagnostics> {
    let several = sources.len() > 1;
    let mut merged = Merged::default();
    for fragment in fragments {
        if several && fragment.owner.is_none() {
            let position = Position::new(fragment.file.clone(), 1, 1);
            let message = "this file is a fragment among others and names nobody who answers for it";
            out.push(
                Diagnostic::error("missing-key", position, message).help("add `owner: TEAM`".to_owned()),
            );
        }
        merged.add(fragment, &mut out);
    }
    let start = sources
        .first()
        .map_or_else(|| Position::whole("ringfence.yaml".into()), |s| Position::new(s.name.clone(), 1, 1));
    if complete {
        merged.require(&start, &mut out);
        Checker { merged: &merged, out: &mut out }.run();
    }
    consent::settle(&mut merged, complete, &mut out);
    if complete && out.is_valid() {
        shape::warn(&merged, &mut out);
    }
    let mut out = out.finish(&sources);
    if !complete || !out.is_valid() {
        return Err(out);
    }
    let claims = limit::claims(&merged);
    let waf = merged.waf.take().or_else(|| inspect::unless_said(&merged));
    let (name, position) = merged.name.unwrap_or((String::new(), start));
    let trust_domain = merged.trust_domain.map(|(domain, _)| domain).unwrap_or_default();
    for provider in merged.providers.iter_mut().filter(|provider| provider.audiences.is_empty()) {
        provider.audiences.push(trust_domain.clone());
    }
    for provider in &mut merged.providers {
        provider.kept_claims.clone_from(&claims);
    }
    Ok(Fence {
        name,
        position,
        trust_domain,
        gateway: merged.gateway,
        providers: merged.providers,
        policies: merged.policies,
        entities: merged.entities.map(|(entities, _)| entities),
        waf,
        metrics: merged.metrics,
        hosts: merged.hosts,
        services: merged.services,
        limits: merged.limits.map_or_else(Limits::default, |(limits, _)| limits),
        consent_required: merged.consent.is_some(),
        files: sources,
        folder: PathBuf::new(),
        warnings: std::mem::take(&mut out.warnings),
        index: merged.index,
    })
}

/// The fragments as one.
#[derive(Debug, Default)]
struct Merged {
    name: Option<(String, Position)>,
    trust_domain: Option<(String, Position)>,
    consent: Option<Position>,
    gateway: Option<Gateway>,
    limits: Option<(Limits, Position)>,
    providers: Vec<Provider>,
    policies: Option<Policies>,
    entities: Option<(Entities, Position)>,
    waf: Option<Waf>,
    metrics: Option<Metrics>,
    hosts: Vec<Host>,
    services: Vec<Service>,
    index: BTreeMap<String, usize>,
    broken: HashSet<String>,
}

impl Merged {
    fn add(&mut self, fragment: Fragment, out: &mut Diagnostics) {
        let mut once = |key: &str, here: Option<&Position>, earlier: Option<&Position>| {
            if let (Some(here), Some(earlier)) = (here, earlier) {
                let message = format!("`{key}` is said once for the whole fence, and a fragment has said it");
                out.push(
                    Diagnostic::error("duplicate", here.clone(), message)
                        .related(earlier, "it stands here first"),
                );
            }
        };
        once("fence", fragment.name.as_ref().map(|n| &n.1), self.name.as_ref().map(|n| &n.1));
        once(
            "trust_domain",
            fragment.trust_domain.as_ref().map(|n| &n.1),
            self.trust_domain.as_ref().map(|n| &n.1),
        );
        once("consent", fragment.consent.as_ref(), self.consent.as_ref());
        once(
            "gateway",
            fragment.gateway.as_ref().map(|g| &g.position),
            self.gateway.as_ref().map(|g| &g.position),
        );
        once("limits", fragment.limits.as_ref().map(|l| &l.1), self.limits.as_ref().map(|l| &l.1));
        once(
            "policies",
            fragment.policies.as_ref().map(|p| &p.position),
            self.policies.as_ref().map(|p| &p.position),
        );
        once("entities", fragment.entities.as_ref().map(|e| &e.1), self.entities.as_ref().map(|e| &e.1));
        once("waf", fragment.waf.as_ref().map(|w| &w.position), self.waf.as_ref().map(|w| &w.position));
        once(
            "metrics",
            fragment.metrics.as_ref().map(|m| &m.position),
            self.metrics.as_ref().map(|m| &m.position),
        );
        self.metrics = self.metrics.take().or(fragment.metrics);
        self.waf = self.waf.take().or(fragment.waf);
        self.policies = self.policies.take().or(fragment.policies);
        self.entities = self.entities.take().or(fragment.entities);
        self.name = self.name.take().or(fragment.name);
        self.trust_domain = self.trust_domain.take().or(fragment.trust_domain);
        self.consent = self.consent.take().or(fragment.consent);
        self.gateway = self.gateway.take().or(fragment.gateway);
        self.limits = self.limits.take().or(fragment.limits);
        self.broken.extend(fragment.broken);
        for provider in fragment.providers {
            if let Some(earlier) = self.providers.iter().find(|p| p.name == provider.name) {
                let message = format!("provider {} is declared twice", quote(&provider.name));
                let error = Diagnostic::error("duplicate", provider.position.clone(), message);
                out.push(error.related(&earlier.position, "it stands here first"));
                continue;
            }
            if let Some(earlier) = self.providers.iter().find(|p| p.issuer == provider.issuer) {
                let message = format!("{} is the issuer of two providers", provider.issuer);
                let error = Diagnostic::error("duplicate", provider.position.clone(), message);
                out.push(error.related(&earlier.position, "it stands here first"));
            }
            self.providers.push(provider);
        }
        for host in fragment.hosts {
            if let Some(earlier) = self.hosts.iter().find(|known| known.name == host.name) {
                let message = format!("host {} is declared twice", quote(&host.name));
                let error = Diagnostic::error("duplicate", host.position.clone(), message);
                out.push(error.related(&earlier.position, "it stands here first"));
                continue;
            }
            self.hosts.push(host);
        }
        for service in fragment.services {
            if let Some(earlier) = self.service(&service.name) {
                let message = format!("{} is declared twice", quote(&service.name));
                let error = Diagnostic::error("duplicate", service.position.clone(), message);
                out.push(error.related(&earlier.position, "it stands here first"));
                continue;
            }
            self.index.insert(service.name.clone(), self.services.len());
            self.services.push(service);
        }
    }

    fn service(&self, name: &str) -> Option<&Service> {
        self.index.get(name).and_then(|at| self.services.get(*at))
    }

    fn require(&self, start: &Position, out: &mut Diagnostics) {
        let mut missing = |key: &str, help: &str| {
            let error = Diagnostic::error("missing-key", start.clone(), format!("the fence has no `{key}`"));
            out.push(error.help(help.to_owned()));
        };
        if self.name.is_none() {
            missing("fence", "add its name: `fence: clinic`");
        }
        if self.trust_domain.is_none() {
            missing("trust_domain", "add the domain of its identities: `trust_domain: clinic.example`");
        }
        if self.entities.is_some() && self.policies.is_none() {
            missing("policies", "`entities` is data for policies: add `policies: [policies/*.cedar]`");
        }
        if self.services.is_empty() {
            missing("services", "add at least one under `services:`");
        }
        if let Some(service) = self.services.get(MAX_SERVICES) {
            let message = format!("a fence has at most {MAX_SERVICES} services");
            out.push(Diagnostic::error("too-large", service.position.clone(), message));
        }
    }
}

/// Checks between elements.
struct Checker<'a> {
    merged: &'a Merged,
    out: &'a mut Diagnostics,
}

impl<'a> Checker<'a> {
    fn run(mut self) {
        let services = &self.merged.services;
        let mut routes = HashMap::new();
        for service in services {
            self.calls(service);
            self.egress(service);
            self.routes(service, &mut routes);
            access::check(self.merged, service, self.out);
        }
        access::authorities(self.merged, self.out);
        limit::check(self.merged, self.out);
        hosts::check(self.merged, self.out);
        split::check(self.merged, self.out);
        fault::warn(self.merged, self.out);
        self.tcp_hosts();
    }

    /// A host that leads to a tcp service is taken as a whole: its bytes are not looked at for a path.
    fn tcp_hosts(&mut self) {
        let routes =
            || self.merged.services.iter().flat_map(|s| s.routes.iter().map(move |route| (s, route)));
        let taken: HashMap<&str, &Position> = routes()
            .filter(|(service, _)| service.protocol == Protocol::Tcp)
            .filter_map(|(_, route)| Some((route.host.as_deref()?, &route.position)))
            .collect();
        let mut clashes = Vec::new();
        for (_, route) in routes().filter(|(service, _)| service.protocol != Protocol::Tcp) {
            if let Some((host, earlier)) = route.host.as_deref().and_then(|host| taken.get_key_value(host)) {
                clashes.push((
                    &route.position,
                    format!("`{host}` leads to a tcp service as a whole"),
                    *earlier,
                ));
            }
        }
        for (position, message, earlier) in clashes {
            self.duplicate(position, message, earlier);
        }
    }

    fn error(&mut self, code: &'static str, position: &Position, message: String, help: Option<String>) {
        self.out.push(Diagnostic::error(code, position.clone(), message).help(help));
    }

    fn duplicate(&mut self, position: &Position, message: String, earlier: &Position) {
        let error = Diagnostic::error("duplicate", position.clone(), message);
        self.out.push(error.related(earlier, "it stands here first"));
    }

    fn calls(&mut self, caller: &'a Service) {
        let mut seen: HashMap<&str, &Position> = HashMap::new();
        for call in &caller.calls {
            if call.service == caller.name {
                let help =
                    "inside its network a service reaches itself at 127.0.0.1: remove the call".to_owned();
                self.error(
                    "self-call",
                    &call.position,
                    format!("{} calls itself", quote(&caller.name)),
                    Some(help),
                );
                continue;
            }
            if let Some(earlier) = seen.insert(&call.service, &call.position) {
                let message = format!(
                    "{} is called twice here: put all it may do under one call",
                    quote(&call.service)
                );
                self.duplicate(&call.position, message, earlier);
            }
            let Some(callee) = self.merged.service(&call.service) else {
                let names = self.merged.index.keys().map(String::as_str);
                let help = if self.out.is_full() { None } else { did_you_mean(&call.service, names) };
                self.error(
                    "unknown-service",
                    &call.position,
                    format!("unknown service {}", quote(&call.service)),
                    help,
                );
                continue;
            };
            if callee.listen.is_none() && !self.merged.broken.contains(&callee.name) {
                let help = format!("add `listen: PORT` to {} at {}", quote(&callee.name), callee.position);
                let message = format!("{} listens on no port, so nobody can call it", quote(&callee.name));
                self.error("no-listen", &call.position, message, Some(help));
            }
            if call.on_behalf && callee.protocol == Protocol::Tcp {
                let message =
                    format!("{} speaks tcp, which carries no transaction token", quote(&callee.name));
                self.error("conflict", &call.position, message, Some("leave `on_behalf` out".to_owned()));
            }
            if let (Some(rule), Protocol::Tcp) = (call.limit.first(), callee.protocol) {
                let message = format!(
                    "{} speaks tcp, which has no requests that could be counted",
                    quote(&callee.name)
                );
                self.error("conflict", &rule.position, message, Some("leave `limit` out".to_owned()));
            }
            if callee.protocol == Protocol::Tcp && !call.handling.is_default() {
                let message = format!(
                    "{} speaks tcp, which has no requests that could be timed, tried again, counted or split",
                    quote(&callee.name)
                );
                let help = "leave `timeout`, `retries`, `breaker`, `fault` and `split` out".to_owned();
                self.error("conflict", &call.position, message, Some(help));
            }
            for allow in &call.allow {
                match callee.protocol {
                    Protocol::Http => {}
                    Protocol::Grpc => {
                        if allow.methods.iter().any(|method| method != "POST") {
                            let help =
                                "leave `methods` out and name the calls: `paths: [/package.Service/Method]`"
                                    .to_owned();
                            self.error(
                                "conflict",
                                &allow.position,
                                "a gRPC call is always a POST".to_owned(),
                                Some(help),
                            );
                        }
                    }
                    Protocol::Tcp => {
                        let message =
                            format!("{} speaks tcp, which has no methods and paths", quote(&callee.name));
                        self.error(
                            "conflict",
                            &allow.position,
                            message,
                            Some("leave `allow` out".to_owned()),
                        );
                    }
                }
            }
        }
    }

    fn egress(&mut self, service: &'a Service) {
        let mut seen: HashMap<(&str, u16), &Position> = HashMap::new();
        for egress in &service.egress {
            if let Some(earlier) = seen.insert((&egress.host, egress.port), &egress.position) {
                self.duplicate(
                    &egress.position,
                    format!("`{}:{}` stands here twice", egress.host, egress.port),
                    earlier,
                );
            }
            if self.merged.index.contains_key(&egress.host) {
                let help = format!(
                    "to call the service, add it to `calls`; to reach another `{0}`, use its full name",
                    egress.host
                );
                let message =
                    format!("`{}` is a service of this fence, so that name already leads there", egress.host);
                self.error("conflict", &egress.position, message, Some(help));
            }
            if egress.host == OWN_HOST {
                let help = "its address is in RINGFENCE_URL, and nothing has to be declared".to_owned();
                let message = format!("`{}` is where a service finds Ringfence itself", egress.host);
                self.error("reserved", &egress.position, message, Some(help));
            }
            if egress.host == "localhost" || egress.host.ends_with(".localhost") {
                let help = "a service of this host stands under the top-level `external`".to_owned();
                let message = format!("inside its network `{}` is the service itself", egress.host);
                self.error("conflict", &egress.position, message, Some(help));
            }
        }
    }

    fn routes(
        &mut self,
        service: &'a Service,
        seen: &mut HashMap<(Option<&'a str>, String), (&'a str, &'a Position)>,
    ) {
        for route in &service.routes {
            if self.merged.gateway.is_none() {
                let help = "add `gateway: { listen: 127.0.0.1:8443 }`, or remove the route".to_owned();
                self.error(
                    "no-gateway",
                    &route.position,
                    "this route needs a gateway, and the fence has none".to_owned(),
                    Some(help),
                );
            }
            if service.listen.is_none() && !self.merged.broken.contains(&service.name) {
                let message =
                    format!("{} listens on no port, so no route can lead to it", quote(&service.name));
                self.error("no-listen", &route.position, message, Some("add `listen: PORT`".to_owned()));
            }
            if let Some((other, earlier)) =
                seen.insert((route.host.as_deref(), shape(&route.path)), (&service.name, &route.position))
            {
                let host = route.host.as_deref().unwrap_or("any host");
                let message = format!("{host}, `{}` already leads to {}", route.path, quote(other));
                self.duplicate(&route.position, message, earlier);
            }
        }
    }
}
