//! What callers are told, from fences to bytes.
#![expect(clippy::unwrap_used, reason = "tests: a step that fails fails the test")]

mod api;
mod leak;
mod names;

use std::sync::Arc;

use ringfence_model::Fence;
use ringfence_registry::{Registry, View, dns};
use ringfence_snapshot::{Addresses, Bundle, Header, Snapshot, compile};

/// A hospital's worth: `portal` may call `records` and `ledger`, and `vault` is called by `ledger` alone.
pub(crate) const CLINIC: &str = "fence: clinic\ntrust_domain: Clinic.Example\nservices:\n  \
    portal: { listen: 9000, calls: [records, ledger], egress: [{ host: api.stripe.example, port: 443 }] }\n  \
    records: { listen: 9001, port: 8081 }\n  ledger: { listen: 9002, port: 9002, protocol: tcp, calls: [vault] }\n  \
    vault: { listen: 9003 }\n  xylophone-archive: { listen: 9004 }\n";

pub(crate) fn snapshot(fence: &str) -> Snapshot {
    let fence = fence.replace("Clinic.Example", "clinic.example");
    let fence = Fence::parse(vec![("ringfence.yaml", &*fence)]).unwrap_or_else(|d| panic!("{d}"));
    let header =
        Header { epoch: 1, revision: 1, issued_at: 1, expires_at: 2, lease: 1, bundle: Bundle::default() };
    compile(&fence, &mut Addresses::default(), header).unwrap()
}

pub(crate) fn registry(fence: &str) -> Registry {
    let registry = Registry::default();
    registry.follow(&snapshot(fence), "node1");
    for service in ["portal", "records", "ledger", "vault", "xylophone-archive"] {
        registry.ready(service, true);
    }
    registry
}

pub(crate) fn view(registry: &Registry, caller: &str) -> Arc<View> {
    registry.seat(caller).unwrap().view()
}

/// A question as any resolver asks it, with an OPT record if `size` says so.
pub(crate) fn question(name: &str, kind: u16, size: Option<u16>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(size.is_some())];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    if let Some(size) = size {
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

pub(crate) fn ask(view: &View, name: &str, kind: u16) -> Vec<u8> {
    let mut out = Vec::new();
    dns::answer(Some(view), &question(name, kind, None), dns::Transport::Udp, &mut out).unwrap();
    out
}
