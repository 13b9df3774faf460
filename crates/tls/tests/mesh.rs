//! Mesh handshakes: who gets in, who does not, and what rotation changes.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a step that fails fails the test")]

mod support;

use std::time::{Duration, SystemTime};

use rcgen::{KeyUsagePurpose, SanType};
use ringfence_spiffe::{BundleSet, KeyAlgorithm, LeafKey, RevokedSvids, SpiffeId};
use ringfence_tls::{
    Alpn, ClientConfig, Group, Identity, Mesh, MeshError, ProtocolVersion, Refusal, ServerConfig,
    mesh_server_name, negotiated_group,
};
use std::sync::Arc;
use support::{Authority, shake};

const BOTH: &[Alpn] = &[Alpn::H2, Alpn::Http1];

fn client(mesh: &Mesh, authority: &Authority, caller: &str, callee: &str) -> Arc<ClientConfig> {
    mesh.client_config(&authority.id(caller), &authority.id(callee), BOTH).unwrap()
}

fn reason(result: Result<impl Sized, ringfence_tls::Error>) -> &'static str {
    let error = result.err().expect("refused");
    Refusal::find(&error).map_or("alert", Refusal::reason)
}

/// A caller whose certificate was issued with a change; what the callee's node says about it.
fn refused_caller(change: impl FnOnce(&mut rcgen::CertificateParams)) -> &'static str {
    let authority = Authority::new("clinic.example");
    let node = authority.mesh(&["patients"]);
    let rogue = authority.mesh(&[]);
    rogue.put_identity(authority.identity_with("billing", KeyAlgorithm::P256, change));
    let (_, server) = shake(
        client(&rogue, &authority, "billing", "patients"),
        node.server_config(BOTH),
        "patients.clinic.example",
    );
    reason(server)
}

#[test]
fn two_services_learn_who_the_other_is_over_the_hybrid_group() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519] {
        let authority = Authority::new("clinic.example");
        let mesh = authority.mesh(&[]);
        mesh.set_identities(
            ["billing", "patients"].map(|name| authority.identity_with(name, algorithm, |_| {})),
        );
        let name = mesh_server_name(&authority.id("patients")).unwrap();
        assert_eq!(name.to_str(), "patients.clinic.example");
        let (client, server) = shake(
            client(&mesh, &authority, "billing", "patients"),
            mesh.server_config(BOTH),
            "patients.clinic.example",
        );
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(mesh.caller_of(&server).unwrap().id(), &authority.id("billing"));
        assert_eq!(mesh.callee_of(&client).unwrap().id(), &authority.id("patients"));
        assert_eq!(mesh.called_service(&server), Some(authority.id("patients")));
        assert_eq!(Alpn::negotiated(&server), Some(Alpn::H2));
        assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(negotiated_group(&server), Group::X25519Mlkem768);
        mesh.metrics().record(&server);
        assert_eq!(mesh.metrics().count(Group::X25519Mlkem768), 1);
        assert_eq!(mesh.metrics().count(Group::X25519), 0);
        assert_eq!(mesh.metrics().snapshot().tls13, 1);
    }
}

#[test]
fn a_caller_offers_the_version_it_speaks() {
    let authority = Authority::new("clinic.example");
    let mesh = authority.mesh(&["billing", "patients"]);
    for alpn in [Alpn::H2, Alpn::Http1, Alpn::Tcp] {
        let config =
            mesh.client_config(&authority.id("billing"), &authority.id("patients"), &[alpn]).unwrap();
        let again = mesh.client_config(&authority.id("billing"), &authority.id("patients"), &[alpn]).unwrap();
        assert!(Arc::ptr_eq(&config, &again));
        let all = mesh.server_config(&[Alpn::H2, Alpn::Http1, Alpn::Tcp]);
        let (_, server) = shake(config, all, "patients.clinic.example");
        assert_eq!(Alpn::negotiated(&server.unwrap()), Some(alpn));
    }
}

#[test]
fn a_caller_of_another_trust_domain_is_refused_until_it_is_federated() {
    let (ours, theirs) = (Authority::new("clinic.example"), Authority::new("lab.example"));
    let node = ours.mesh(&["patients"]);
    let foreign = Mesh::new(BundleSet::new(1, [ours.bundle(1), theirs.bundle(1)]));
    foreign.put_identity(theirs.identity("results"));
    let config = || foreign.client_config(&theirs.id("results"), &ours.id("patients"), BOTH).unwrap();
    let (_, server) = shake(config(), node.server_config(BOTH), "patients.clinic.example");
    assert_eq!(reason(server), "unknown_trust_domain");

    node.set_bundles(BundleSet::new(2, [ours.bundle(1), theirs.bundle(1)]));
    let (_, server) = shake(config(), node.server_config(BOTH), "patients.clinic.example");
    assert_eq!(node.caller_of(&server.unwrap()).unwrap().id(), &theirs.id("results"));
}

