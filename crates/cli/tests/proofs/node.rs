//! A node under full control of an attacker: the test speaks its channel to the real control, and asks for everything.

use std::io::Write;

use ringfence_keys::{Algorithm, SigningKey, from_hex};
use ringfence_snapshot::Der;
use ringfence_snapshot::node::{FromProxy, Subject};

use crate::rig::{BILLING, PORTAL, Rig, Wish, openssl};

const GATEWAY: &str = "spiffe://clinic.example/gateway/clinic";

#[test]
fn a_node_gets_certificates_for_its_own_services_and_gateway() {
    let rig = Rig::new("own");
    let control = rig.control();
    let node = control.node();
    // A service elsewhere that is called in clear has its end of the mesh here.
    for id in [PORTAL, BILLING, GATEWAY, "spiffe://clinic.example/service/legacy"] {
        let (wish, _) = Wish::svid(id);
        let issued = node.ask(&wish).unwrap();
        let said = openssl(&issued.chain[0], &["-ext", "basicConstraints,subjectAltName,keyUsage"]);
        assert!(said.contains("CA:FALSE") && said.contains("Digital Signature"), "{said}");
        assert!(said.lines().any(|line| line.trim() == format!("URI:{id}")), "{said}");
        assert!(!said.contains("Certificate Sign"), "{said}");
    }
    let issued = node.ask(&Wish::serving(&["127.0.0.1", "clinic.example"])).unwrap();
    let said = openssl(&issued.chain[0], &["-issuer", "-ext", "basicConstraints,subjectAltName"]);
    assert!(said.contains("CA:FALSE") && said.contains("gateway root"), "{said}");
}

#[test]
fn a_node_gets_nothing_for_anybody_else() {
    let rig = Rig::new("others");
    let mut control = rig.control();
    let node = control.node();
    let foreign = [
        "spiffe://clinic.example/service/ledger",
        "spiffe://bank.example/service/portal",
        "spiffe://clinic.example.bank.example/service/portal",
        "spiffe://clinic.example/node/local",
        "spiffe://clinic.example/gateway/other",
        // It proves itself with an SVID of its own.
        "spiffe://clinic.example/service/partner",
        "spiffe://clinic.example",
        "spiffe://clinic.example/",
        "spiffe://clinic.example/service/portal/",
        "spiffe://clinic.example/service//portal",
        "spiffe://clinic.example/service/./portal",
        "spiffe://clinic.example/service/../service/portal",
        "spiffe://clinic.example/service%2Fportal",
        "spiffe://clinic.example/service/portal%00",
        "spiffe://clinic.example/service/Portal",
        "spiffe://CLINIC.example/service/portal",
        "SPIFFE://clinic.example/service/portal",
        "spiffe://clinic.example:443/service/portal",
        "spiffe://user@clinic.example/service/portal",
        "spiffe://clinic.example/service/portal?x=1",
        "spiffe://clinic.example/service/portal#x",
        "spiffe://clinic.example/service/p\u{43e}rtal",
        " spiffe://clinic.example/service/portal",
        "https://clinic.example/service/portal",
        "*",
        "",
    ];
    for id in foreign {
        let (wish, _) = Wish::svid(id);
        let refused = node.ask(&wish).expect_err(id);
        assert!(!refused.is_empty(), "{id}");
        assert!(rig.refused(id), "no event for {id:?}");
    }
    for hosts in
        [&["bank.example"][..], &["127.0.0.1", "bank.example"], &["*.clinic.example"], &["127.0.0.2"], &[]]
    {
        node.ask(&Wish::serving(hosts)).expect_err(&hosts.join(","));
        assert!(rig.refused(&hosts.join(",")), "no event for {hosts:?}");
    }
    assert!(node.ask(&Wish::svid(PORTAL).0).is_ok() && control.process.lives());
}

