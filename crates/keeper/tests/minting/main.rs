//! For whom the keeper signs transaction tokens and sessions: what a proxy that was taken over tries, and control.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod attacks;
mod certificates;
#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;
mod keys;
mod provider;
mod sessions;
mod world;

use ringfence_keeper::protocol::{DataPurpose, Evidence, RefusalCode};
use ringfence_keeper::{ClientError, verify_log};
use ringfence_model::Credential;
use ringfence_snapshot::node::Shown;
use ringfence_snapshot::{Identity, IdentityKind, credential_of};
use ringfence_token::{ApiKey, KeyRecord, TokenError};
use serde_json::json;

use crate::common::now;
use crate::provider::{ISSUER, Provider};
use crate::world::{GATEWAY, With, World, ask, key_record, secret, token};

#[tokio::test]
async fn whoever_s_credential_the_gateway_accepts_is_in_the_token_and_nobody_else() {
    let w = World::new().await;
    let access = w.provider.access(json!({}));
    let minted = w.mint(ask(token("staff", &access))).await.unwrap();
    assert!(minted.expires_at <= now() + 120);
    let verified = w.verify(minted.token.expose()).await.unwrap();
    let nora = Identity::of_transaction(&verified).unwrap();
    assert_eq!((nora.kind, &*nora.provider, &*nora.id), (IdentityKind::User, "staff", "nora"));
    assert_eq!((nora.groups, nora.scopes.join(" ")), (vec!["nurse".to_owned()], "read write".to_owned()));
    assert_eq!((verified.subject(), verified.workload()), (Some("nora"), Some(GATEWAY)));
    assert_eq!(credential_of(&verified), Ok(Credential::Token("staff".into())));
    assert_eq!(verified.request_context().unwrap()["ip"], "192.0.2.7");
    assert_eq!(verified.context().unwrap()["origin"]["sub"], "u-1");

    let mut narrow = ask(token("staff", &access));
    narrow.ask.scope = "read".into();
    let narrow = w.verify(w.mint(narrow).await.unwrap().token.expose()).await.unwrap();
    assert_eq!(Identity::of_transaction(&narrow).unwrap().scopes, ["read"]);
    assert_ne!(narrow.transaction(), verified.transaction());

    // A service whose own sidecar looks at credentials may ask too, for those that it accepts.
    let mut sidecar = ask(token("staff", &access));
    sidecar.ask.workload = "spiffe://clinic.example/service/records".into();
    w.mint(sidecar).await.unwrap();

    let key = ApiKey::generate();
    let request = ask(Shown::ApiKey(key.to_text())).with(Evidence::ApiKey(key_record(&key)));
    let lab = w.verify(w.mint(request).await.unwrap().token.expose()).await.unwrap();
    assert_eq!(credential_of(&lab), Ok(Credential::ApiKey));
    let lab = Identity::of_transaction(&lab).unwrap();
    assert_eq!((lab.kind, &*lab.provider, &*lab.id), (IdentityKind::Client, "api_key", "lab"));

    let claims = json!({ "active": true, "iss": ISSUER, "sub": "u-1", "name": "nora", "scope": "read", "exp": now() + 900 });
    let said = Evidence::Introspected { claims: claims.as_object().unwrap().clone(), until: now() + 30 };
    let opaque = Shown::Opaque { provider: "staff".into(), token: secret("opaque") };
    let minted = w.mint(ask(opaque).with(said)).await.unwrap();
    assert!(minted.expires_at <= now() + 30, "no longer than it is believed");
    assert_eq!(w.keeper.client.status().await.unwrap().counts.txn, 5);
}

#[tokio::test]
async fn a_token_ends_with_its_credential_and_a_few_go_in_one_request() {
    let w = World::new().await;
    let end = now() + 60;
    let short = w.provider.access(json!({ "exp": end }));
    assert!(w.mint(ask(token("staff", &short))).await.unwrap().expires_at <= end);
    let key = ApiKey::generate();
    let record = KeyRecord { expires_at: Some(end), ..key_record(&key) };
    let request = ask(Shown::ApiKey(key.to_text())).with(Evidence::ApiKey(record));
    assert!(w.mint(request).await.unwrap().expires_at <= end);

    let good = || ask(token("staff", &w.provider.access(json!({}))));
    let bad = ask(token("staff", "a.b.c"));
    let results = w.keeper.client.mint(vec![good(), bad, good()]).await.unwrap();
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let many = (0..257).map(|_| good()).collect();
    assert!(w.keeper.client.mint(many).await.is_err());
}

