//! What a keeper signs, and what it does not.

mod common;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{FENCE, keeper, now, request, serving, sign, snapshot, start_message, svid, verify};
use ringfence_keeper::protocol::{JwtRequest, Request, ServingRequest, Stage, Step, serving_subject};
use ringfence_keeper::{ClientError, Supervised, main_loop, verify_log};
use ringfence_keys::{Algorithm, Secret, SigningKey, VerifyingKey, possession};
use ringfence_snapshot::Der;
use ringfence_spiffe::path::{Anchors, PathOptions, verify_server_name};
use ringfence_spiffe::{CertificateDer, TrustDomain, UnixTime};
use ringfence_token::KeySet;
use rustls_pki_types::ServerName;

const PORTAL: &str = "spiffe://clinic.example/service/portal";

#[tokio::test]
async fn a_declared_service_and_the_gateway_get_svids_that_verify_and_nobody_else_gets_one() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let client = &keeper.client;
    let bundle = client.bundle().await.unwrap();
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        for id in [PORTAL, "spiffe://clinic.example/gateway/clinic"] {
            let (chain, serial) = svid(client, algorithm, id, 3600).await.unwrap();
            let peer = verify(&chain, &bundle).unwrap();
            assert_eq!((peer.id().as_str(), peer.serial()), (id, serial.as_str()));
            assert!(peer.not_after_unix().abs_diff(now() + 3600) < 60);
        }
    }
    for (id, reason) in [
        ("spiffe://clinic.example/service/intruder", "not in the fence"),
        ("spiffe://clinic.example/gateway/other", "not in the fence"),
        ("spiffe://clinic.example/node/n1", "not in the fence"),
        ("spiffe://clinic.example/portal", "not in the fence"),
        ("spiffe://clinic.example", "not in the fence"),
        ("spiffe://other.example/service/portal", "not of trust domain"),
        ("https://clinic.example/service/portal", "spiffe://"),
    ] {
        let refused = svid(client, Algorithm::P256, id, 3600).await.unwrap_err();
        assert!(refused.contains(reason), "{id}: {refused}");
    }
    assert!(svid(client, Algorithm::P256, PORTAL, 0).await.is_err());
    assert!(svid(client, Algorithm::P256, PORTAL, 24 * 3600 + 1).await.is_err());
    assert_eq!(client.status().await.unwrap().counts.x509, 4);
}

#[tokio::test]
async fn hosts_of_the_fence_and_its_control_get_svids_where_there_are_hosts() {
    let data = tempfile::tempdir().unwrap();
    let keeper = keeper(data.path());
    let client = &keeper.client;
    let hosts = "hosts:\n  main: { mesh: 10.0.0.1:1, control: 10.0.0.1:2 }\n  ward: { mesh: 10.0.0.2:1 }\n";
    let text = format!("{FENCE}{hosts}");
    let several = snapshot(&text, 1, client.bundle().await.unwrap());
    client.sign_snapshot(serde_json::to_string(&several).unwrap()).await.unwrap();
    let bundle = client.bundle().await.unwrap();
    for id in ["node/ward", "control/clinic", "service/portal"] {
        let id = format!("spiffe://clinic.example/{id}");
        let (chain, _) = svid(client, Algorithm::P256, &id, 60).await.unwrap();
        assert_eq!(verify(&chain, &bundle).unwrap().id().as_str(), id);
    }
    for id in ["node/cellar", "control/ward", "control/other"] {
        let refused = svid(client, Algorithm::P256, &format!("spiffe://clinic.example/{id}"), 60).await;
        assert!(refused.unwrap_err().contains("not in the fence"), "{id}");
    }
    let one = snapshot(FENCE, 2, client.bundle().await.unwrap());
    client.sign_snapshot(serde_json::to_string(&one).unwrap()).await.unwrap();
    for id in ["node/ward", "control/clinic"] {
        assert!(svid(client, Algorithm::P256, &format!("spiffe://clinic.example/{id}"), 60).await.is_err());
    }
}

