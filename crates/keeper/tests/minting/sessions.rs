//! Who is signed in, and who cannot be.

use ringfence_keeper::ClientError;
use ringfence_keeper::protocol::{OpenSession, RefusalCode, RenewSession};
use ringfence_snapshot::Identity;
use ringfence_snapshot::node::Shown;
use ringfence_token::{Profile, What};
use serde_json::json;

use crate::common::now;
use crate::provider::{ISSUER, Provider};
use crate::world::{FENCE, World, ask, domain, revoked, secret};

fn why(outcome: Result<impl Sized, ClientError>) -> (RefusalCode, String) {
    match outcome {
        Err(ClientError::Refused(refusal)) => (refusal.code, refusal.reason),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it was signed"),
    }
}

impl World {
    async fn renew(
        &self,
        session: &str,
        id_token: Option<String>,
    ) -> Result<ringfence_keeper::protocol::SessionToken, ClientError> {
        let id_token = id_token.as_deref().map(secret);
        self.keeper.client.renew_session(RenewSession { session: secret(session), id_token }).await
    }
}

#[tokio::test]
async fn who_signed_in_has_a_session_until_the_end_that_the_fence_says_and_it_is_good_for_tokens() {
    let w = World::new().await;
    let session = w.open(&w.provider.id(json!({}))).await.unwrap();
    assert!((7100..=7200).contains(&(session.expires_at - now())));
    assert_eq!((&*session.identity.id, session.identity.acr.as_deref()), ("nora", Some("phr")));
    let profile = Profile::session(&domain());
    let token = profile.verify(session.token.expose(), &w.own_keys().await, now()).unwrap();
    assert_eq!(Identity::of_session(&token).unwrap(), session.identity);
    assert_eq!(token.token_id(), Some(&*session.id));
    let minted = w.mint(ask(Shown::Session(session.token.clone()))).await.unwrap();
    let minted = w.verify(minted.token.expose()).await.unwrap();
    assert_eq!(Identity::of_transaction(&minted).unwrap(), session.identity);
    assert_eq!(
        minted.context().unwrap()["cred"],
        json!({ "login": "staff" }),
        "it was no token that was shown"
    );
    assert_eq!(minted.context().unwrap()["origin"]["session"], session.id);
    let log = std::fs::read_to_string(w.data.path().join("keeper/signing.log")).unwrap();
    assert!(log.contains(&session.id) && !log.contains("nora"));
    assert_eq!(w.keeper.client.status().await.unwrap().counts.sessions, 1);
}

#[tokio::test]
async fn nobody_is_signed_in_by_what_is_no_fresh_word_of_the_provider_for_this_sign_in() {
    let w = World::new().await;
    let (p, imposter) = (&w.provider, Provider::new(ISSUER));
    for (what, id_token, reason) in [
        ("forged", imposter.id(json!({})), "signature"),
        ("over", p.id(json!({ "iat": now() - 400, "exp": now() - 100 })), "not valid"),
        ("kept for long", p.id(json!({ "iat": now() - 700, "exp": now() + 4000 })), "older"),
        ("for another client", p.id(json!({ "aud": "shop" })), "audience"),
        ("of another issuer", p.id(json!({ "iss": "https://evil.example" })), "issuer"),
        ("for another sign-in", p.id(json!({ "nonce": "m" })), "nonce"),
        ("without nonce", p.id(json!({ "nonce": null })), "nonce"),
        ("an access token", p.access(json!({ "aud": "portal", "nonce": "n" })), "another kind"),
        ("nameless", p.id(json!({ "name": null })), "claim for the user"),
        ("with too much", p.id(json!({ "groups": vec!["x".repeat(100); 30] })), "too long"),
    ] {
        let (code, refusal) = why(w.open(&id_token).await);
        assert!(refusal.contains(reason), "{what}: {refusal}");
        assert_eq!(code, RefusalCode::Denied, "{what}");
    }
    let open = |provider: &str, nonce: &str, scopes| OpenSession {
        provider: provider.into(),
        id_token: secret(&p.id(json!({ "nonce": nonce }))),
        nonce: nonce.into(),
        scopes,
    };
    let client = &w.keeper.client;
    assert!(why(client.open_session(open("staff", "", Vec::new())).await).1.contains("nonce"));
    let huge = vec!["x".repeat(257)];
    assert!(client.open_session(open("staff", "n", huge)).await.is_err());
    for provider in ["partners", "nobody"] {
        let (code, _) = why(client.open_session(open(provider, "n", Vec::new())).await);
        assert_eq!(code, RefusalCode::NotAllowed);
    }
    w.tell_revoked(&[revoked(ISSUER, What::Subject("u-1".into()))]).await;
    assert!(why(w.open(&p.id(json!({}))).await).1.contains("revoked"));
}

