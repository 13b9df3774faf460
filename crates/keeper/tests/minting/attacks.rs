//! What a proxy that was taken over asks for, and control; each is refused, with a reason.

use ringfence_keeper::protocol::{Evidence, MintRequest, RefusalCode, ToldRevocations};
use ringfence_snapshot::node::Shown;
use ringfence_token::{ApiKey, KeyRecord, SessionSpec, What};
use serde_json::{Value, json};

use crate::common::now;
use crate::provider::{ISSUER, Provider};
use crate::world::{With, World, ask, domain, key_record, revoked, secret, token};

async fn refused(w: &World, request: MintRequest, code: RefusalCode, reason: &str) {
    let refusal = w.mint(request).await.unwrap_err();
    assert!(refusal.reason.contains(reason), "{refusal}, not: {reason}");
    assert_eq!(refusal.code, code, "{refusal}");
    assert!(!refusal.reason.contains("eyJ"), "a reason shows no token");
}

#[tokio::test]
async fn tokens_that_are_forged_over_foreign_or_of_another_kind_are_nobody_s() {
    let w = World::new().await;
    let p = &w.provider;
    let imposter = Provider::new(ISSUER);
    let foreign = Provider::new("https://evil.example");
    for (what, token_text, reason) in [
        ("another user's, forged", imposter.access(json!({ "name": "root" })), "signature is wrong"),
        ("over", p.access(json!({ "iat": now() - 900, "exp": now() - 60 })), "not valid at this time"),
        ("of another issuer", foreign.access(json!({})), "signature is wrong"),
        (
            "of another issuer by this key",
            p.access(json!({ "iss": "https://evil.example" })),
            "another issuer",
        ),
        ("for another audience", p.access(json!({ "aud": "shop" })), "another audience"),
        ("an ID token", p.id(json!({})), "audience"),
        ("an ID token for the audience", p.id(json!({ "aud": "clinic" })), "`nonce`"),
        ("a logout token", p.token("logout+jwt", json!({}), json!({ "iss": ISSUER })), "another kind"),
        ("nameless", p.access(json!({ "name": null })), "claim for the user"),
        ("no token", "x".to_owned(), "compact JWS"),
        ("huge", "x".repeat(9000), "compact JWS"),
    ] {
        let refusal = w.mint(ask(token("staff", &token_text))).await.unwrap_err();
        assert!(refusal.reason.contains(reason), "{what}: {refusal}");
        assert_eq!(refusal.code, RefusalCode::Denied, "{what}");
    }
    // One changed character makes another's name of nobody's.
    let good = p.access(json!({}));
    let mut parts: Vec<&str> = good.split('.').collect();
    let other = p.access(json!({ "name": "root" }));
    parts[1] = other.split('.').nth(1).unwrap();
    refused(&w, ask(token("staff", &parts.join("."))), RefusalCode::Denied, "signature is wrong").await;
}

#[tokio::test]
async fn what_the_fence_does_not_accept_there_is_not_minted_for() {
    let w = World::new().await;
    let good = || ask(token("staff", &w.provider.access(json!({}))));
    for workload in [
        "spiffe://clinic.example/service/portal",
        "spiffe://clinic.example/service/billing",
        "spiffe://clinic.example/gateway/other",
        "spiffe://other.example/gateway/clinic",
        "spiffe://clinic.example/node/n1",
        "gateway",
        "",
    ] {
        let mut request = good();
        request.ask.workload = workload.into();
        refused(&w, request, RefusalCode::NotAllowed, "accepts no credentials").await;
    }
    let key = ApiKey::generate();
    let mut request = ask(Shown::ApiKey(key.to_text())).with(Evidence::ApiKey(key_record(&key)));
    request.ask.workload = "spiffe://clinic.example/service/records".into();
    refused(&w, request, RefusalCode::NotAllowed, "accepts no API key").await;
    // A provider that is declared and nowhere accepted, and one that is not declared.
    let partners = Provider::new("https://partners.example");
    w.keeper.client.provider_keys(partners.keys("partners")).await.unwrap();
    let request = ask(token("partners", &partners.access(json!({}))));
    refused(&w, request, RefusalCode::NotAllowed, "accepts no token partners").await;
    let request = ask(token("nobody", &w.provider.access(json!({}))));
    refused(&w, request, RefusalCode::NotAllowed, "accepts no token nobody").await;
    // Evidence of another kind than what was shown.
    refused(&w, good().with(Evidence::ApiKey(key_record(&key))), RefusalCode::Malformed, "evidence").await;
    refused(&w, ask(Shown::ApiKey(key.to_text())), RefusalCode::Malformed, "evidence").await;
    let chain = Shown::Certificate { authority: "ca/a.pem".into(), chain: vec![vec![0x30, 0].into()] };
    refused(&w, ask(chain), RefusalCode::NotAllowed, "accepts no certificate ca/a.pem").await;
    // The fence changes, and with it what is minted for.
    w.sign(2, &crate::world::FENCE.replace("{ token: staff }, api_key]", "api_key]")).await;
    refused(&w, good(), RefusalCode::NotAllowed, "accepts no token staff").await;
}