#[tokio::test]
async fn who_does_not_hold_the_key_gets_no_certificate_for_it() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let (key, other) =
        (SigningKey::generate(Algorithm::P256).unwrap(), SigningKey::generate(Algorithm::P256).unwrap());
    let mut stolen = request(&key, PORTAL, 60);
    stolen.spki = Der(other.verifying_key().to_spki());
    let mut moved = request(&key, "spiffe://clinic.example/service/billing", 60);
    moved.id = PORTAL.into();
    let mut rsa = request(&key, PORTAL, 60);
    rsa.spki = Der(vec![0x30; 300]);
    let good = request(&key, PORTAL, 60);
    let (_, results) = keeper.client.issue_x509(vec![stolen, moved, rsa, good]).await.unwrap();
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, false, true]);
}

#[tokio::test]
async fn nothing_is_issued_before_a_snapshot_allows_it() {
    let data = tempfile::tempdir().unwrap();
    let keeper = keeper(data.path());
    let refused = svid(&keeper.client, Algorithm::P256, PORTAL, 60).await.unwrap_err();
    assert!(refused.contains("no snapshot"), "{refused}");
}

#[tokio::test]
async fn a_service_that_left_the_fence_gets_nothing_more() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    svid(&keeper.client, Algorithm::P256, "spiffe://clinic.example/service/billing", 60).await.unwrap();
    let without = FENCE.replace(", calls: [billing]", "").replace("billing:", "payments:");
    let bundle = keeper.client.bundle().await.unwrap();
    let next = serde_json::to_string(&snapshot(&without, 2, bundle)).unwrap();
    keeper.client.sign_snapshot(next).await.unwrap();
    svid(&keeper.client, Algorithm::P256, "spiffe://clinic.example/service/payments", 60).await.unwrap();
    assert!(
        svid(&keeper.client, Algorithm::P256, "spiffe://clinic.example/service/billing", 60).await.is_err()
    );
}

