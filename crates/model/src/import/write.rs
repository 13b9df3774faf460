//! What was found, as a fence with its guesses marked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use super::guess::{Target, may_be_secret, names_an_address, protocol_by_port, targets};
use super::{Found, Readiness, is_outside_host};
use crate::fence::Protocol;
use crate::pattern::checked_segments;
use crate::scalar::{dns_name, trust_domain};
use crate::suggest::visible;

/// What one service's values say of others.
#[derive(Default)]
struct Reaches {
    /// Index of the callee, and what it was guessed from.
    calls: BTreeMap<usize, String>,
    /// Hosts outside, with port, and what they were guessed from.
    hosts: BTreeMap<(String, u16), String>,
    /// Names that nothing among the files has.
    unknown: Vec<String>,
}

/// The fence's name and trust domain, from any text.
pub(super) fn names(name: &str) -> (String, String) {
    let mapped: String = name
        .chars()
        .take(63)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let trimmed = mapped.trim_matches('-');
    let name = if trimmed.is_empty() { "fence" } else { trimmed };
    let domain = format!("{name}.internal");
    let domain = if trust_domain(&domain).is_ok() { domain } else { "fence.internal".to_owned() };
    (name.to_owned(), domain)
}

/// Writes the fence; also says how many calls it holds.
pub(super) fn fence(name: &str, found: &mut [Found]) -> (String, usize) {
    let reaches = reaches(found);
    guess_ports(found, &reaches);
    let protocols: Vec<(Protocol, Option<String>)> = found.iter().map(protocol).collect();
    let (name, domain) = names(name);
    let mut out = String::from(
        "# Written by `ringfence init`. What is marked \"guessed\" was read from names and values: look at it once.\n\
         # A service without `run` is started by `ringfence run NAME -- COMMAND`.\n",
    );
    // Writing to a String cannot fail.
    let _ = writeln!(out, "fence: {name}\ntrust_domain: {domain}");
    let (routes, refused) = routes(found, &protocols);
    if routes.iter().any(|lines| !lines.is_empty()) {
        out.push_str("gateway:\n  listen: 127.0.0.1:8443\n");
    }
    out.push_str("services:\n");
    let mut calls = 0;
    for (at, service) in found.iter().enumerate() {
        let _ = writeln!(out, "  # {}", comment(&service.source));
        for line in &service.comments {
            let _ = writeln!(out, "  # {}", comment(line));
        }
        let _ = writeln!(out, "  {}:", service.name);
        if let Some(listen) = service.listen {
            let _ = writeln!(out, "    listen: {listen}");
            // Port 80 leads to every service.
            if let Some(port) = service.port.filter(|port| *port != listen && *port != 80) {
                let _ = writeln!(out, "    port: {port}");
            }
        }
        let (protocol, because) = &protocols[at];
        if let Some(because) = because.as_ref().filter(|_| service.listen.is_some()) {
            let _ = writeln!(out, "    protocol: {protocol}   # guessed from {}", comment(because));
        }
        ready(&mut out, service, *protocol);
        environment(&mut out, service);
        for line in routes[at].iter().chain(&refused[at]) {
            let _ = writeln!(out, "    {line}");
        }
        calls += write_reaches(&mut out, service, &reaches[at], found);
    }
    (out, calls)
}

/// What the values of each service name.
fn reaches(found: &[Found]) -> Vec<Reaches> {
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (at, service) in found.iter().enumerate() {
        for alias in &service.aliases {
            by_name.entry(alias.to_ascii_lowercase()).or_insert(at);
        }
    }
    found.iter().enumerate().map(|(at, service)| reach(at, service, &by_name)).collect()
}

fn reach(at: usize, service: &Found, by_name: &HashMap<String, usize>) -> Reaches {
    let mut out = Reaches::default();
    let variables = service.env.iter().map(|(name, value)| (Some(name.as_str()), value.as_str()));
    let words = service.args.iter().map(|word| (None, word.as_str()));
    for (variable, value) in variables.chain(words) {
        let address = variable.is_some_and(names_an_address);
        for target in targets(value).into_iter().filter(|target| target.sure || address) {
            let shown = if target.port.is_some() {
                format!("{}:{}", target.host, target.port.unwrap_or_default())
            } else {
                target.host.clone()
            };
            let because =
                variable.map_or_else(|| format!("its command, {shown}"), |v| format!("{v}, {shown}"));
            match callee(&target, by_name) {
                Some(callee) if callee != at => {
                    out.calls.entry(callee).or_insert(because);
                }
                Some(_) => {}
                None => match target.port {
                    Some(port) if is_outside_host(&target.host) => {
                        out.hosts.entry((target.host, port)).or_insert(because);
                    }
                    _ if address && dns_name(&target.host).is_ok() && target.host != "localhost" => {
                        out.unknown.push(because)
                    }
                    _ => {}
                },
            }
        }
    }
    out
}

/// The service a host means: its name, or its name within a cluster.
fn callee(target: &Target, by_name: &HashMap<String, usize>) -> Option<usize> {
    if let Some(at) = by_name.get(&target.host) {
        return Some(*at);
    }
    let (first, rest) = target.host.split_once('.')?;
    let inside =
        rest.ends_with("cluster.local") || rest.ends_with(".svc") || rest == "svc" || !rest.contains('.');
    inside.then(|| by_name.get(first).copied()).flatten()
}