#[test]
fn a_node_gets_nothing_for_the_gateway_of_a_fence_that_has_none() {
    let rig = Rig::new("no-gateway");
    let control = rig.control();
    let without: String = crate::rig::FENCE
        .lines()
        .filter(|line| !line.starts_with("gateway:"))
        .fold(String::new(), |all, line| all + &line.replace("routes: [{ path: / }], ", "") + "\n");
    control.offer(&without).unwrap();
    let node = control.node();
    node.ask(&Wish::svid(GATEWAY).0).unwrap_err();
    assert!(rig.refused(GATEWAY));
    node.ask(&Wish::serving(&["localhost"])).unwrap_err();
    assert!(rig.refused("localhost"));
    assert!(node.ask(&Wish::svid(PORTAL).0).is_ok());
}

#[test]
fn who_does_not_prove_to_hold_a_key_gets_no_certificate_for_it() {
    let rig = Rig::new("possession");
    let control = rig.control();
    let node = control.node();
    let (honest, _) = Wish::svid(PORTAL);
    let others = SigningKey::generate(Algorithm::P256).unwrap();
    let key = || Der(others.verifying_key().to_spki());
    let portal = || Subject::Svid(PORTAL.into());
    // The proof of an honest request, with another subject, and with another's public key.
    let another_subject = Wish { subject: Subject::Svid(BILLING.into()), ..honest.clone() };
    let another_key = Wish { spki: key(), ..honest.clone() };
    // A proof over another subject: of another service, of the gateway's names.
    let elsewhere = [BILLING, "", "serving:127.0.0.1"].map(|proven| Wish::with(portal(), proven, &others));
    let short = Wish { proof: Der(honest.proof.0[..63].to_vec()), ..honest.clone() };
    let zero = Wish { proof: Der(vec![0; 64]), ..honest.clone() };
    let none = Wish { proof: Der(Vec::new()), ..honest.clone() };
    let serving = Wish { subject: Subject::Serving(vec!["127.0.0.1".into()]), ..honest.clone() };
    for wish in [another_subject, another_key, short, zero, none, serving].iter().chain(&elsewhere) {
        let refused = node.ask(wish).unwrap_err();
        assert!(
            refused.contains("proof") || refused.contains("possession") || refused.contains("signature"),
            "{refused}"
        );
    }
    assert!(rig.refused(PORTAL) && rig.refused(BILLING));
    // The same request again yields a certificate for the same key, which whoever repeats it does not have.
    for _ in 0..2 {
        let issued = node.ask(&honest).unwrap();
        let point = &honest.spki.0[26..];
        assert!(issued.chain[0].0.windows(point.len()).any(|w| w == point));
    }
}

#[test]
fn no_malformed_key_becomes_a_certificate_let_alone_an_authority() {
    let rig = Rig::new("malformed");
    let mut control = rig.control();
    let node = control.node();
    let (honest, _) = Wish::svid(PORTAL);
    let issuer = node.ask(&honest).unwrap().chain.last().unwrap().clone();
    let spki = |bytes: Vec<u8>| Wish { spki: Der(bytes), ..honest.clone() };
    let ed25519 = |point: &[u8]| [&from_hex("302a300506032b6570032100").unwrap(), point].concat();
    let ca = from_hex("300f0603551d130101ff040530030101ff").unwrap();
    let mut off_curve = honest.spki.0.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let mut compressed = from_hex("3039301306072a8648ce3d020106082a8648ce3d030107032200").unwrap();
    compressed.push(0x02);
    compressed.extend(&honest.spki.0[27..59]);
    let mut rsa = from_hex("30819f300d06092a864886f70d010101050003818d0030818902818100").unwrap();
    rsa.extend([0xc3; 128]);
    rsa.extend(from_hex("0203010001").unwrap());
    let malformed = [
        // An extension that makes an authority, after the key and inside it.
        [honest.spki.0.clone(), ca.clone()].concat(),
        [vec![0x30, 0x6a], honest.spki.0[2..].to_vec(), ca].concat(),
        // The certificate of the issuing CA in place of a key.
        issuer.0.clone(),
        off_curve,
        compressed,
        rsa,
        honest.spki.0[..90].to_vec(),
        vec![0x30, 0x80, 0x00, 0x00],
        vec![0x30; 1024],
        Vec::new(),
    ];
    for bytes in malformed {
        let refused = node.ask(&spki(bytes.clone())).expect_err(&format!("{bytes:02x?}"));
        assert!(!refused.is_empty());
    }
    // Points of small order: a signature that verifies for them needs no key.
    let mut forged = vec![0; 64];
    forged[0] = 1;
    for (first, last) in [(1, 0), (0, 0), (0, 0x80), (0xec, 0x7f)] {
        let mut point = if first == 0xec { vec![0xff; 32] } else { vec![0; 32] };
        (point[0], point[31]) = (first, last);
        let wish = Wish { spki: Der(ed25519(&point)), proof: Der(forged.clone()), ..honest.clone() };
        node.ask(&wish).expect_err(&format!("the point {first:02x}..{last:02x}"));
    }
    assert!(rig.refused(PORTAL));
    assert!(node.ask(&honest).is_ok() && control.process.lives());
}

