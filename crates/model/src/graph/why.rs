//! May A reach B: by which lines, over which way, and if not, which line would allow it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use serde::Serialize;

use super::{OUTSIDE, summary};
use crate::access::Access;
use crate::fence::{Fence, Service};
use crate::position::Position;
use crate::scalar::{dns_name, port_number};
use crate::suggest::{nearest, quote};

/// The answer to "may A reach B".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// Who asks to reach; `outside` for the gateway's clients.
    pub from: String,
    /// What is to be reached: a service, or a host outside.
    pub to: String,
    /// Whether it may, directly. A way through others is no permission: they decide what they pass on.
    pub allowed: bool,
    /// The shortest way: one step when it is allowed, several when it leads through others, none when there is no way.
    pub path: Vec<Step>,
    /// What would allow it, when it is not allowed.
    pub missing: Option<Missing>,
}

/// One edge of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// From whom.
    pub from: String,
    /// To whom.
    pub to: String,
    /// The lines that allow it: a request passes when it matches one of them.
    pub rules: Vec<Rule>,
}

/// A line of the fence that allows something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// What it allows, such as `GET /patients/*`, or `everything`.
    pub allows: String,
    /// Where it stands.
    pub position: Position,
    /// The line itself.
    pub line: String,
}

/// The line that would allow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What to do.
    pub advice: String,
    /// What to write.
    pub line: String,
    /// The place it belongs to: the service, or the last entry of the list it joins. None when no line can allow it.
    pub position: Option<Position>,
}

/// A name that the fence does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message)]
pub struct UnknownName {
    message: String,
}

impl Fence {
    /// Whether `from` may reach `to`, by which lines, over which way; what is missing otherwise.
    ///
    /// `from` is a service or [`OUTSIDE`]; `to` is a service, or a host outside as `HOST` or `HOST:PORT`.
    ///
    /// # Errors
    /// When a name means nothing in this fence.
    pub fn why(&self, from: &str, to: &str) -> Result<Why, UnknownName> {
        if from != OUTSIDE && self.service(from).is_none() {
            return Err(self.unknown(from));
        }
        if self.service(to).is_none() && (from == OUTSIDE || !self.is_host(to)) {
            return Err(self.unknown(to));
        }
        let path = self.way(from, to);
        let allowed = path.len() == 1 || from == to;
        let missing = (!allowed).then(|| self.missing(from, to));
        Ok(Why { from: from.to_owned(), to: to.to_owned(), allowed, path, missing })
    }

    /// The line that would allow `from` to reach `to` directly.
    #[must_use]
    pub fn missing(&self, from: &str, to: &str) -> Missing {
        let Some(callee) = self.service(to) else { return self.missing_egress(from, to) };
        let port = if callee.listen.is_none() {
            format!(", and give `{to}` the port it listens on: `listen: PORT`")
        } else {
            String::new()
        };
        let Some(caller) = self.service(from) else {
            let gateway = if self.gateway.is_none() {
                ", and a gateway to the fence: `gateway: { listen: 127.0.0.1:8443 }`"
            } else {
                ""
            };
            return Missing {
                advice: format!("add a route to `{to}`{gateway}{port}"),
                line: if callee.protocol == crate::Protocol::Tcp {
                    "routes: [{ host: NAME }]".into()
                } else {
                    "routes: [{ path: / }]".into()
                },
                position: Some(
                    callee.routes.last().map_or_else(|| callee.position.clone(), |r| r.position.clone()),
                ),
            };
        };
        if caller.is_external() {
            let advice = format!(
                "`{from}` runs elsewhere and is not fenced: move it under `services` before it may call"
            );
            return Missing { advice, line: String::new(), position: None };
        }
        if caller.proposed.iter().any(|call| call.service == to) {
            let place = callee.accepts.last().map_or(&callee.position, |accept| &accept.position);
            let advice =
                format!("`{from}` declares the call; the owner of `{to}` adds `{from}` to what it `accepts`");
            return Missing { advice, line: format!("accepts: [{from}]"), position: Some(place.clone()) };
        }
        let place = caller.calls.last().map_or(&caller.position, |call| &call.position);
        let accepts = if self.consent_required && caller.position.file != callee.position.file {
            format!(", and have the owner of `{to}` accept it: `accepts: [{from}]`")
        } else {
            String::new()
        };
        Missing {
            advice: format!("add `{to}` to the `calls` of `{from}`{accepts}{port}"),
            line: format!("calls: [{to}]"),
            position: Some(place.clone()),
        }
    }

