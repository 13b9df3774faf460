//! Frames and messages between Ringfence's own processes: whatever a taken-over peer sends, the reader bounds and types it.
#![no_main]

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use ringfence_channel::{BlockingChannel, ChannelError};
use ringfence_control::supervisor::{FromControl, ToControl};
use ringfence_proxy::protocol::{FromNode, ToNode};
use ringfence_sandbox::protocol::{ProxyReply, ProxyRequest, Reply, Request};
use ringfence_sandbox::spec::Spec;
use ringfence_snapshot::SignedSnapshot;
use ringfence_snapshot::node::{FromProxy, ToProxy};

fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<FromProxy>(data);
    let _ = serde_json::from_slice::<ToProxy>(data);
    let _ = serde_json::from_slice::<FromNode>(data);
    let _ = serde_json::from_slice::<ToNode>(data);
    let _ = serde_json::from_slice::<FromControl>(data);
    let _ = serde_json::from_slice::<ToControl>(data);
    let _ = serde_json::from_slice::<Reply>(data);
    let _ = serde_json::from_slice::<Request>(data);
    let _ = serde_json::from_slice::<ProxyReply>(data);
    let _ = serde_json::from_slice::<ProxyRequest>(data);
    if let Ok(spec) = serde_json::from_slice::<Spec>(data) {
        let _ = spec.validate();
    }
    if let Ok(text) = std::str::from_utf8(data) {
        // What is accepted is consistent: every edge leads to a service that is there.
        if let Ok(snapshot) = SignedSnapshot::parse_unverified(text) {
            let mut calls = snapshot.services.iter().flat_map(|s| &s.calls);
            assert!(calls.all(|call| snapshot.service(&call.service).is_some()));
        }
    }
    // The same bytes as a stream of frames; more than a socket holds would block.
    if data.len() < 64 * 1024 {
        let Ok((mut writer, reader)) = UnixStream::pair() else { return };
        writer.write_all(data).unwrap();
        drop(writer);
        let channel = BlockingChannel::<Reply, FromProxy>::new(reader);
        // Each malformed payload is one error; the stream stays in step until it ends or a frame is too large.
        while let Ok(_) | Err(ChannelError::Malformed(_)) = channel.recv() {}
    }
});
