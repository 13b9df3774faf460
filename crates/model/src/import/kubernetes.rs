//! Workloads, Services and Ingresses of Kubernetes manifests.

use std::collections::HashMap;

use super::guess::{known_server, protocol_by_name};
use super::{Entrance, Found, Readiness};
use crate::fence::Protocol;
use crate::scalar::port_number;
use crate::yaml::{Node, Value};

/// A Service object: a name and port that lead to the pods its selector matches.
struct Front<'n> {
    name: &'n str,
    selector: Vec<(&'n str, &'n str)>,
    kind: &'n str,
    ports: Vec<FrontPort<'n>>,
}

struct FrontPort<'n> {
    name: Option<&'n str>,
    port: u16,
    target: Option<&'n str>,
    protocol: Option<&'n str>,
}

pub(super) fn workloads(documents: &[(&str, Node)], notes: &mut Vec<String>) -> Vec<Found> {
    // A `List` holds further documents.
    let all: Vec<(&str, &Node)> = documents
        .iter()
        .flat_map(|(file, document)| {
            let items = if kind(document) == "List" {
                document.get("items").map_or(&[][..], Node::items)
            } else {
                &[]
            };
            std::iter::once((*file, document)).chain(items.iter().map(|item| (*file, item)))
        })
        .collect();
    let fronts: Vec<Front<'_>> =
        all.iter().filter(|(_, d)| kind(d) == "Service").filter_map(|(_, d)| front(d)).collect();
    let settings = settings(&all);
    let mut found: Vec<Found> = all
        .iter()
        .filter_map(|(file, document)| workload(file, document, &fronts, &settings, notes))
        .collect();
    for (_, ingress) in all.iter().filter(|(_, d)| kind(d) == "Ingress") {
        entrances(ingress, &mut found);
    }
    found
}

fn kind(document: &Node) -> &str {
    // Only what has an API version is a manifest: other files have a `kind` of their own.
    if document.get("apiVersion").is_none() { "" } else { text(document, &["kind"]).unwrap_or_default() }
}

fn text<'n>(node: &'n Node, path: &[&str]) -> Option<&'n str> {
    node.at(path).and_then(Node::text)
}

fn pairs(node: Option<&Node>) -> Vec<(&str, &str)> {
    node.map_or(&[][..], Node::entries)
        .iter()
        .filter_map(|e| Some((e.key.as_str(), e.value.text()?)))
        .collect()
}

fn list<'n>(node: &'n Node, path: &[&str]) -> &'n [Node] {
    node.at(path).map_or(&[], Node::items)
}

fn front(document: &Node) -> Option<Front<'_>> {
    let port = |node| {
        Some(FrontPort {
            name: text(node, &["name"]),
            port: port_number(text(node, &["port"])?).ok()?,
            target: text(node, &["targetPort"]),
            protocol: text(node, &["appProtocol"]),
        })
    };
    Some(Front {
        name: text(document, &["metadata", "name"])?,
        selector: pairs(document.at(&["spec", "selector"])),
        kind: text(document, &["spec", "type"]).unwrap_or("ClusterIP"),
        ports: list(document, &["spec", "ports"]).iter().filter_map(port).collect(),
    })
}

/// The texts of all ConfigMaps, by map and key.
fn settings<'n>(all: &[(&str, &'n Node)]) -> HashMap<&'n str, Vec<(&'n str, &'n str)>> {
    let maps = all.iter().filter(|(_, d)| kind(d) == "ConfigMap");
    maps.filter_map(|(_, d)| Some((text(d, &["metadata", "name"])?, pairs(d.get("data"))))).collect()
}

fn workload(
    file: &str,
    document: &Node,
    fronts: &[Front<'_>],
    settings: &HashMap<&str, Vec<(&str, &str)>>,
    notes: &mut Vec<String>,
) -> Option<Found> {
    let template = match kind(document) {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            document.at(&["spec", "template"])?
        }
        "CronJob" => document.at(&["spec", "jobTemplate", "spec", "template"])?,
        "Pod" => document,
        _ => return None,
    };
    let name = text(document, &["metadata", "name"])?;
    let labels = pairs(template.at(&["metadata", "labels"]));
    let mine: Vec<&Front<'_>> = fronts
        .iter()
        .filter(|front| {
            !front.selector.is_empty() && front.selector.iter().all(|wanted| labels.contains(wanted))
        })
        .collect();
    // Callers know the Service's name, not the workload's.
    let main = mine
        .iter()
        .find(|f| f.name == name)
        .or_else(|| mine.iter().find(|f| f.kind == "ClusterIP"))
        .or_else(|| mine.first());
    let containers = list(template, &["spec", "containers"]);
    let image = containers.first().and_then(|c| text(c, &["image"])).unwrap_or("no image");
    let mut found = Found {
        name: main.map_or(name, |front| front.name).to_owned(),
        aliases: mine.iter().map(|front| front.name.to_owned()).collect(),
        source: format!("{file}:{}, image {image}", document.mark.line),
        ..Found::default()
    };
    let opened: Vec<(Option<&str>, u16)> = containers
        .iter()
        .flat_map(|c| list(c, &["ports"]))
        .filter_map(|p| Some((text(p, &["name"]), port_number(text(p, &["containerPort"])?).ok()?)))
        .collect();
    let probe = containers.iter().find_map(|c| c.get("readinessProbe").or_else(|| c.get("livenessProbe")));
    ports(&mut found, main.copied(), &opened, probe, image);
    for front in mine.iter().filter(|front| matches!(front.kind, "LoadBalancer" | "NodePort")) {
        let because = format!("Service {} is a {}", front.name, front.kind);
        found.entrances.push(Entrance { host: None, path: "/".to_owned(), because });
    }
    for container in containers.iter().chain(list(template, &["spec", "initContainers"])) {
        environment(container, settings, &mut found, notes, file);
        let words = list(container, &["command"]).iter().chain(list(container, &["args"]));
        found.args.extend(words.filter_map(|word| word.text().map(str::to_owned)));
    }
    Some(found)
}