    fn missing_egress(&self, from: &str, to: &str) -> Missing {
        let (host, port) = split_port(to);
        let place = self
            .service(from)
            .map(|caller| caller.egress.last().map_or(&caller.position, |egress| &egress.position));
        if self.service(from).is_none_or(Service::is_external) {
            let advice =
                format!("`{from}` is not fenced: what it reaches outside is not for this fence to say");
            return Missing { advice, line: String::new(), position: None };
        }
        Missing {
            advice: format!("add the host to the `egress` of `{from}`"),
            line: format!("egress: [{{ host: {host}, port: {} }}]", port.unwrap_or(443)),
            position: place.cloned(),
        }
    }

    /// The shortest way, breadth first; empty when there is none.
    fn way(&self, from: &str, to: &str) -> Vec<Step> {
        let mut came_from: HashMap<&str, &str> = HashMap::new();
        let mut seen: HashSet<&str> = HashSet::from([from]);
        let mut queue = VecDeque::from([from]);
        while let Some(here) = queue.pop_front() {
            if here == to {
                break;
            }
            if self.service(here).is_some_and(|s| s.egress.iter().any(|e| reaches(e, to))) {
                came_from.insert(to, here);
                break;
            }
            for next in self.nexts(here) {
                if seen.insert(next) {
                    came_from.insert(next, here);
                    queue.push_back(next);
                }
            }
        }
        let mut steps = Vec::new();
        let mut here = to;
        while let Some(before) = came_from.get(here) {
            steps.push(Step {
                from: (*before).to_owned(),
                to: here.to_owned(),
                rules: self.rules(before, here),
            });
            here = before;
        }
        steps.reverse();
        steps
    }

    fn nexts<'f>(&'f self, here: &str) -> Vec<&'f str> {
        if here == OUTSIDE {
            return self.services.iter().filter(|s| !s.routes.is_empty()).map(|s| s.name.as_str()).collect();
        }
        self.service(here)
            .map_or_else(Vec::new, |s| s.calls.iter().map(|call| call.service.as_str()).collect())
    }

    fn rules(&self, from: &str, to: &str) -> Vec<Rule> {
        let rule = |allows: String, position: &Position| Rule {
            allows,
            position: position.clone(),
            line: self.line(position),
        };
        if from == OUTSIDE {
            let routes = self.service(to).map_or(&[][..], |callee| &callee.routes);
            return routes
                .iter()
                .map(|r| {
                    let place = format!("{}{}", r.host.as_deref().unwrap_or("any host, "), r.path);
                    rule(place + &shown(&r.access) + &r.handling.summary(), &r.position)
                })
                .collect();
        }
        if let Some(edge) = self.edge(from, to) {
            let behalf = if edge.call.on_behalf { ", on somebody's behalf only" } else { "" };
            let handled = edge.call.handling.summary();
            let besides = format!("{behalf}{}{handled}", shown(&edge.callee.access));
            if edge.call.allow.is_empty() {
                return vec![rule(format!("everything{besides}"), &edge.call.position)];
            }
            let one = |allow: &crate::Allow| {
                let call = crate::Call {
                    service: String::new(),
                    allow: vec![allow.clone()],
                    on_behalf: false,
                    limit: Vec::new(),
                    handling: crate::Handling::default(),
                    position: allow.position.clone(),
                };
                rule(summary(&call) + &besides, &allow.position)
            };
            return edge.call.allow.iter().map(one).collect();
        }
        let hosts = self.service(from).map_or(&[][..], |caller| &caller.egress);
        let hosts = hosts.iter().filter(|egress| reaches(egress, to));
        hosts
            .map(|e| {
                rule(format!("{}:{}{}", e.host, e.port, if e.tls { " by TLS" } else { "" }), &e.position)
            })
            .collect()
    }

    /// The source line at a position, without the white space around it.
    #[must_use]
    pub fn line(&self, position: &Position) -> String {
        let file = self.files.iter().find(|file| file.name == position.file);
        let line = usize::try_from(position.line).ok().and_then(|line| line.checked_sub(1));
        let text =
            file.zip(line).and_then(|(file, line)| file.text.split('\n').nth(line)).unwrap_or_default();
        text.trim().chars().take(200).collect()
    }

    /// Whether a text is a host outside: declared by some service, or at least shaped like a full name.
    fn is_host(&self, text: &str) -> bool {
        let declared = self.services.iter().any(|s| s.egress.iter().any(|e| reaches(e, text)));
        let (host, _) = split_port(text);
        declared || (host.contains('.') && dns_name(&host.to_ascii_lowercase()).is_ok())
    }

    fn unknown(&self, name: &str) -> UnknownName {
        if name == OUTSIDE {
            let message =
                "`outside` stands for the gateway's clients, and nobody calls them: name a host instead";
            return UnknownName { message: message.to_owned() };
        }
        let names = self.services.iter().map(|s| s.name.as_str()).chain([OUTSIDE]);
        let hint = nearest(name, names).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        UnknownName { message: format!("the fence knows no {}{hint}", quote(name)) }
    }
}