/// Who is called and says no port listens where its callers dial.
fn guess_ports(found: &mut [Found], reaches: &[Reaches]) {
    let mut dialled: HashMap<usize, u16> = HashMap::new();
    for (at, reach) in reaches.iter().enumerate() {
        for callee in reach.calls.keys() {
            let values = found[at].env.iter().map(|(_, v)| v).chain(&found[at].args);
            let ports = values
                .flat_map(|v| targets(v))
                .filter(|t| found[*callee].aliases.iter().any(|a| a.eq_ignore_ascii_case(&t.host)));
            if let Some(port) = ports.filter_map(|t| t.port).next() {
                dialled.entry(*callee).or_insert(port);
            }
        }
    }
    for (at, port) in dialled {
        let service = &mut found[at];
        if service.listen.is_none() {
            service.listen = Some(port);
            service.comments.push(format!("its port is guessed from its callers: {port}"));
        }
    }
}

fn protocol(service: &Found) -> (Protocol, Option<String>) {
    match &service.protocol {
        Some((Protocol::Http, _)) => (Protocol::Http, None),
        Some((protocol, because)) => (*protocol, Some(because.clone())),
        None => match service.listen.and_then(|port| Some((protocol_by_port(port)?, port))) {
            Some((protocol, port)) => (protocol, Some(format!("its port {port}"))),
            None => (Protocol::Http, None),
        },
    }
}

/// Lines for the ways in, and comments for those that cannot be.
fn routes(found: &[Found], protocols: &[(Protocol, Option<String>)]) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let mut taken: HashSet<(Option<&str>, &str)> = HashSet::new();
    let (mut lines, mut refused) = (Vec::new(), Vec::new());
    for (at, service) in found.iter().enumerate() {
        let (mut kept, mut comments) = (Vec::new(), Vec::new());
        for entrance in &service.entrances {
            let path =
                if entrance.path.len() > 1 { entrance.path.trim_end_matches('/') } else { &entrance.path };
            let path = if path.is_empty() { "/" } else { path };
            let host = entrance.host.as_deref();
            let fits = checked_segments(path).is_ok()
                && !path.contains('*')
                && host.is_none_or(|host| dns_name(host).is_ok());
            let because = comment(&entrance.because);
            if service.listen.is_none() || protocols[at].0 == Protocol::Tcp || !fits {
                comments.push(format!("# reachable from outside ({because}), which no route says"));
            } else if !taken.insert((host, path)) {
                if !kept.iter().any(|(h, p, _)| *h == host && *p == path) {
                    comments.push(format!("# reachable from outside ({because}), but that way is taken: add `routes` with a host or path"));
                }
            } else {
                kept.push((host, path, because));
            }
        }
        let mut out = Vec::new();
        if !kept.is_empty() {
            out.push("routes:".to_owned());
            for (host, path, because) in kept {
                let host = host.map(|host| format!("host: {host}, ")).unwrap_or_default();
                out.push(format!("  - {{ {host}path: {} }}   # guessed: {because}", quoted(path)));
            }
        }
        lines.push(out);
        refused.push(comments);
    }
    (lines, refused)
}

fn ready(out: &mut String, service: &Found, protocol: Protocol) {
    let Some(ready) = service.ready.as_ref().filter(|_| service.listen.is_some()) else { return };
    let _ = match ready {
        Readiness::Http(path) if protocol == Protocol::Http && checked_segments(path).is_ok() => {
            writeln!(out, "    ready: {{ http: {} }}", quoted(path))
        }
        _ => writeln!(out, "    ready: tcp"),
    };
}

fn environment(out: &mut String, service: &Found) {
    let mut seen = HashSet::new();
    let (mut lines, mut left_out) = (Vec::new(), Vec::new());
    for (name, value) in &service.env {
        let named = !name.is_empty()
            && name.len() <= 256
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !named
            || name.starts_with("RINGFENCE_")
            || value.contains("${")
            || value.contains("$(")
            || may_be_secret(name, value)
        {
            left_out.push(comment(name));
        } else if seen.insert(name) {
            lines.push(format!("{name}: {}", quoted(value)));
        }
    }
    if !lines.is_empty() {
        let _ = writeln!(out, "    env:");
        for line in lines {
            let _ = writeln!(out, "      {line}");
        }
    }
    if !left_out.is_empty() {
        let _ = writeln!(
            out,
            "    # not taken over, since they may be secret or depend on where they run: {}",
            left_out.join(", ")
        );
    }
}

fn write_reaches(out: &mut String, service: &Found, reaches: &Reaches, found: &[Found]) -> usize {
    let (mut lines, mut comments) = (Vec::new(), Vec::new());
    for (callee, because) in &reaches.calls {
        let callee = &found[*callee];
        let because = comment(because);
        if callee.listen.is_some() {
            lines.push(format!("      - {}   # guessed from {because}", callee.name));
        } else {
            comments.push(format!(
                "    # it may call {} ({because}), which says no port to listen on",
                callee.name
            ));
        }
    }
    for after in &service.after {
        let named = found.iter().position(|f| f.aliases.contains(after));
        if let Some(at) =
            named.filter(|at| !reaches.calls.contains_key(at) && found[*at].name != service.name)
        {
            comments.push(format!(
                "    # it waits for {0}; when it calls it, add {0} to `calls`",
                found[at].name
            ));
        }
    }
    for ((host, port), because) in &reaches.hosts {
        comments.push(format!("    # egress: [{{ host: {host}, port: {port} }}]   # guessed from {}: remove the first # when it is meant", comment(because)));
    }
    for because in &reaches.unknown {
        comments.push(format!("    # not among these files: {}", comment(because)));
    }
    if !lines.is_empty() {
        let _ = writeln!(out, "    calls:");
    }
    let calls = lines.len();
    for line in lines.into_iter().chain(comments) {
        let _ = writeln!(out, "{line}");
    }
    calls
}

/// A text from outside inside a comment: on one line, and not endless.
fn comment(text: &str) -> String {
    text.chars().take(200).flat_map(visible).collect()
}

/// A text from outside as a YAML string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
