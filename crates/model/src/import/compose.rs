//! Services of a Compose file.

use super::guess::known_server;
use super::{Entrance, Found};
use crate::fence::Protocol;
use crate::scalar::port_number;
use crate::yaml::{Node, Value};

pub(super) fn services(file: &str, document: &Node, notes: &mut Vec<String>) -> Vec<Found> {
    if document.get("apiVersion").is_some() {
        return Vec::new();
    }
    let services = document.get("services").map_or(&[][..], Node::entries);
    services.iter().map(|entry| service(file, &entry.key, entry.mark.line, &entry.value, notes)).collect()
}

fn service(file: &str, name: &str, line: u32, node: &Node, notes: &mut Vec<String>) -> Found {
    let image = node.get("image").and_then(Node::text);
    let built =
        node.get("build").map(|b| b.text().or_else(|| b.get("context").and_then(Node::text)).unwrap_or("."));
    let origin = match (image, built) {
        (Some(image), _) => format!(", image {image}"),
        (None, Some(folder)) => format!(", built from {folder}"),
        (None, None) => String::new(),
    };
    let mut found =
        Found { name: name.to_owned(), source: format!("{file}:{line}{origin}"), ..Found::default() };
    found.aliases.push(name.to_owned());
    found.aliases.extend(
        ["hostname", "container_name"].iter().filter_map(|key| Some(node.get(key)?.text()?.to_owned())),
    );
    for network in node.get("networks").map_or(&[][..], Node::entries) {
        found.aliases.extend(
            network
                .value
                .get("aliases")
                .map_or(&[][..], Node::items)
                .iter()
                .filter_map(|a| a.text().map(str::to_owned)),
        );
    }
    ports(&mut found, node, image);
    found.env = environment(node);
    if node.get("env_file").is_some() {
        notes.push(format!(
            "{file}:{line}: {name} has an env_file, which is not read: what it names is not known"
        ));
    }
    for key in ["command", "entrypoint"] {
        match node.get(key).map(|n| &n.value) {
            Some(Value::List(words)) => {
                found.args.extend(words.iter().filter_map(|w| w.text().map(str::to_owned)))
            }
            Some(Value::Scalar { text, .. }) => found.args.push(text.clone()),
            _ => {}
        }
    }
    for key in ["depends_on", "links"] {
        let Some(after) = node.get(key) else { continue };
        let listed =
            after.items().iter().filter_map(Node::text).map(|text| text.split(':').next().unwrap_or(text));
        found.after.extend(listed.chain(after.entries().iter().map(|e| e.key.as_str())).map(str::to_owned));
    }
    found
}

fn environment(node: &Node) -> Vec<(String, String)> {
    let Some(environment) = node.get("environment") else { return Vec::new() };
    let listed = environment
        .items()
        .iter()
        .filter_map(|item| item.text()?.split_once('='))
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
    let mapped =
        environment.entries().iter().filter_map(|e| Some((e.key.clone(), e.value.text()?.to_owned())));
    listed.chain(mapped).collect()
}

fn ports(found: &mut Found, node: &Node, image: Option<&str>) {
    let published: Vec<u16> =
        node.get("ports").map_or(&[][..], Node::items).iter().filter_map(container_port).collect();
    let exposed =
        node.get("expose").map_or(&[][..], Node::items).iter().filter_map(|n| n.text().and_then(plain_port));
    let all: Vec<u16> = published.iter().copied().chain(exposed).collect();
    let server = image.and_then(known_server);
    found.listen = all.first().copied().or(server);
    if all.len() > 1 {
        let others: Vec<String> = all.iter().skip(1).map(u16::to_string).collect();
        found.comments.push(format!("it has further ports, which are not taken over: {}", others.join(", ")));
    }
    if let (Some(image), Some(_)) = (image, server) {
        found.protocol = Some((Protocol::Tcp, format!("the image {image}")));
    } else if !published.is_empty() {
        found.entrances.push(Entrance {
            host: None,
            path: "/".to_owned(),
            because: "its port is published".to_owned(),
        });
    }
}

/// The port inside the container, of `[[IP:]HOST:]CONTAINER[/PROTOCOL]` or of the long form.
fn container_port(node: &Node) -> Option<u16> {
    match &node.value {
        Value::Map(_) => port_number(node.get("target")?.text()?).ok(),
        Value::Scalar { text, .. } => plain_port(text.rsplit(':').next()?),
        _ => None,
    }
}

/// The number of a port, the first of a range; UDP has no place in a fence.
fn plain_port(text: &str) -> Option<u16> {
    let number = match text.split_once('/') {
        Some((number, "tcp")) => number,
        Some(_) => return None,
        None => text,
    };
    port_number(number.split('-').next()?).ok()
}