/// A host and the port after it, when there is one.
fn split_port(text: &str) -> (&str, Option<u16>) {
    match text.rsplit_once(':') {
        Some((host, port)) => port_number(port).map_or((text, None), |port| (host, Some(port))),
        None => (text, None),
    }
}

/// What a caller must show.
fn shown(access: &Access) -> String {
    if access.is_open() { String::new() } else { format!(", with {}", access.summary()) }
}

fn reaches(egress: &crate::Egress, to: &str) -> bool {
    let (host, port) = split_port(to);
    egress.host.eq_ignore_ascii_case(host) && port.is_none_or(|port| port == egress.port)
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, .. } = self;
        if from == to {
            return writeln!(f, "yes: {from} reaches itself at 127.0.0.1, without leaving its network");
        }
        writeln!(
            f,
            "{}: {from} may {}reach {to}",
            if self.allowed { "yes" } else { "no" },
            if self.allowed { "" } else { "not " }
        )?;
        if let Some(missing) = &self.missing {
            writeln!(f, "  to allow it: {}", missing.advice)?;
            if let Some(position) = &missing.position {
                writeln!(f, "    {position}: {}", missing.line)?;
            }
            if !self.path.is_empty() {
                writeln!(f, "  a way leads through others, who decide what they pass on:")?;
            }
        }
        for step in &self.path {
            writeln!(f, "  {} → {}", step.from, step.to)?;
            for rule in &step.rules {
                writeln!(f, "    {}: {}", rule.position, rule.allows)?;
                writeln!(f, "      {}", rule.line)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLINIC: &str = include_str!("../../tests/data/clinic.yaml");

    fn clinic() -> Fence {
        Fence::parse(vec![("ringfence.yaml", CLINIC)]).unwrap()
    }

    #[test]
    fn a_declared_edge_is_allowed_by_its_line() {
        let why = clinic().why("appointments", "patients").unwrap();
        assert!(why.allowed && why.missing.is_none());
        let [step] = why.path.as_slice() else { panic!("one step") };
        assert_eq!(step.rules[0].allows, "GET /patients/*");
        assert_eq!(step.rules[0].position.to_string(), "ringfence.yaml:19:17");
        assert!(step.rules[0].line.starts_with("allow:"));
    }

    #[test]
    fn a_way_through_others_is_shown_and_is_no_permission() {
        let why = clinic().why("portal", "mailer").unwrap();
        assert!(!why.allowed);
        let way: Vec<&str> = why.path.iter().map(|s| s.to.as_str()).collect();
        assert_eq!(way, ["appointments", "mailer"]);
        let missing = why.missing.unwrap();
        assert_eq!(
            (missing.line.as_str(), missing.position.unwrap().to_string().as_str()),
            ("calls: [mailer]", "ringfence.yaml:10:37")
        );
    }

    #[test]
    fn without_any_way_the_missing_line_is_named_at_the_caller() {
        let why = clinic().why("mailer", "patients").unwrap();
        assert!(!why.allowed && why.path.is_empty());
        let missing = why.missing.clone().unwrap();
        assert_eq!(missing.position.unwrap().to_string(), "ringfence.yaml:26:3");
        assert!(why.to_string().contains("add `patients` to the `calls` of `mailer`"));
    }

    #[test]
    fn outside_stands_for_the_clients_of_the_gateway() {
        let fence = clinic();
        assert!(fence.why(OUTSIDE, "portal").unwrap().allowed);
        let why = fence.why(OUTSIDE, "patients").unwrap();
        assert!(!why.allowed && why.path.len() == 2);
        assert_eq!(why.missing.unwrap().line, "routes: [{ path: / }]");
        assert!(fence.why("portal", OUTSIDE).unwrap_err().to_string().contains("nobody calls them"));
    }

    #[test]
    fn hosts_outside_are_reached_by_egress_alone() {
        let fence = clinic();
        assert!(fence.why("mailer", "smtp.example.net").unwrap().allowed);
        assert!(fence.why("mailer", "smtp.example.net:587").unwrap().allowed);
        assert!(!fence.why("mailer", "smtp.example.net:25").unwrap().allowed);
        assert_eq!(fence.why("portal", "smtp.example.net").unwrap().path.len(), 3);
        let why = fence.why("portal", "example.org").unwrap();
        assert_eq!(why.missing.unwrap().line, "egress: [{ host: example.org, port: 443 }]");
    }

    #[test]
    fn a_misspelt_name_is_an_error_with_a_suggestion() {
        let error = clinic().why("portal", "patiens").unwrap_err();
        assert_eq!(error.to_string(), "the fence knows no `patiens`, did you mean `patients`?");
        assert!(clinic().why("smtp.example.net", "portal").is_err());
    }
}