#[tokio::test]
async fn every_token_is_in_the_log_by_its_hash_before_it_leaves() {
    let w = World::new().await;
    let good = || ask(token("staff", &w.provider.access(json!({}))));
    let minted = w.keeper.client.mint(vec![good(), good()]).await.unwrap();
    let path = w.data.path().join("keeper/minting.log");
    let text = std::fs::read_to_string(&path).unwrap();
    for token in minted {
        let hash = ringfence_keys::digest::sha256(token.unwrap().token.expose().as_bytes());
        assert!(text.contains(&ringfence_keys::to_hex(&hash)));
    }
    assert_eq!(verify_log(&path).unwrap().0.unwrap().entries, 1);
    assert!(!text.contains("nora") && !text.contains("eyJ"));
}

#[tokio::test]
async fn nothing_is_minted_before_the_keeper_knows_what_was_revoked_nor_without_keys() {
    let w = World::untold().await;
    let good = || ask(token("staff", &w.provider.access(json!({}))));
    let refused = w.mint(good()).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotNow);
    assert!(refused.reason.contains("revoked"), "{refused}");
    w.tell_revoked(&[]).await;
    let refused = w.mint(good()).await.unwrap_err();
    assert!(refused.reason.contains("no keys of staff"), "{refused}");
    w.keeper.client.provider_keys(w.provider.keys("staff")).await.unwrap();
    w.mint(good()).await.unwrap();
}

#[tokio::test]
async fn keys_are_believed_only_of_a_provider_that_the_snapshot_names_with_that_issuer() {
    let w = World::new().await;
    let client = &w.keeper.client;
    let elsewhere = Provider::new("https://evil.example");
    assert!(client.provider_keys(elsewhere.keys("staff")).await.is_err());
    assert!(client.provider_keys(elsewhere.keys("evil")).await.is_err());
    let mut broken = w.provider.keys("staff");
    broken.jwks = "{}".into();
    assert!(client.provider_keys(broken).await.is_err());
    let good = || ask(token("staff", &w.provider.access(json!({}))));
    w.mint(good()).await.unwrap();
    // Keys that have run out, and those of a provider that left and came back, are not believed.
    client
        .provider_keys(ringfence_snapshot::node::ProviderKeys { until: now(), ..w.provider.keys("staff") })
        .await
        .unwrap();
    assert!(w.mint(good()).await.unwrap_err().reason.contains("no keys"));
    client.provider_keys(w.provider.keys("staff")).await.unwrap();
    w.mint(good()).await.unwrap();
    w.sign(2, &world::FENCE.replace(ISSUER, "https://new.clinic.example")).await;
    assert!(w.mint(good()).await.is_err());
    w.sign(3, world::FENCE).await;
    assert!(w.mint(good()).await.unwrap_err().reason.contains("no keys"));
}

#[tokio::test]
async fn keys_for_data_stay_the_same_over_restarts_and_differ_by_purpose_and_keeper() {
    let data = tempfile::tempdir().unwrap();
    let keeper = common::keeper(data.path());
    let key =
        async |client: &ringfence_keeper::Client, purpose| *client.data_key(purpose).await.unwrap().expose();
    let store = key(&keeper.client, DataPurpose::Store).await;
    let first = key(&keeper.client, DataPurpose::Cookies { number: 1 }).await;
    let second = key(&keeper.client, DataPurpose::Cookies { number: 2 }).await;
    assert!(store != first && first != second);
    keeper.stop();
    // A folder of a version that had none gets one, and keeps it.
    let keeper = common::keeper(data.path());
    assert_eq!(key(&keeper.client, DataPurpose::Store).await, store);
    keeper.stop();
    let path = data.path().join("keeper/authority.json");
    let mut stored: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(stored.as_object_mut().unwrap().remove("data").is_some());
    std::fs::write(&path, stored.to_string()).unwrap();
    let keeper = common::keeper(data.path());
    let anew = key(&keeper.client, DataPurpose::Store).await;
    assert_ne!(anew, store);
    keeper.stop();
    assert_eq!(key(&common::keeper(data.path()).client, DataPurpose::Store).await, anew);
}

#[tokio::test]
async fn a_token_key_that_was_rotated_still_answers_for_its_sessions() {
    use ringfence_keeper::protocol::Step;
    let w = World::new().await;
    let session = w.open(&w.provider.id(json!({}))).await.unwrap();
    w.keeper.client.rotate_txn(Step::Prepare).await.unwrap();
    w.sign(2, world::FENCE).await;
    w.keeper.client.rotate_txn(Step::Activate).await.unwrap();
    let minted = w.mint(ask(Shown::Session(session.token.clone()))).await.unwrap();
    w.verify(minted.token.expose()).await.unwrap();
    let early = w.keeper.client.rotate_txn(Step::Retire { force: false }).await;
    assert!(matches!(early, Err(ClientError::Refused(_))), "a session that it signed lives still");
    w.keeper.client.rotate_txn(Step::Retire { force: true }).await.unwrap();
    let refused = w.mint(ask(Shown::Session(session.token))).await.unwrap_err();
    assert_eq!(refused.reason, TokenError::UnknownKey.to_string());
}
