//! One key per use: JWT-SVIDs are signed by one, transaction and session tokens by another, and neither counts as the other's.

use std::path::Path;

use ringfence_keeper::protocol::{JwtRequest, RefusalCode, Step};
use ringfence_keys::{Algorithm, Keyring, MasterSource, Purpose, SigningKey, VerifyingKey, from_hex};
use ringfence_snapshot::JwtKey;
use ringfence_snapshot::node::Shown;
use ringfence_spiffe::SpiffeId;
use ringfence_token::{KeySet, Origin, Profile, SessionSpec, Spec, TokenError, mint, verify_svid};
use serde_json::{Value, json};

use crate::common::{self, now};
use crate::world::{FENCE, World, ask, domain, secret, token};

const PORTAL: &str = "spiffe://clinic.example/service/portal";

/// The key that signs, out of its seal: what whoever has the keeper's folder and the master key has.
fn unsealed(data: &Path, member: &str, label: &str) -> (String, SigningKey) {
    let folder = data.join("keeper");
    let master = MasterSource::KeyFile { path: data.join("master.key") };
    let keyring = Keyring::open(&folder.join("keyring.json"), &master).unwrap();
    let stored = stored(data);
    let record = &stored[member][0];
    let (id, sealed) = (record["id"].as_str().unwrap(), record["key"].as_str().unwrap());
    let name = format!("{label}/{id}");
    let pkcs8 = keyring.open_sealed(Purpose::Token, &name, 1, &from_hex(sealed).unwrap()).unwrap();
    let algorithm = if member == "txn" { Algorithm::Ed25519 } else { Algorithm::P256 };
    (id.to_owned(), SigningKey::from_pkcs8(algorithm, &pkcs8).unwrap())
}

fn stored(data: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(data.join("keeper/authority.json")).unwrap()).unwrap()
}

fn set(keys: &[JwtKey]) -> KeySet {
    KeySet::from_keys(keys.iter().map(|k| (k.kid.clone(), VerifyingKey::from_spki(&k.spki.0).unwrap())))
}

fn session(key: &SigningKey, id: &str, mapping: &str) -> String {
    let origin = json!({ "iss": "https://id.clinic.example", "sub": "u-1" });
    let spec = SessionSpec {
        trust_domain: &domain(),
        id: "s",
        subject: "nora",
        identity: json!({ "kind": "user", "provider": "staff", "id": "nora" }).as_object().unwrap().clone(),
        mapping,
        origin: &Origin::of_claims("https://id.clinic.example", origin.as_object().unwrap()).unwrap(),
        issued_at: now(),
        expires_at: now() + 60,
    };
    let input = spec.signing_input(key.algorithm().into(), id).unwrap();
    let signature = key.sign(input.as_bytes()).unwrap();
    input.seal(&signature).unwrap()
}

#[tokio::test]
async fn a_key_of_one_use_signs_nothing_that_counts_for_the_other() {
    let w = World::new().await;
    let bundle = w.keeper.client.bundle().await.unwrap();
    let (svid_id, svid_key) = unsealed(w.data.path(), "tokens", "token");
    let (txn_id, txn_key) = unsealed(w.data.path(), "txn", "txn");
    assert_eq!((&svid_id, &txn_id), (&bundle.jwt[0].kid, &bundle.txn[0].kid));
    let request = JwtRequest { id: PORTAL.into(), audiences: vec!["billing".into()], ttl: 60 };
    let svid = w.keeper.client.sign_jwt(request).await.unwrap().0;
    let txn = w.mint(ask(token("staff", &w.provider.access(json!({}))))).await.unwrap().token;
    let opened = w.open(&w.provider.id(json!({}))).await.unwrap().token;
    for (profile, token) in [(Profile::txn_token(&domain()), &txn), (Profile::session(&domain()), &opened)] {
        profile.verify(token.expose(), &set(&bundle.txn), now()).unwrap();
        let by_other = profile.verify(token.expose(), &set(&bundle.jwt), now());
        assert!(matches!(by_other, Err(TokenError::UnknownKey)));
    }
    let algorithm = |key: &JwtKey| VerifyingKey::from_spki(&key.spki.0).unwrap().algorithm();
    assert_eq!(
        (algorithm(&bundle.jwt[0]), algorithm(&bundle.txn[0])),
        (Algorithm::P256, Algorithm::Ed25519),
        "SPIFFE knows no EdDSA for JWT-SVIDs"
    );

    let real = Profile::session(&domain()).verify(opened.expose(), &set(&bundle.txn), now()).unwrap();
    let mapping = real.mapping().unwrap();
    // A session that the key of JWT-SVIDs signed is none; by the right key the same one is.
    for (key, name) in [(&svid_key, &svid_id), (&svid_key, &txn_id)] {
        let refusal = w.mint(ask(Shown::Session(secret(&session(key, name, mapping))))).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Denied, "{refusal}");
    }
    w.mint(ask(Shown::Session(secret(&session(&txn_key, &txn_id, mapping))))).await.unwrap();

    // And a JWT-SVID that the other key signed is none, under either name.
    let domain = domain();
    let subject = SpiffeId::parse(PORTAL).unwrap();
    let audiences = ["billing".to_owned()];
    let spec = Spec { subject: &subject, audiences: &audiences, issued_at: now(), expires_at: now() + 60 };
    let verify = |token: &str, keys: &[JwtKey]| {
        verify_svid(token, &domain, &set(keys), "billing", now()).map(|svid| svid.subject().to_string())
    };
    let forged = mint(&txn_key, &txn_id, &spec).unwrap();
    assert!(matches!(verify(&forged, &bundle.jwt), Err(TokenError::UnknownKey)));
    let forged = mint(&txn_key, &svid_id, &spec).unwrap();
    assert!(matches!(verify(&forged, &bundle.jwt), Err(TokenError::WrongAlgorithm)));
    assert!(matches!(verify(&svid, &bundle.txn), Err(TokenError::UnknownKey)));
    for good in [svid, mint(&svid_key, &svid_id, &spec).unwrap()] {
        assert_eq!(verify(&good, &bundle.jwt).unwrap(), PORTAL);
    }
}

