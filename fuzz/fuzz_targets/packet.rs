#![no_main]
//! A frame that reached the sink, and the one that an ICMP error in it quotes.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    if let Some(packet) = ringfence_sandbox::sink::Packet::from_frame(frame) {
        assert!(packet.payload.len() <= packet.ip.len());
        let _ = packet.refused();
    }
});
