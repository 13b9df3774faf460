//! `hosts`: the machines, and `at`: what runs on which of them.

use super::fragment::socket_address;
use super::{Decoder, Fields, spec};
use crate::fence::Host;
use crate::scalar::service_name;
use crate::suggest::quote;
use crate::yaml::{Entry, Node, Value};

impl Decoder<'_> {
    pub(super) fn host_entry(&mut self, entry: &Entry) -> Option<Host> {
        if let Err(reason) = service_name(&entry.key) {
            let message = format!("{} cannot name a host: {reason}", quote(&entry.key));
            self.error("bad-name", entry.mark, message, None);
        }
        let fields = self.fields(&entry.value, &spec::HOST)?;
        let Some(mesh) = fields.get("mesh") else {
            let help = "add where other hosts reach its sidecars: `mesh: 10.0.0.2:8443`";
            self.missing(entry.mark, "mesh", "this host", help);
            return None;
        };
        let mesh = self.reached(mesh);
        let control = fields.get("control").map(|node| self.reached(node));
        let control = match control {
            Some(None) => return None,
            Some(address) => address,
            None => None,
        };
        Some(Host { name: entry.key.clone(), mesh: mesh?, control, position: self.at(entry.mark) })
    }

    /// An address that others connect to.
    fn reached(&mut self, node: &Node) -> Option<std::net::SocketAddr> {
        let address = self.parsed(node, "an address that other hosts reach", socket_address)?;
        if address.ip().is_unspecified() {
            let message = format!("`{address}` is every address of a host, and none that another could call");
            let help = "name the one that other hosts reach it at".to_owned();
            self.error("bad-value", node.mark, message, Some(help));
            return None;
        }
        Some(address)
    }

    /// The hosts that something runs on: one, or a list.
    pub(super) fn placed(&mut self, fields: Fields<'_>) -> Vec<String> {
        let Some(node) = fields.get("at") else { return Vec::new() };
        let nodes =
            if let Value::List(items) = &node.value { items.as_slice() } else { std::slice::from_ref(node) };
        if nodes.is_empty() {
            let help = Some("name a host, or leave `at` out for the one that has control".to_owned());
            self.error("empty", node.mark, "it runs on no host", help);
        }
        let mut at: Vec<String> = Vec::new();
        for node in nodes {
            let Some(name) = self.text(node, "the name of a host") else { continue };
            if at.iter().any(|known| known == name) {
                self.error("duplicate", node.mark, format!("{} stands here twice", quote(name)), None);
            } else {
                at.push(name.to_owned());
            }
        }
        at
    }
}