#[tokio::test]
async fn each_is_rotated_without_the_other() {
    let w = World::new().await;
    let client = &w.keeper.client;
    let before = client.bundle().await.unwrap();
    let kids = |keys: &[JwtKey]| keys.iter().map(|key| key.kid.clone()).collect::<Vec<_>>();
    client.rotate_txn(Step::Prepare).await.unwrap();
    assert!(client.rotate_token(Step::Activate).await.is_err(), "nothing is prepared for JWT-SVIDs");
    assert!(client.rotate_txn(Step::Activate).await.is_err(), "no snapshot has the new one yet");
    let good = || ask(token("staff", &w.provider.access(json!({}))));
    w.sign(2, FENCE).await;
    w.verify(w.mint(good()).await.unwrap().token.expose()).await.unwrap();
    let status = client.rotate_txn(Step::Activate).await.unwrap();
    assert_eq!((status.tokens.len(), status.txn.len()), (1, 2));
    assert!(!status.txn[0].online && status.txn[1].online, "the private half of the old one is gone");
    w.verify(w.mint(good()).await.unwrap().token.expose()).await.unwrap();
    let between = client.bundle().await.unwrap();
    assert_eq!((&between.jwt, &kids(&between.txn)[..1]), (&before.jwt, &kids(&before.txn)[..]));
    client.rotate_txn(Step::Retire { force: true }).await.unwrap();
    let after = client.bundle().await.unwrap();
    assert_eq!((&after.jwt, kids(&after.txn)), (&before.jwt, kids(&between.txn[1..])));
    assert_eq!(after.generation, before.generation + 3);
}

#[tokio::test]
async fn a_folder_of_a_version_with_one_key_for_all_gets_the_second_and_keeps_it() {
    let data = tempfile::tempdir().unwrap();
    let keeper = common::keeper(data.path());
    let first = keeper.client.bundle().await.unwrap();
    keeper.stop();
    let mut old = stored(data.path());
    assert!(old.as_object_mut().unwrap().remove("txn").is_some());
    assert!(old["lives"].as_object_mut().unwrap().remove("txn").is_some());
    std::fs::write(data.path().join("keeper/authority.json"), old.to_string()).unwrap();
    let keeper = common::keeper(data.path());
    let upgraded = keeper.client.bundle().await.unwrap();
    assert_eq!((&upgraded.jwt, upgraded.generation), (&first.jwt, first.generation + 1));
    assert!(upgraded.txn.len() == 1 && upgraded.txn != first.txn);
    // Its session, signed by the key that is now of JWT-SVIDs alone, is over: its owner signs in again.
    let (id, key) = unsealed(data.path(), "tokens", "token");
    let profile = Profile::session(&domain());
    let over = profile.verify(&session(&key, &id, ""), &set(&upgraded.txn), now());
    assert!(matches!(over, Err(TokenError::UnknownKey)));
    keeper.stop();
    assert_eq!(common::keeper(data.path()).client.bundle().await.unwrap(), upgraded);
}