#[tokio::test]
async fn a_revision_is_signed_once_in_a_lifetime() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let key = VerifyingKey::from_spki(&keeper.supervised.snapshot_key().0).unwrap();
    let signed = sign(&keeper.client, 5).await.unwrap();
    assert_eq!(signed.verify(&key, now(), (1, 5)).unwrap().revision, 5);
    for old in [1, 4, 5] {
        assert!(matches!(sign(&keeper.client, old).await, Err(ClientError::Refused(_))));
    }
    keeper.stop();
    let keeper = common::keeper(data.path());
    assert_eq!(keeper.supervised.signed(), (1, 5));
    assert!(matches!(sign(&keeper.client, 5).await, Err(ClientError::Refused(_))));
    // What was current before is current again.
    svid(&keeper.client, Algorithm::P256, PORTAL, 60).await.unwrap();
    sign(&keeper.client, 6).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_of_another_fence_or_with_a_foreign_authority_or_endless_is_not_signed() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let keeper = keeper(data.path());
    let other = common::keeper(elsewhere.path());
    let bundle = keeper.client.bundle().await.unwrap();
    let foreign = other.client.bundle().await.unwrap();
    let good = snapshot(FENCE, 1, bundle.clone());
    let refused = async |change: &dyn Fn(&mut ringfence_snapshot::Snapshot)| {
        let mut snapshot = good.clone();
        change(&mut snapshot);
        let outcome = keeper.client.sign_snapshot(serde_json::to_string(&snapshot).unwrap()).await;
        assert!(matches!(outcome, Err(ClientError::Refused(_))), "{outcome:?}");
    };
    refused(&|s| s.fence = "surgery".into()).await;
    refused(&|s| s.trust_domain = "surgery.example".into()).await;
    refused(&|s| s.bundle.x509.extend(foreign.x509.clone())).await;
    refused(&|s| s.bundle.serving.extend(foreign.serving.clone())).await;
    refused(&|s| s.bundle.jwt.extend(foreign.jwt.clone())).await;
    refused(&|s| s.bundle.txn.extend(foreign.txn.clone())).await;
    // A key of one use is not announced for another.
    refused(&|s| s.bundle.jwt.extend(bundle.txn.clone())).await;
    refused(&|s| s.bundle.txn.extend(bundle.jwt.clone())).await;
    refused(&|s| s.bundle.x509.clear()).await;
    refused(&|s| s.expires_at = now() + 366 * 24 * 3600).await;
    refused(&|s| s.expires_at = now() - 1).await;
    refused(&|s| s.issued_at = now() + 600).await;
    assert!(keeper.client.sign_snapshot("{}".into()).await.is_err());
    keeper.client.sign_snapshot(serde_json::to_string(&good).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_root_is_changed_with_overlap_and_not_dropped_too_early() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let client = &keeper.client;
    let first = client.bundle().await.unwrap();
    let (before, _) = svid(client, Algorithm::P256, PORTAL, 3600).await.unwrap();
    assert!(client.rotate_root(Step::Activate).await.is_err());
    assert!(client.rotate_root(Step::Retire { force: false }).await.is_err());

    client.rotate_root(Step::Prepare).await.unwrap();
    assert!(client.rotate_root(Step::Prepare).await.is_err());
    let both = client.bundle().await.unwrap();
    assert_eq!((both.x509.len(), both.generation > first.generation), (2, true));
    let (prepared, _) = svid(client, Algorithm::P256, PORTAL, 3600).await.unwrap();
    verify(&prepared, &first).unwrap();

    let unknown = client.rotate_root(Step::Activate).await.unwrap_err().to_string();
    assert!(unknown.contains("not in a signed snapshot"), "{unknown}");
    sign(client, 2).await.unwrap();
    client.rotate_root(Step::Activate).await.unwrap();
    let (after, _) = svid(client, Algorithm::P256, PORTAL, 3600).await.unwrap();
    assert!(verify(&after, &first).is_err(), "signed under the new root");
    for chain in [&before, &prepared, &after] {
        verify(chain, &both).unwrap();
    }
    let early = client.rotate_root(Step::Retire { force: false }).await.unwrap_err().to_string();
    assert!(early.contains("may be valid"), "{early}");
    let status = client.rotate_root(Step::Retire { force: true }).await.unwrap();
    assert_eq!(status.roots.len(), 1);
    let last = client.bundle().await.unwrap();
    verify(&after, &last).unwrap();
    assert!(verify(&before, &last).is_err());
}

#[tokio::test]
async fn an_issuing_ca_is_changed_while_its_svids_stay_valid() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let client = &keeper.client;
    let (before, _) = svid(client, Algorithm::P256, PORTAL, 60).await.unwrap();
    let status = client.rotate_issuing().await.unwrap();
    let stages: Vec<Stage> = status.issuing.iter().map(|a| a.stage).collect();
    assert_eq!(stages, [Stage::Active, Stage::Retiring]);
    assert!(!status.issuing[1].online, "a CA that signs no more has no key");
    let (after, _) = svid(client, Algorithm::P256, PORTAL, 60).await.unwrap();
    assert_ne!(before[1], after[1]);
    let bundle = client.bundle().await.unwrap();
    verify(&before, &bundle).unwrap();
    verify(&after, &bundle).unwrap();
}