#[test]
fn a_revoked_svid_is_refused_by_either_end_also_one_that_was_known_and_under_another_bundle() {
    let authority = Authority::new("clinic.example");
    let node = authority.mesh(&["patients"]);
    let other = authority.mesh(&["billing"]);
    let call = || {
        let config = client(&other, &authority, "billing", "patients");
        shake(config, node.server_config(BOTH), "patients.clinic.example")
    };
    let (answered, called) = call();
    let (billing, patients) =
        (node.caller_of(&called.unwrap()).unwrap(), other.callee_of(&answered.unwrap()).unwrap());
    assert!(!other.is_revoked(&other.identity(billing.id()).unwrap()));

    // By its number, of the caller; another one of it is believed.
    let mut revoked = RevokedSvids::default();
    revoked.add_serial(billing.serial());
    node.set_revoked(Arc::new(revoked.clone()));
    let (_, called) = call();
    assert_eq!(reason(called), "svid.revoked");
    node.set_bundles(authority.bundles(2));
    assert_eq!(reason(call().1), "svid.revoked", "another bundle changes nothing about it");
    other.put_identity(authority.identity("billing"));
    call().1.unwrap();

    // All of the callee so far.
    revoked.add_id(patients.id().clone(), patients.not_before_unix());
    other.set_revoked(Arc::new(revoked));
    assert_eq!(reason(call().0), "svid.revoked");
    assert!(other.is_revoked(&node.identity(patients.id()).unwrap()));

    // Who does not know what was revoked believes nobody.
    other.set_revoked(Arc::default());
    call().0.unwrap();
    other.set_revoked(Arc::new(RevokedSvids::unknown()));
    assert_eq!(reason(call().0), "revocations.unready");
}

#[test]
fn an_authority_cannot_speak_for_another_trust_domain() {
    let (ours, theirs) = (Authority::new("clinic.example"), Authority::new("lab.example"));
    let node = Mesh::new(BundleSet::new(1, [ours.bundle(1), theirs.bundle(1)]));
    node.put_identity(ours.identity("patients"));
    let forged_id = ours.id("billing");
    let key = LeafKey::generate(KeyAlgorithm::P256).unwrap();
    let forged = theirs.sign(&theirs.params(forged_id.as_str()), &key);
    let rogue = Mesh::new(ours.bundles(1));
    rogue.put_identity(Identity::new(forged_id, vec![forged], &key).unwrap());
    let config = client(&rogue, &ours, "billing", "patients");
    let (_, server) = shake(config, node.server_config(BOTH), "patients.clinic.example");
    assert_eq!(reason(server), "untrusted");
}

#[test]
fn an_expired_caller_is_refused() {
    let expired = refused_caller(|params| {
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() - Duration::from_secs(5)).into();
    });
    assert_eq!(expired, "expired");
    let early =
        refused_caller(|params| params.not_before = (SystemTime::now() + Duration::from_secs(60)).into());
    assert_eq!(early, "not_valid_yet");
}

#[test]
fn a_caller_with_two_uri_names_is_refused() {
    let second = SanType::URI("spiffe://clinic.example/service/portal".try_into().unwrap());
    assert_eq!(refused_caller(|params| params.subject_alt_names.push(second)), "many_spiffe_ids");
}