#[tokio::test]
async fn an_api_key_counts_with_its_own_record_and_secret_only() {
    let w = World::new().await;
    let (key, other) = (ApiKey::generate(), ApiKey::generate());
    let wrong = ApiKey::generate_for(key.prefix());
    let record = || key_record(&key);
    let cases = [
        (&wrong, record(), "secret of this API key is wrong"),
        (&other, record(), "no API key has this prefix"),
        (&key, KeyRecord { disabled: true, ..record() }, "disabled"),
        (&key, KeyRecord { expires_at: Some(now() - 1), ..record() }, "expired"),
        (&key, KeyRecord { not_before: Some(now() + 100), ..record() }, "not valid yet"),
        (&wrong, KeyRecord { previous: Some((wrong.digest(), now() - 1)), ..record() }, "wrong"),
    ];
    for (key, record, reason) in cases {
        let request = ask(Shown::ApiKey(key.to_text())).with(Evidence::ApiKey(record));
        refused(&w, request, RefusalCode::Denied, reason).await;
    }
    let request = ask(Shown::ApiKey(secret("rf_x"))).with(Evidence::ApiKey(record()));
    refused(&w, request, RefusalCode::Denied, "no API key").await;
    let record = KeyRecord { client: "a\nb".into(), ..record() };
    let request = ask(Shown::ApiKey(key.to_text())).with(Evidence::ApiKey(record));
    refused(&w, request, RefusalCode::Malformed, "client").await;
}

#[tokio::test]
async fn what_was_revoked_is_minted_for_no_more() {
    let w = World::new().await;
    let key = ApiKey::generate();
    let session = w.open(&w.provider.id(json!({}))).await.unwrap();
    let claims = json!({ "sub": "u-1", "name": "nora", "jti": "o1", "exp": now() + 60 });
    let all = || {
        let said = Evidence::Introspected { claims: claims.as_object().unwrap().clone(), until: now() + 60 };
        [
            ask(token("staff", &w.provider.access(json!({})))),
            ask(Shown::Session(session.token.clone())),
            ask(Shown::Opaque { provider: "staff".into(), token: secret("o") }).with(said),
            ask(Shown::ApiKey(key.to_text())).with(Evidence::ApiKey(key_record(&key))),
        ]
    };
    let hit = async |entry: &[_]| {
        w.tell_revoked(entry).await;
        let results = w.keeper.client.mint(all().into()).await.unwrap();
        results.into_iter().map(|result| result.is_err()).collect::<Vec<_>>()
    };
    assert_eq!(hit(&[]).await, [false; 4]);
    for (issuer, what, expected) in [
        (ISSUER, What::Token("t1".into()), [true, false, false, false]),
        (ISSUER, What::Subject("u-1".into()), [true, true, true, false]),
        (ISSUER, What::Session("p1".into()), [false, true, false, false]),
        (ISSUER, What::Client("app".into()), [true, false, false, false]),
        (ISSUER, What::Key("k".into()), [true, true, false, false]),
        (ISSUER, What::Token("o1".into()), [false, false, true, false]),
        (ISSUER, What::Issuer, [true, true, true, false]),
        ("clinic.example", What::Token(session.id.clone()), [false, true, false, false]),
        ("api_key", What::Token(key.prefix().to_string()), [false, false, false, true]),
        ("https://else.example", What::Issuer, [false; 4]),
    ] {
        assert_eq!(hit(&[revoked(issuer, what.clone())]).await, expected, "{what:?}");
    }
    // One that is added counts at once, also for what the keeper had verified before; a list without a beginning is none.
    assert_eq!(hit(&[]).await, [false; 4]);
    let added = ToldRevocations::Added(vec![revoked(ISSUER, What::Subject("u-1".into()))]);
    w.keeper.client.revocations(added).await.unwrap();
    assert!(w.mint(all().into_iter().next().unwrap()).await.is_err());
    let whole = ToldRevocations::Part { first: false, last: true, entries: Vec::new() };
    assert!(w.keeper.client.revocations(whole).await.is_err());
    assert!(w.mint(all().into_iter().next().unwrap()).await.is_err(), "what was said before still counts");
}