#[tokio::test]
async fn a_root_can_be_kept_offline_and_brought_back_for_a_rotation() {
    let data = tempfile::tempdir().unwrap();
    let words = || Secret::new("correct horse battery".to_owned());
    let first = serving(data.path()).await;
    let package = first.supervised.export_root(words()).unwrap();
    // A package that does not open must not cost the root.
    let mut damaged = package.clone();
    let middle = damaged.0.len() / 2;
    damaged.0[middle] ^= 1;
    for (package, words) in [(damaged, words()), (package.clone(), Secret::new("incorrect horse".into()))] {
        assert!(first.supervised.forget_root(package, words).is_err());
        assert!(first.client.status().await.unwrap().roots[0].online);
    }
    first.supervised.forget_root(package.clone(), words()).unwrap();
    assert!(first.supervised.export_root(words()).is_err());
    svid(&first.client, Algorithm::P256, PORTAL, 60).await.unwrap();
    let refused = first.client.rotate_issuing().await.unwrap_err().to_string();
    assert!(refused.contains("offline"), "{refused}");
    first.stop();

    let keeper = keeper(data.path());
    assert!(!keeper.client.status().await.unwrap().roots[0].online);
    assert!(keeper.client.rotate_issuing().await.is_err());
    let wrong = keeper.supervised.import_root(package.clone(), Secret::new("incorrect horse".into()), false);
    assert!(wrong.unwrap_err().to_string().contains("wrong passphrase"));
    keeper.supervised.import_root(package.clone(), words(), false).unwrap();
    keeper.client.rotate_issuing().await.unwrap();
    let (chain, _) = svid(&keeper.client, Algorithm::P256, PORTAL, 60).await.unwrap();
    verify(&chain, &keeper.client.bundle().await.unwrap()).unwrap();
    keeper.stop();

    let keeper = self::keeper(data.path());
    assert!(keeper.client.rotate_issuing().await.is_err(), "it was back for as long as that process lived");
    keeper.supervised.import_root(package, words(), true).unwrap();
    keeper.stop();
    let keeper = self::keeper(data.path());
    assert!(keeper.client.status().await.unwrap().roots[0].online);
    keeper.client.rotate_issuing().await.unwrap();
}

#[tokio::test]
async fn the_gateway_gets_certificates_for_its_own_hosts_from_an_authority_of_their_own() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let ask = async |hosts: &[&str]| {
        let key = SigningKey::generate(Algorithm::P256).unwrap();
        let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        let proof = Der(possession::prove(&key, &serving_subject(&hosts)).unwrap());
        let spki = Der(key.verifying_key().to_spki());
        keeper.client.issue_serving(ServingRequest { hosts, spki, proof, ttl: 3600 }).await
    };
    let leaf = ask(&["clinic.example", "localhost", "127.0.0.1"]).await.unwrap();
    let bundle = keeper.client.bundle().await.unwrap();
    let roots: Vec<CertificateDer<'_>> = bundle.serving.iter().map(|der| der.0.as_slice().into()).collect();
    let (anchors, _) = Anchors::for_servers(&roots);
    let options = PathOptions::server(&anchors, UnixTime::since_unix_epoch(Duration::from_secs(now())));
    let certificate = CertificateDer::from(leaf.certificate.0.clone());
    for host in ["clinic.example", "127.0.0.1"] {
        let name = ServerName::try_from(host).unwrap();
        verify_server_name(std::slice::from_ref(&certificate), &name, &options).unwrap();
    }
    assert!(verify(&[leaf.certificate.0], &bundle).is_err(), "no SVID");
    assert!(!bundle.x509.iter().any(|root| bundle.serving.contains(root)));
    for foreign in [&["bank.example"][..], &["clinic.example", "bank.example"], &["*.clinic.example"], &[]] {
        assert!(ask(foreign).await.is_err(), "{foreign:?}");
    }
}

#[tokio::test]
async fn a_jwt_svid_verifies_with_the_bundle_also_after_its_key_was_changed() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let client = &keeper.client;
    let ask = |id: &str| JwtRequest { id: id.into(), audiences: vec!["billing".into()], ttl: 300 };
    let (old, until) = client.sign_jwt(ask(PORTAL)).await.unwrap();
    assert!(until.abs_diff(now() + 300) < 60);
    client.rotate_token(Step::Prepare).await.unwrap();
    assert!(client.rotate_token(Step::Activate).await.is_err());
    sign(client, 2).await.unwrap();
    client.rotate_token(Step::Activate).await.unwrap();
    let (new, _) = client.sign_jwt(ask(PORTAL)).await.unwrap();
    let bundle = client.bundle().await.unwrap();
    let keys = bundle.jwt.iter().map(|key| (key.kid.clone(), VerifyingKey::from_spki(&key.spki.0).unwrap()));
    let (keys, domain) = (KeySet::from_keys(keys), TrustDomain::new("clinic.example").unwrap());
    for token in [&old, &new] {
        let token = ringfence_token::verify_svid(token, &domain, &keys, "billing", now()).unwrap();
        assert_eq!(token.subject().as_str(), PORTAL);
    }
    assert!(client.sign_jwt(ask("spiffe://clinic.example/service/intruder")).await.is_err());
    assert!(client.sign_jwt(JwtRequest { audiences: vec![], ..ask(PORTAL) }).await.is_err());
    assert!(client.sign_jwt(JwtRequest { ttl: 3601, ..ask(PORTAL) }).await.is_err());
}