#[tokio::test]
async fn a_renewed_session_is_the_same_and_ends_when_the_first_did() {
    let w = World::new().await;
    let first = w.open(&w.provider.id(json!({}))).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let again = w.renew(first.token.expose(), None).await.unwrap();
    assert_eq!((&again.id, again.expires_at), (&first.id, first.expires_at));
    assert_eq!(again.identity, first.identity);
    let id = w.provider.id(json!({ "nonce": null, "groups": ["nurse", "lead"], "sid": null, "acr": null }));
    let third = w.renew(again.token.expose(), Some(id)).await.unwrap();
    assert_eq!((&third.id, third.expires_at), (&first.id, first.expires_at));
    assert_eq!(third.identity.groups, ["nurse", "lead"]);
    assert_eq!(third.identity.acr.as_deref(), Some("phr"));
    assert_eq!(third.identity.scopes, ["openid"]);
    // The session at the provider stays known, although the newer ID token does not name it.
    w.tell_revoked(&[revoked(ISSUER, What::Session("p1".into()))]).await;
    assert!(why(w.renew(third.token.expose(), None).await).1.contains("revoked"));
}

#[tokio::test]
async fn a_session_is_not_renewed_for_another_nor_when_it_was_ended() {
    let w = World::new().await;
    let session = w.open(&w.provider.id(json!({}))).await.unwrap();
    let text = session.token.expose();
    for (change, reason) in [
        (json!({ "sub": "u-2" }), "another user"),
        (json!({ "name": "root" }), "another user"),
        (json!({ "aud": "shop" }), "audience"),
        (json!({ "iat": now() - 800 }), "older"),
    ] {
        let refusal = why(w.renew(text, Some(w.provider.id(change))).await);
        assert!(refusal.1.contains(reason), "{refusal:?}");
    }
    assert!(w.renew(text, Some(Provider::new(ISSUER).id(json!({})))).await.is_err());
    assert!(w.renew("x", None).await.is_err());
    w.tell_revoked(&[revoked("clinic.example", What::Token(session.id.clone()))]).await;
    assert!(why(w.renew(text, Some(w.provider.id(json!({})))).await).1.contains("revoked"));
    w.tell_revoked(&[]).await;
    w.renew(text, None).await.unwrap();
    // It would be somebody else by the claims that count now.
    w.sign(2, &FENCE.replace("user: name", "user: sub")).await;
    assert!(why(w.renew(text, None).await).1.contains("mapping"));
    assert!(w.mint(ask(Shown::Session(secret(text)))).await.is_err());
    // Nobody signs in there any more, or somebody else stands behind the name now.
    let without = FENCE.replace("    login: { absolute: 2h }\n", "").replace("{ login: staff }, ", "");
    w.sign(3, &without).await;
    assert_eq!(why(w.renew(text, None).await).0, RefusalCode::NotAllowed);
    w.sign(4, &FENCE.replace(ISSUER, "https://new.clinic.example")).await;
    assert!(why(w.renew(text, None).await).1.contains("another issuer"));
}
