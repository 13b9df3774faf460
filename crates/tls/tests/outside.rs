//! Gateway and egress: clients from outside, servers outside, certificates that change.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a step that fails fails the test")]

mod support;

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use ringfence_tls::{
    Alpn, ClientConfig, EgressRoots, GatewayCertificate, GatewayCertificates, GatewayError, Group, Refusal,
    ServerConfig, egress_client_config, gateway_server_config, negotiated_group,
};
use support::shake;

const BOTH: &[Alpn] = &[Alpn::H2, Alpn::Http1];

/// A serving authority and the PEM of its root.
struct Serving(Issuer<'static, KeyPair>, String);

impl Serving {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "serving root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    fn certificate(&self, names: &[&str]) -> GatewayCertificate {
        let (chain, key) = self.pem(names, |_| {});
        GatewayCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn pem(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self) -> Arc<ClientConfig> {
        egress_client_config(&EgressRoots::from_pem(self.1.as_bytes()).unwrap(), BOTH)
    }

    fn gateway(&self, names: &[&str]) -> (GatewayCertificates, Arc<ServerConfig>) {
        let certificates = GatewayCertificates::default();
        certificates.set(&[self.certificate(names)]);
        let config = gateway_server_config(&certificates, BOTH).unwrap();
        (certificates, config)
    }
}

#[test]
fn a_gateway_answers_under_its_names_and_refuses_others() {
    let serving = Serving::new();
    let (_, gateway) = serving.gateway(&["www.example.com", "*.apps.example.com", "127.0.0.1"]);
    for name in ["www.example.com", "a.apps.example.com", "127.0.0.1"] {
        let (client, server) = shake(serving.client(), gateway.clone(), name);
        assert_eq!(Alpn::negotiated(&client.unwrap()), Some(Alpn::H2), "{name}");
        assert_eq!(negotiated_group(&server.unwrap()), Group::X25519Mlkem768, "{name}");
    }
    for name in ["example.com", "apps.example.com", "a.b.apps.example.com"] {
        let (client, _) = shake(serving.client(), gateway.clone(), name);
        assert!(matches!(client, Err(ringfence_tls::Error::AlertReceived(_))), "{name}");
    }
}

#[test]
fn new_certificates_are_served_by_the_listener_that_is_there() {
    let serving = Serving::new();
    let (certificates, gateway) = serving.gateway(&["www.example.com"]);
    let (client, open) = shake(serving.client(), gateway.clone(), "www.example.com");
    let before = client.unwrap().peer_certificates().unwrap()[0].clone();
    certificates.set(&[serving.certificate(&["www.example.com"]), serving.certificate(&["new.example.com"])]);
    let (client, _) = shake(serving.client(), gateway.clone(), "www.example.com");
    assert_ne!(client.unwrap().peer_certificates().unwrap()[0], before);
    assert!(shake(serving.client(), gateway, "new.example.com").0.is_ok());
    assert!(!open.unwrap().is_handshaking());
}

#[test]
fn sessions_from_outside_are_resumed() {
    let serving = Serving::new();
    let (_, gateway) = serving.gateway(&["www.example.com"]);
    let client = serving.client();
    let kinds: Vec<_> = (0..2)
        .map(|_| shake(client.clone(), gateway.clone(), "www.example.com").1.unwrap().handshake_kind())
        .collect();
    assert!(format!("{:?}", kinds[0]).contains("Full"), "{kinds:?}");
    assert!(format!("{:?}", kinds[1]).contains("Resumed"), "{kinds:?}");
}

#[test]
fn a_server_outside_must_be_who_was_dialled() {
    let (serving, stranger) = (Serving::new(), Serving::new());
    let (_, gateway) = serving.gateway(&["www.example.com", "127.0.0.1"]);
    let (client, _) = shake(stranger.client(), gateway.clone(), "www.example.com");
    let error = client.err().unwrap();
    assert_eq!(Refusal::find(&error).map(Refusal::reason), Some("server_certificate"));
    // An address gets the first certificate; one that it does not name is refused by the client.
    let (client, _) = shake(serving.client(), gateway, "127.0.0.2");
    let error = client.err().unwrap();
    assert!(Refusal::find(&error).unwrap().to_string().contains("other names"), "{error}");
}

#[test]
fn a_wildcard_over_a_registrys_suffix_is_nobodys() {
    let serving = Serving::new();
    for (presented, dialled, accepted) in [
        ("*.example.com", "www.example.com", true),
        ("*.co.uk", "example.co.uk", false),
        ("*.s3.amazonaws.com", "bucket.s3.amazonaws.com", true),
    ] {
        let (_, gateway) = serving.gateway(&[presented]);
        let (client, _) = shake(serving.client(), gateway, dialled);
        assert_eq!(client.is_ok(), accepted, "{presented}");
    }
}

#[test]
fn files_that_do_not_fit_are_refused_with_the_reason() {
    let serving = Serving::new();
    let (chain, key) = serving.pem(&["a.example.com"], |_| {});
    let (_, other_key) = serving.pem(&["a.example.com"], |_| {});
    let read = |chain: &str, key: &str| GatewayCertificate::from_pem(chain.as_bytes(), key.as_bytes()).err();
    assert_eq!(read(&chain, &key), None);
    assert_eq!(read(&chain, &other_key), Some(GatewayError::Mismatch));
    assert!(matches!(read("", &key), Some(GatewayError::Chain(_))));
    assert!(matches!(read(&key, &key), Some(GatewayError::Chain(_))));
    assert!(matches!(read(&chain, &chain), Some(GatewayError::Key(_))));
    let (nameless, key) = serving.pem(&[], |_| {});
    assert_eq!(read(&nameless, &key), Some(GatewayError::NoName));
    assert!(EgressRoots::from_pem(b"").is_err());
    assert!(EgressRoots::from_pem(chain.as_bytes()).is_err());
    let roots = EgressRoots::from_pem([serving.1.as_str(), chain.as_str()].concat().as_bytes()).unwrap();
    assert_eq!((roots.trusted(), roots.refused()), (1, 1));
}