#[tokio::test]
async fn everything_signed_is_in_the_log_before_it_leaves() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let mut serials = Vec::new();
    for _ in 0..20 {
        serials.push(svid(&keeper.client, Algorithm::Ed25519, PORTAL, 60).await.unwrap().1);
    }
    let _ = svid(&keeper.client, Algorithm::Ed25519, "spiffe://clinic.example/service/intruder", 60).await;
    let path = data.path().join("keeper/signing.log");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(serials.iter().all(|serial| text.contains(serial)));
    assert!(!text.contains("intruder"));
    let tail = verify_log(&path).unwrap().0.unwrap();
    let status = keeper.client.status().await.unwrap();
    assert_eq!(status.log, (tail.entries, ringfence_keys::to_hex(&tail.hash)));
    assert_eq!((status.counts.x509, status.counts.snapshots, status.counts.refused), (20, 1, 1));
}

#[tokio::test]
async fn a_second_keeper_and_one_of_another_fence_are_turned_away_without_a_change() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let start = |message| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || main_loop(theirs, |_| Ok(())));
        let outcome = Supervised::start(ours, message).map(drop);
        assert_eq!(outcome.is_err(), thread.join().unwrap().is_err());
        outcome
    };
    assert!(start(start_message(data.path())).unwrap_err().to_string().contains("another keeper runs"));
    keeper.stop();
    let authority = std::fs::read(data.path().join("keeper/authority.json")).unwrap();
    let mut other = start_message(data.path());
    other.trust_domain = "other.example".into();
    assert!(start(other).unwrap_err().to_string().contains("change the fence back"));
    std::fs::write(data.path().join("master.key"), [b'x'; 64]).unwrap();
    assert!(start(start_message(data.path())).unwrap_err().to_string().contains("wrong master key"));
    assert_eq!(std::fs::read(data.path().join("keeper/authority.json")).unwrap(), authority);
}

#[tokio::test]
async fn introducing_control_anew_ends_the_old_channel() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let next = ringfence_keeper::Client::new(keeper.supervised.introduce_control().unwrap()).unwrap();
    assert!(matches!(keeper.client.status().await, Err(ClientError::Gone)));
    next.status().await.unwrap();
    // A peer that speaks nonsense loses its channel, and the keeper goes on.
    let socket = keeper.supervised.introduce_control().unwrap();
    std::io::Write::write_all(&mut &socket, b"\x02\0\0\0{}").unwrap();
    assert_eq!(std::io::Read::read(&mut &socket, &mut [0; 8]).unwrap(), 0);
    let next = ringfence_keeper::Client::new(keeper.supervised.introduce_control().unwrap()).unwrap();
    next.status().await.unwrap();
}

#[tokio::test]
async fn many_requests_share_a_channel_and_each_gets_its_own_answer() {
    let data = tempfile::tempdir().unwrap();
    let keeper = serving(data.path()).await;
    let names = ["portal", "billing"];
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let (client, id) =
                (keeper.client.clone(), format!("spiffe://clinic.example/service/{}", names[i % 2]));
            tokio::spawn(async move { (svid(&client, Algorithm::Ed25519, &id, 60).await.unwrap().0, id) })
        })
        .collect();
    let bundle = keeper.client.bundle().await.unwrap();
    for task in tasks {
        let (chain, id) = task.await.unwrap();
        assert_eq!(verify(&chain, &bundle).unwrap().id().as_str(), id);
    }
    let too_many = vec![request(&SigningKey::generate(Algorithm::Ed25519).unwrap(), PORTAL, 60); 513];
    assert!(keeper.client.call(Request::IssueX509 { requests: too_many }).await.is_err());
}
