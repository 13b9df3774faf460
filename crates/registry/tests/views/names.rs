//! DNS: which names have which records, and what is no question.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use ringfence_registry::dns::{Outcome, Transport, answer};

use super::{CLINIC, ask, question, registry, view};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// Response code and the addresses or ports of the answer section.
fn decode(message: &[u8]) -> (u8, Vec<Ipv4Addr>, Vec<(u16, String)>) {
    let count = |at: usize| usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let mut at = 12;
    let name = |at: &mut usize| {
        let mut labels = Vec::new();
        loop {
            match message[*at] {
                0 => break *at += 1,
                0xc0 => break *at += 2,
                length => {
                    let end = *at + 1 + usize::from(length);
                    labels.push(String::from_utf8_lossy(&message[*at + 1..end]).into_owned());
                    *at = end;
                }
            }
        }
        labels.join(".")
    };
    for _ in 0..count(4) {
        name(&mut at);
        at += 4;
    }
    let (mut addresses, mut services) = (Vec::new(), Vec::new());
    for record in 0..count(6) + count(8) + count(10) {
        name(&mut at);
        let (kind, length) = (count(at), count(at + 8));
        at += 10;
        let data = &message[at..at + length];
        match kind {
            1 if record < count(6) => addresses.push(<[u8; 4]>::try_from(data).unwrap().into()),
            33 => {
                let mut target = at + 6;
                services.push((u16::from_be_bytes([data[4], data[5]]), name(&mut target)));
            }
            _ => {}
        }
        at += length;
    }
    assert_eq!(at, message.len(), "nothing follows the records");
    (message[3] & 0x0f, addresses, services)
}

#[test]
fn a_service_finds_whom_it_may_call_in_every_form_of_the_name() {
    let registry = registry(CLINIC);
    let portal = view(&registry, "portal");
    let records = portal.entry("records").unwrap().instances[0].address;
    for name in [
        "records",
        "records.",
        "RECORDS.Clinic.Example",
        "records.service.consul",
        "records.service.dc1.consul",
    ] {
        assert_eq!(decode(&ask(&portal, name, A)), (0, vec![records], Vec::new()), "{name}");
        assert_eq!(decode(&ask(&portal, name, AAAA)), (0, Vec::new(), Vec::new()), "{name}");
    }
    let target = |port: u16, name: &str| (0, Vec::new(), vec![(port, name.to_owned())]);
    for name in [
        "_http._tcp.records",
        "_8081._tcp.records.clinic.example",
        "_records._tcp.service.consul",
        "_records._tcp.consul",
        "records.service.consul",
    ] {
        assert_eq!(decode(&ask(&portal, name, SRV)), target(8081, "records.clinic.example"), "{name}");
    }
    assert_eq!(decode(&ask(&portal, "_tcp._tcp.ledger", SRV)), target(9002, "ledger.clinic.example"));
    assert_eq!(decode(&ask(&portal, "portal", A)).1, [Ipv4Addr::new(198, 18, 0, 2)]);
    assert_eq!(decode(&ask(&portal, "ringfence.internal", A)).1, [Ipv4Addr::new(198, 18, 0, 4)]);
    assert_eq!(decode(&ask(&portal, "api.stripe.example", A)).1.len(), 1);
    // Another's egress, another port, another fence, the world.
    for name in ["api.stripe.example", "records", "_grpc._tcp.ledger", "example.com", "consul", ""] {
        assert_eq!(decode(&ask(&view(&registry, "ledger"), name, A)).0, 3, "{name}");
    }
}

#[test]
fn what_is_not_to_be_called_is_left_out_where_consul_leaves_it_out() {
    let registry = registry(CLINIC);
    registry.ready("records", false);
    let portal = view(&registry, "portal");
    assert_eq!(decode(&ask(&portal, "records.service.consul", A)), (0, Vec::new(), Vec::new()));
    assert_eq!(decode(&ask(&portal, "_http._tcp.records", SRV)), (0, Vec::new(), Vec::new()));
    // The address of a name does not depend on how the service does.
    assert_eq!(decode(&ask(&portal, "records", A)).1.len(), 1);
}

