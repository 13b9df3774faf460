//! A question of a service to its registry: any bytes are answered within bounds or not at all, and no hidden name comes back.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use ringfence_model::Fence;
use ringfence_registry::dns::{Transport, answer};
use ringfence_registry::{Registry, View};
use ringfence_snapshot::{Addresses, Bundle, Header, compile};

static VIEW: LazyLock<Arc<View>> = LazyLock::new(|| {
    let fence = "fence: clinic\ntrust_domain: clinic.example\nservices:\n  portal: { listen: 9000, calls: [records] }\n  \
                 records: { listen: 9001 }\n  xylophone: { listen: 9002 }\n";
    let fence = Fence::parse(vec![("f", fence)]).expect("invariant: a good fence");
    let header = Header { epoch: 1, revision: 1, issued_at: 1, expires_at: 2, lease: 1, bundle: Bundle::default() };
    let registry = Registry::default();
    let snapshot = compile(&fence, &mut Addresses::default(), header).expect("invariant: three names");
    registry.follow(&snapshot, "node1");
    registry.seat("portal").expect("invariant: it is in the fence").view()
});

fuzz_target!(|message: &[u8]| {
    let mut out = Vec::new();
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        if answer(Some(&VIEW), message, transport, &mut out).is_some() {
            assert!(out.len() <= most && out[..2] == message[..2]);
            let own = message.len().min(out.len());
            assert!(!out[own..].windows(9).any(|w| w.eq_ignore_ascii_case(b"xylophone")));
        }
    }
});