#[test]
fn a_caller_that_may_sign_certificates_is_refused() {
    let refused = refused_caller(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
    assert_eq!(refused, "leaf_may_sign");
}

#[test]
fn a_service_that_this_node_does_not_hold_is_not_answered_for() {
    let authority = Authority::new("clinic.example");
    let caller = authority.mesh(&["billing"]);
    let node = authority.mesh(&["patients"]);
    for name in ["mailer.clinic.example", "patients.lab.example", "patients", "clinic.example"] {
        let config = client(&caller, &authority, "billing", "patients");
        let (client, server) = shake(config, node.server_config(BOTH), name);
        assert!(matches!(client, Err(ringfence_tls::Error::AlertReceived(_))), "{name}");
        assert!(server.is_err(), "{name}");
    }
}

#[test]
fn a_caller_notices_that_somebody_else_answers() {
    let authority = Authority::new("clinic.example");
    let mesh = authority.mesh(&["billing", "patients", "mailer"]);
    let config = client(&mesh, &authority, "billing", "patients");
    let (client, _) = shake(config, mesh.server_config(BOTH), "mailer.clinic.example");
    let error = client.err().unwrap();
    let expected = Refusal::OtherCallee { expected: authority.id("patients"), found: authority.id("mailer") };
    assert_eq!(Refusal::find(&error), Some(&expected));
}

#[test]
fn a_node_without_the_callers_identity_makes_no_call() {
    let authority = Authority::new("clinic.example");
    let mesh = authority.mesh(&["patients"]);
    let (billing, patients) = (authority.id("billing"), authority.id("patients"));
    let none = mesh.client_config(&billing, &patients, BOTH).err();
    assert_eq!(none, Some(MeshError::NoIdentity(billing.clone())));
    let gateway = SpiffeId::gateway(&authority.trust_domain, "main").unwrap();
    let none = mesh.client_config(&patients, &gateway, BOTH).err();
    assert_eq!(none, Some(MeshError::NotCallable(gateway)));
}

#[test]
fn a_new_svid_is_shown_by_the_configurations_made_before_it() {
    let authority = Authority::new("clinic.example");
    let mesh = authority.mesh(&["billing", "patients"]);
    let (config, listener) = (client(&mesh, &authority, "billing", "patients"), mesh.server_config(BOTH));
    let shake = || {
        let (client, server) = shake(config.clone(), listener.clone(), "patients.clinic.example");
        let peers = (mesh.caller_of(&server.unwrap()).unwrap(), mesh.callee_of(&client.unwrap()).unwrap());
        (peers.0.serial().to_owned(), peers.1.serial().to_owned())
    };
    let before = shake();
    assert_eq!(before, shake());
    mesh.put_identity(authority.identity("billing"));
    mesh.put_identity(authority.identity("patients"));
    let after = shake();
    assert_ne!(before.0, after.0);
    assert_ne!(before.1, after.1);
}

#[test]
fn a_root_that_is_withdrawn_ends_handshakes_and_the_standing_of_open_connections() {
    let (old, new) = (Authority::new("clinic.example"), Authority::new("clinic.example"));
    let mesh = old.mesh(&["billing", "patients"]);
    let (config, listener) = (client(&mesh, &old, "billing", "patients"), mesh.server_config(BOTH));
    let (_, server) = shake(config.clone(), listener.clone(), "patients.clinic.example");
    let server = server.unwrap();
    assert!(mesh.caller_of(&server).is_ok());

    // Even under the same generation number: what was verified with other bundles counts for nothing.
    mesh.set_bundles(new.bundles(1));
    let untrusted = mesh.caller_of(&server).unwrap_err();
    assert!(
        matches!(untrusted, MeshError::Peer(error) if error.reason() == "untrusted" || error.reason() == "bad_signature")
    );
    let (client, _) = shake(config, listener, "patients.clinic.example");
    assert!(client.is_err());
}

#[test]
fn sessions_are_never_resumed() {
    let authority = Authority::new("clinic.example");
    let mesh = authority.mesh(&["billing", "patients"]);
    let (config, listener): (_, Arc<ServerConfig>) =
        (client(&mesh, &authority, "billing", "patients"), mesh.server_config(BOTH));
    for _ in 0..3 {
        let (_, server) = shake(config.clone(), listener.clone(), "patients.clinic.example");
        let kind = server.unwrap().handshake_kind();
        assert!(kind.is_some_and(|kind| format!("{kind:?}").starts_with("Full")), "{kind:?}");
    }
}

#[test]
fn an_identity_needs_the_key_of_its_certificate() {
    let authority = Authority::new("clinic.example");
    let (key, other) =
        (LeafKey::generate(KeyAlgorithm::P256).unwrap(), LeafKey::generate(KeyAlgorithm::P256).unwrap());
    let id = authority.id("billing");
    let leaf = authority.sign(&authority.params(id.as_str()), &key);
    assert!(Identity::new(id.clone(), vec![leaf.clone()], &other).is_err());
    assert!(Identity::new(authority.id("portal"), vec![leaf.clone()], &key).is_err());
    assert!(Identity::new(id.clone(), vec![], &key).is_err());
    assert!(Identity::new(id, vec![leaf], &key).is_ok());
}