/// Where it listens, what it speaks, and what shows that it is ready.
fn ports(
    found: &mut Found,
    front: Option<&Front<'_>>,
    opened: &[(Option<&str>, u16)],
    probe: Option<&Node>,
    image: &str,
) {
    let by_name = |name: &str| opened.iter().find(|(n, _)| *n == Some(name)).map(|(_, port)| *port);
    let main = front.and_then(|f| f.ports.first());
    found.listen = match main {
        Some(main) => match main.target {
            Some(target) => port_number(target).ok().or_else(|| by_name(target)),
            None => Some(main.port),
        },
        None => opened.first().map(|(_, port)| *port),
    };
    found.port = main.map(|main| main.port);
    if let Some(front) = front.filter(|front| front.ports.len() > 1) {
        let others: Vec<String> = front.ports.iter().skip(1).map(|p| p.port.to_string()).collect();
        found.comments.push(format!(
            "Service {} has further ports, which are not taken over: {}",
            front.name,
            others.join(", ")
        ));
    }
    let named =
        main.and_then(|m| m.protocol.or(m.name)).or_else(|| opened.first().and_then(|(name, _)| *name));
    let probed = probe.and_then(|probe| {
        let asked = |key: &str| probe.get(key).is_some();
        if asked("grpc") {
            return Some((Protocol::Grpc, "its gRPC probe"));
        }
        asked("httpGet").then_some((Protocol::Http, "its HTTP probe"))
    });
    found.protocol = match named.and_then(|name| Some((protocol_by_name(name)?, name))) {
        Some((protocol, name)) => Some((protocol, format!("the port's name {name}"))),
        None => probed
            .map(|(protocol, because)| (protocol, because.to_owned()))
            .or_else(|| known_server(image).map(|_| (Protocol::Tcp, format!("the image {image}")))),
    };
    let Some(probe) = probe else { return };
    let same_port = |node: &Node| {
        let port = text(node, &["port"]).and_then(|port| port_number(port).ok().or_else(|| by_name(port)));
        port.is_some() && port == found.listen
    };
    if let Some(http) = probe.get("httpGet").filter(|node| same_port(node)) {
        found.ready = Some(Readiness::Http(text(http, &["path"]).unwrap_or("/").to_owned()));
    } else if probe.get("grpc").or_else(|| probe.get("tcpSocket")).is_some_and(same_port) {
        found.ready = Some(Readiness::Tcp);
    }
}

fn environment(
    container: &Node,
    settings: &HashMap<&str, Vec<(&str, &str)>>,
    found: &mut Found,
    notes: &mut Vec<String>,
    file: &str,
) {
    let mut add = |name: &str, value: &str| {
        // An init container often has the variables of the main one.
        if !found.env.iter().any(|(n, v)| n == name && v == value) {
            found.env.push((name.to_owned(), value.to_owned()));
        }
    };
    for source in list(container, &["envFrom"]) {
        let Some(map) = text(source, &["configMapRef", "name"]) else { continue };
        match settings.get(map) {
            Some(pairs) => pairs.iter().for_each(|(name, value)| add(name, value)),
            None => notes.push(format!(
                "{file}: the ConfigMap {map} is not among the files, so what it names is not known"
            )),
        }
    }
    for variable in list(container, &["env"]) {
        let Some(name) = text(variable, &["name"]) else { continue };
        if let Some(value) = text(variable, &["value"]) {
            add(name, value);
        } else if let (Some(map), Some(key)) = (
            text(variable, &["valueFrom", "configMapKeyRef", "name"]),
            text(variable, &["valueFrom", "configMapKeyRef", "key"]),
        ) {
            let value = settings.get(map).and_then(|pairs| pairs.iter().find(|(k, _)| *k == key));
            match value {
                Some((_, value)) => add(name, value),
                None => notes.push(format!(
                    "{file}: {name} comes from the ConfigMap {map}, which is not among the files"
                )),
            }
        }
    }
}

fn entrances(ingress: &Node, found: &mut [Found]) {
    let name = text(ingress, &["metadata", "name"]).unwrap_or("without a name");
    for rule in list(ingress, &["spec", "rules"]) {
        let host = text(rule, &["host"]).filter(|host| !host.contains('*')).map(str::to_ascii_lowercase);
        for path in list(rule, &["http", "paths"]) {
            let backend = text(path, &["backend", "service", "name"])
                .or_else(|| text(path, &["backend", "serviceName"]));
            let Some(service) =
                found.iter_mut().find(|f| backend.is_some_and(|b| f.aliases.iter().any(|a| a == b)))
            else {
                continue;
            };
            let path = text(path, &["path"]).unwrap_or("/").to_owned();
            service.entrances.push(Entrance { host: host.clone(), path, because: format!("Ingress {name}") });
        }
    }
    if let Some(Value::Map(_)) = ingress.at(&["spec", "defaultBackend"]).map(|b| &b.value) {
        let backend = text(ingress, &["spec", "defaultBackend", "service", "name"]);
        if let Some(service) =
            found.iter_mut().find(|f| backend.is_some_and(|b| f.aliases.iter().any(|a| a == b)))
        {
            service.entrances.push(Entrance {
                host: None,
                path: "/".to_owned(),
                because: format!("Ingress {name}"),
            });
        }
    }
}