#[tokio::test]
async fn session_tokens_that_the_keeper_did_not_sign_or_of_elsewhere_are_nobody_s() {
    let w = World::new().await;
    let elsewhere = World::new().await;
    let theirs = elsewhere.open(&elsewhere.provider.id(json!({}))).await.unwrap();
    refused(&w, ask(Shown::Session(theirs.token)), RefusalCode::Denied, "names no key").await;
    // Signed by somebody who knows the name of the key.
    let kid = w.keeper.client.bundle().await.unwrap().txn[0].kid.clone();
    let ours = w.open(&w.provider.id(json!({}))).await.unwrap();
    let payload = ours.token.expose().split('.').nth(1).unwrap().to_owned();
    let forger = ringfence_keys::SigningKey::generate(ringfence_keys::Algorithm::Ed25519).unwrap();
    let id_token = w.provider.id(json!({}));
    let origin = {
        let keys = ringfence_token::KeySet::from_json(w.provider.keys("staff").jwks.as_bytes()).unwrap();
        let profile = ringfence_token::Profile::id_token(ISSUER, "portal");
        ringfence_token::Origin::of_token(&profile.verify(&id_token, &keys, now()).unwrap())
    };
    let domain = domain();
    let spec = SessionSpec {
        trust_domain: &domain,
        id: "s",
        subject: "root",
        identity: json!({ "kind": "user", "provider": "staff", "id": "root" }).as_object().unwrap().clone(),
        mapping: "",
        origin: &origin,
        issued_at: now(),
        expires_at: now() + 60,
    };
    let input = spec.signing_input(ringfence_token::Algorithm::EdDsa, &kid).unwrap();
    let signature = forger.sign(input.as_bytes()).unwrap();
    let forged = input.seal(&signature).unwrap();
    refused(&w, ask(Shown::Session(secret(&forged))), RefusalCode::Denied, "signature").await;
    let mut parts: Vec<&str> = forged.split('.').collect();
    parts[1] = &payload;
    refused(&w, ask(Shown::Session(secret(&parts.join(".")))), RefusalCode::Denied, "signature").await;
    // A transaction token, a JWT-SVID or a provider's token is no session, though one of these is signed by the same key.
    let minted = w.mint(ask(Shown::Session(ours.token))).await.unwrap().token;
    let minted = minted.expose();
    let jwt = ringfence_keeper::protocol::JwtRequest {
        id: "spiffe://clinic.example/service/portal".into(),
        audiences: vec!["clinic.example".into()],
        ttl: 60,
    };
    let svid = w.keeper.client.sign_jwt(jwt).await.unwrap().0;
    for other in [minted.as_str(), svid.as_str(), id_token.as_str()] {
        refused(&w, ask(Shown::Session(secret(other))), RefusalCode::Denied, "another kind").await;
        assert!(w.mint(ask(token("staff", other))).await.is_err());
    }
}

#[tokio::test]
async fn more_than_the_credential_is_good_for_and_more_than_fits_is_refused() {
    let w = World::new().await;
    let good = || ask(token("staff", &w.provider.access(json!({}))));
    for scope in ["admin", "read admin", "read\u{1}", "readwrite"] {
        let mut request = good();
        request.ask.scope = scope.into();
        refused(&w, request, RefusalCode::Denied, "has no scope").await;
    }
    for context in [
        json!({ "ip": "x".repeat(2000) }),
        json!({ "a": { "b": 1 } }),
        json!({ "a": [1] }),
        Value::Object((0..17).map(|i| (i.to_string(), json!(1))).collect()),
    ] {
        let mut request = good();
        request.ask.request = context.as_object().unwrap().clone();
        refused(&w, request, RefusalCode::Malformed, "context of a request").await;
    }
    let groups: Vec<String> = (0..400).map(|i| format!("hospital/ward/{i}")).collect();
    let many = w.provider.access(json!({ "groups": groups[..260] }));
    refused(&w, ask(token("staff", &many)), RefusalCode::Denied, "fewer").await;
    let some = w.provider.access(json!({ "groups": groups[..200] }));
    w.mint(ask(token("staff", &some))).await.unwrap();
}

#[tokio::test]
async fn what_control_says_of_an_opaque_token_is_held_to_the_fence() {
    let w = World::new().await;
    let opaque = |claims: Value, until| {
        let said = Evidence::Introspected { claims: claims.as_object().unwrap().clone(), until };
        ask(Shown::Opaque { provider: "staff".into(), token: secret("o") }).with(said)
    };
    let claims = json!({ "iss": ISSUER, "sub": "u-1", "name": "nora" });
    w.mint(opaque(claims.clone(), now() + 60)).await.unwrap();
    refused(&w, opaque(claims.clone(), now()), RefusalCode::Denied, "not valid").await;
    for (change, reason) in [
        (json!({ "exp": now() - 1 }), "not valid"),
        (json!({ "exp": "soon" }), "`exp`"),
        (json!({ "iss": "https://evil.example" }), "another issuer"),
        (json!({ "name": null }), "claim for the user"),
        (json!({ "sub": "x".repeat(3000) }), "`sub`"),
    ] {
        let mut claims = claims.as_object().unwrap().clone();
        claims.extend(change.as_object().unwrap().clone());
        refused(&w, opaque(Value::Object(claims), now() + 60), RefusalCode::Denied, reason).await;
    }
    w.sign(2, &crate::world::FENCE.replace("    opaque: introspect\n", "")).await;
    refused(&w, opaque(claims, now() + 60), RefusalCode::NotAllowed, "opaque").await;
}