#[test]
fn oversized_frames_and_nonsense_end_the_channel_and_nothing_else() {
    let mut rig = Rig::new("frames");
    let mut control = rig.control();
    let nonsense: [&[u8]; 5] = [
        &u32::MAX.to_le_bytes(),
        &(16 * 1024 * 1024 + 1_u32).to_le_bytes(),
        b"\x04\0\0\0nope",
        b"\x02\0\0\0{}",
        b"\x10\0\0\0{\"ack\":",
    ];
    for bytes in nonsense {
        let node = control.node();
        node.snapshot();
        node.socket().write_all(bytes).unwrap();
        node.socket().shutdown(std::net::Shutdown::Write).unwrap();
        // A frame that is cut off is what a node leaves that was killed.
        let cut_off = bytes.ends_with(b"\"ack\":");
        assert_eq!(control.lost().is_none(), cut_off, "{bytes:02x?}");
        // The next channel works as if nothing had been.
        let next = control.node();
        assert!(next.ask(&Wish::svid(PORTAL).0).is_ok(), "after {bytes:02x?}");
    }
    let node = control.node();
    let before = control.process.resident();
    // The longest frames there may be, with names as long: refused without being kept or written down whole.
    for _ in 0..4 {
        let long = Subject::Svid(format!("{PORTAL}{}", "a".repeat(15 * 1024 * 1024)));
        node.send(&FromProxy::Sign {
            request: 0,
            subject: long,
            spki: Der(Vec::new()),
            proof: Der(Vec::new()),
        });
        node.send(&FromProxy::Nack { revision: 0, reason: "a".repeat(15 * 1024 * 1024) });
    }
    assert!(node.ask(&Wish::svid(PORTAL).0).is_ok());
    let events = std::fs::metadata(rig.data.join("events/control/control.jsonl")).unwrap().len();
    assert!(events < 1024 * 1024, "{events} bytes of events");
    let grown = control.process.resident().saturating_sub(before);
    assert!(grown < 100 * 1024, "control grew by {grown} kB");
    assert!(control.process.lives() && rig.keeper.lives());
}

#[test]
fn a_node_that_floods_control_and_takes_no_answer_costs_bounded_memory() {
    let mut rig = Rig::new("flood");
    let mut control = rig.control();
    let node = control.node();
    node.snapshot();
    let before = control.process.resident();
    node.socket().set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let (wish, _) = Wish::svid(PORTAL);
    let frame = {
        let Wish { subject, spki, proof } = wish;
        let body = serde_json::to_vec(&FromProxy::Sign { request: 1, subject, spki, proof }).unwrap();
        [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat()
    };
    let mut sent = 0;
    while sent < 60_000 && node.socket().write_all(&frame).is_ok() {
        sent += 1;
    }
    let grown = control.process.resident().saturating_sub(before);
    println!("{sent} requests sent, control grew by {grown} kB");
    assert!(grown < 100 * 1024, "control grew by {grown} kB over {sent} requests");
    // Who comes after it is served.
    let next = control.node();
    assert!(next.ask(&Wish::svid(PORTAL).0).is_ok());
    assert!(control.process.lives() && rig.keeper.lives());
}