#[test]
fn an_answer_too_long_for_udp_is_asked_for_again_over_tcp() {
    let registry = registry(CLINIC);
    let mut portal = (*view(&registry, "portal")).clone();
    let instances = &mut portal.entries.get_mut("records").unwrap().instances;
    *instances = vec![instances[0].clone(); 60];
    let answered = |size: Option<u16>, transport| {
        let mut out = Vec::new();
        answer(Some(&portal), &question("records", A, size), transport, &mut out).unwrap();
        (out[2] & 2 != 0, decode(&out).1.len(), out.len())
    };
    assert_eq!(answered(None, Transport::Udp), (true, 0, 25));
    assert_eq!(answered(Some(600), Transport::Udp), (true, 0, 36));
    // As much as is never fragmented, whatever is asked for.
    let (cut, records, length) = answered(Some(65_535), Transport::Udp);
    assert!(!cut && records == 60 && length <= 1232, "{length}");
    assert_eq!(answered(None, Transport::Tcp).1, 60);
}

#[test]
fn what_is_no_question_gets_an_error_or_nothing() {
    let registry = registry(CLINIC);
    let portal = view(&registry, "portal");
    let code = |message: &[u8]| {
        let mut out = Vec::new();
        let answered = answer(Some(&portal), message, Transport::Udp, &mut out)?;
        Some((answered.outcome, out[3] & 0x0f))
    };
    let good = question("records", A, Some(1232));
    let with = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        message
    };
    assert_eq!(code(&good), Some((Outcome::Known, 0)));
    assert_eq!(code(&good[..11]), None, "a cut header");
    assert_eq!(code(&with(2, 0x81)), None, "an answer");
    let refused = |code| Some((Outcome::Refused, code));
    assert_eq!(code(&with(2, 0x11)), refused(4), "a status request");
    assert_eq!(code(&with(5, 2)), refused(1), "two questions");
    assert_eq!(code(&with(7, 1)), refused(1), "an answer in a question");
    assert_eq!(code(&with(11, 2)), refused(1), "two more records");
    assert_eq!(code(&with(12, 0xc0)), refused(1), "a pointer");
    assert_eq!(code(&good[..20]), refused(1), "a cut question");
    assert_eq!(code(&[&good[..], &[0]].concat()), refused(1), "more than was announced");
    // Class CHAOS; EDNS version 1, whose code does not fit into four bits.
    assert_eq!(code(&with(24, 3)), refused(5));
    let version = good.len() - 5;
    let mut out = Vec::new();
    answer(Some(&portal), &with(version, 1), Transport::Udp, &mut out).unwrap();
    assert_eq!((out[3] & 0x0f, out[out.len() - 6]), (0, 1));
    // Nothing in force: it fails, and says so.
    answer(None, &good, Transport::Udp, &mut out).unwrap();
    assert_eq!(out[3] & 0x0f, 2);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_answered_within_bounds_or_not_at_all(
        bytes: Vec<u8>, name in "[a-zA-Z._-]{0,80}", kind: u16, flip in 0_usize..64, with: u8,
    ) {
        let registry = registry(CLINIC);
        let portal = view(&registry, "portal");
        let mut mutated = question("records.service.consul", kind, Some(4096));
        let at = flip % mutated.len();
        mutated[at] = with;
        let mut out = Vec::new();
        let labels = name.split('.').filter(|label| label.len() < 64).collect::<Vec<_>>().join(".");
        for message in [bytes, mutated, question(&labels, kind, None)] {
            let answered = answer(Some(&portal), &message, Transport::Udp, &mut out);
            if let Some(answered) = answered {
                prop_assert!(out.len() <= 1232);
                prop_assert_eq!(&out[..2], &message[..2]);
                prop_assert!(out[2] & 0x80 != 0);
                decode(&out);
                prop_assert!(answered.name.is_none_or(|n| n.len() <= 255 && n.is_ascii()));
            }
        }
    }
}
