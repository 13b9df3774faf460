//! Whole flows with a provider that others wrote.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use ringfence_keys::{Algorithm, SigningKey};
use ringfence_oidc::protocol::{
    ClientConfig, Credential, FromFederation, Outcome, RefusalCode, ToFederation,
};
use serde_json::json;

use crate::agent::Agent;
use crate::federation::{Federation, complete, config, secret, signed_in};
use crate::provider::{Provider, client};

const CALLBACK: &str = "https://portal.clinic.example/callback";

#[test]
fn a_user_signs_in_over_tls_is_refreshed_asked_for_and_signed_out() {
    let provider = Provider::start(true, &[("k1", "ES256")], &json!([client(&json!({}))]), &[]);
    let mut federation = Federation::start();
    let mut staff = config("staff", &provider.issuer);
    staff.ca.clone_from(&provider.ca);
    federation.tell(&ToFederation::Providers(vec![staff]));
    let (generation, jwks) = federation.keys("staff");
    assert!(generation > 0 && jwks.contains("\"kid\":\"k1\""), "{jwks}");

    let begun = federation.begin("staff", CALLBACK);
    for part in ["code_challenge_method=S256", "scope=openid%20profile%20read", "response_type=code"] {
        assert!(begun.url.contains(part), "{}", begun.url);
    }
    let agent = Agent::new(provider.ca_file.clone());
    let callback = agent.sign_in(&begun.url, "nora");
    assert_eq!(callback.state, begun.state);
    assert_eq!(callback.iss.as_ref(), Some(&provider.issuer), "RFC 9207");
    let iss = callback.iss.as_deref();
    let user = federation.complete("staff", &begun, &callback.code, iss).unwrap();
    assert_eq!(user.subject, "nora");
    assert_eq!(user.claims["groups"], json!(["nurse", "ward-3"]));
    assert_eq!(user.scopes, ["read"], "what the provider granted, not what was asked for");
    assert!(user.id_token.is_some() && user.expires > user.claims["iat"].as_u64().unwrap());

    // A code is good once, and for its verifier.
    let again = federation.complete("staff", &begun, &callback.code, iss).unwrap_err();
    assert_eq!(again.code, RefusalCode::Denied, "{again}");
    assert!(again.reason.contains("invalid_grant"), "{again}");

    // The provider ends a grant whose code came twice, so sign in once more.
    let begun = federation.begin("staff", CALLBACK);
    let callback = agent.sign_in(&begun.url, "nora");
    let user = federation.complete("staff", &begun, &callback.code, callback.iss.as_deref()).unwrap();
    let first = user.refresh_token.clone().unwrap();
    let mut refresh = |token: &ringfence_keys::Secret<String>, subject: &str| {
        let outcome = federation.ask(|request| ToFederation::Refresh {
            request,
            provider: "staff".into(),
            refresh_token: token.clone(),
            subject: subject.into(),
        });
        signed_in(outcome)
    };
    let refreshed = refresh(&first, "nora").unwrap();
    let second = refreshed.refresh_token.clone().unwrap();
    assert_ne!(first.expose(), second.expose(), "rotated");
    assert_eq!(refreshed.subject, "nora");
    let stranger = refresh(&second, "mallory").unwrap_err();
    assert_eq!(stranger.code, RefusalCode::NotBelieved, "{stranger}");
    let spent = refresh(&first, "nora").unwrap_err();
    assert_eq!(spent.code, RefusalCode::Denied, "{spent}");

    let outcome = federation.ask(|request| ToFederation::EndSession {
        request,
        provider: "staff".into(),
        id_token_hint: user.id_token.clone(),
        post_logout_redirect_uri: Some("https://portal.clinic.example/bye".into()),
        state: Some("s1".into()),
    });
    let Ok(Outcome::EndSession { url }) = outcome else { panic!("{outcome:?}") };
    let page = agent.sign_out(&url);
    assert_eq!(page.url.as_str(), "https://portal.clinic.example/bye?state=s1");
}

#[test]
fn a_callback_of_another_provider_never_gets_the_code() {
    let provider = Provider::start(false, &[("k1", "ES256")], &json!([client(&json!({}))]), &[]);
    let mut federation = Federation::start();
    federation.tell(&ToFederation::Providers(vec![config("staff", &provider.issuer)]));
    let begun = federation.begin("staff", CALLBACK);
    let agent = Agent::new(provider.ca_file.clone());
    let callback = agent.sign_in(&begun.url, "nora");
    for iss in [Some("https://evil.example"), None] {
        let refusal = federation.complete("staff", &begun, &callback.code, iss).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::NotBelieved);
        assert!(refusal.reason.contains("swapped"), "{refusal}");
    }
    // It was not sent: it is still good.
    federation.complete("staff", &begun, &callback.code, callback.iss.as_deref()).unwrap();
}

#[test]
fn a_stolen_code_is_worth_nothing_without_its_verifier_and_browser() {
    let provider = Provider::start(false, &[("k1", "ES256")], &json!([client(&json!({}))]), &[]);
    let mut federation = Federation::start();
    federation.tell(&ToFederation::Providers(vec![config("staff", &provider.issuer)]));
    let agent = Agent::new(provider.ca_file.clone());
    let mut attempt = |spoil: fn(&mut crate::federation::Begun)| {
        let mut begun = federation.begin("staff", CALLBACK);
        let callback = agent.sign_in(&begun.url, "nora");
        spoil(&mut begun);
        federation.complete("staff", &begun, &callback.code, callback.iss.as_deref())
    };
    let verifier = attempt(|begun| begun.verifier = "v".repeat(43)).unwrap_err();
    assert_eq!(verifier.code, RefusalCode::Denied, "{verifier}");
    // Injected into another's sign-in: the verifier would have to be the victim's, the nonce is not.
    let nonce = attempt(|begun| begun.nonce = "n".repeat(43)).unwrap_err();
    assert_eq!(nonce.code, RefusalCode::NotBelieved, "{nonce}");
    assert!(nonce.reason.contains("nonce"), "{nonce}");
    attempt(|_| ()).unwrap();
}

#[test]
fn every_way_to_authenticate_and_every_algorithm_works() {
    let key = SigningKey::generate(Algorithm::P256).unwrap();
    let keys = ringfence_token::KeySet::from_keys([("c1".to_owned(), key.verifying_key().clone())]);
    let jwks: serde_json::Value = serde_json::from_str(&keys.to_json("sig")).unwrap();
    let by_key =
        Credential::Key { algorithm: Algorithm::P256, key_id: "c1".into(), pkcs8: key.to_pkcs8().unwrap() };
    let by_secret = || Credential::Secret(secret("a secret/with +odd% signs"));
    let cases = [
        (json!({ "token_endpoint_auth_method": "client_secret_basic" }), by_secret(), "ES256"),
        (json!({ "token_endpoint_auth_method": "client_secret_basic" }), by_secret(), "EdDSA"),
        (json!({ "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks }), by_key, "RS256"),
        (json!({ "token_endpoint_auth_method": "none" }), Credential::Public, "ES256"),
    ];
    for (registration, credential, alg) in cases {
        let mut registration = client(&registration);
        registration["id_token_signed_response_alg"] = alg.into();
        let provider = Provider::start(false, &[("k1", alg)], &json!([registration]), &[]);
        let mut federation = Federation::start();
        let mut staff = config("staff", &provider.issuer);
        staff.client = Some(ClientConfig { id: "clinic-gateway".into(), credential });
        federation.tell(&ToFederation::Providers(vec![staff]));
        let begun = federation.begin("staff", CALLBACK);
        let callback = Agent::new(provider.ca_file.clone()).sign_in(&begun.url, "nora");
        let user = federation.complete("staff", &begun, &callback.code, callback.iss.as_deref());
        assert_eq!(user.unwrap().claims["groups"][0], "nurse", "{registration}");
    }
}

#[test]
fn a_logout_at_the_provider_names_the_session_once() {
    // Our logout address, which only listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/logout", listener.local_addr().unwrap());
    let registration =
        client(&json!({ "backchannel_logout_uri": uri, "backchannel_logout_session_required": true }));
    let provider = Provider::start(false, &[("k1", "ES256")], &json!([registration]), &[]);
    let mut federation = Federation::start();
    federation.tell(&ToFederation::Providers(vec![config("staff", &provider.issuer)]));
    let says = federation.wait(|m| match m {
        FromFederation::Metadata { backchannel_logout, introspection, end_session, .. } => {
            Some((*backchannel_logout, *introspection, *end_session))
        }
        _ => None,
    });
    assert_eq!(says, (true, true, true));
    let begun = federation.begin("staff", CALLBACK);
    let agent = Agent::new(provider.ca_file.clone());
    let callback = agent.sign_in(&begun.url, "nora");
    let user = federation.complete("staff", &begun, &callback.code, callback.iss.as_deref()).unwrap();
    assert!(user.sid.is_some(), "{:?}", user.claims);
    let outcome = federation.ask(|request| ToFederation::EndSession {
        request,
        provider: "staff".into(),
        id_token_hint: user.id_token.clone(),
        post_logout_redirect_uri: None,
        state: None,
    });
    let Ok(Outcome::EndSession { url }) = outcome else { panic!("{outcome:?}") };
    let receiving = std::thread::spawn(move || receive_form(&listener));
    agent.sign_out(&url);
    let token = receiving.join().unwrap();
    let mut tell = |token: &str| {
        let token = token.to_owned();
        federation.ask(|request| ToFederation::LogoutToken { request, provider: "staff".into(), token })
    };
    // The ID token of the same user ends nothing.
    let confused = tell(user.id_token.as_ref().unwrap().expose()).unwrap_err();
    assert_eq!(confused.code, RefusalCode::NotBelieved, "{confused}");
    let outcome = tell(&token);
    let Ok(Outcome::LoggedOut { sid, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(sid, user.sid);
    let replayed = tell(&token).unwrap_err();
    assert!(replayed.reason.contains("shown before"), "{replayed}");
}

/// Takes one post, and returns its `logout_token`.
fn receive_form(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The body comes in one chunk or as it is; either way the token is followed by the end of a line, a parameter, or nothing.
    let (mut text, mut part) = (String::new(), [0; 8192]);
    let ended = |text: &str| match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.to_ascii_lowercase().contains("chunked") => body.ends_with("0\r\n\r\n"),
        Some((head, body)) => {
            let length = head.to_ascii_lowercase().split("content-length:").nth(1).unwrap().to_owned();
            body.len() >= length.lines().next().unwrap().trim().parse().unwrap()
        }
        None => false,
    };
    while !ended(&text) {
        let read = stream.read(&mut part).unwrap();
        assert_ne!(read, 0, "{text}");
        text.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    text.split("logout_token=").nth(1).unwrap().split(['&', '\r']).next().unwrap().to_owned()
}

#[test]
fn an_opaque_token_of_a_real_provider_is_understood_plain_and_signed() {
    for signed in [false, true] {
        let mut registration = client(&json!({}));
        if signed {
            registration["introspection_signed_response_alg"] = "ES256".into();
        }
        let more = [("signedIntrospection", json!(signed))];
        let provider = Provider::start(false, &[("k1", "ES256")], &json!([registration]), &more);
        let mut federation = Federation::start();
        federation.tell(&ToFederation::Providers(vec![config("staff", &provider.issuer)]));
        // A token as a client of its own would get it: by the code flow, without us.
        let begun = federation.begin("staff", CALLBACK);
        let agent = Agent::new(provider.ca_file.clone());
        let callback = agent.sign_in(&begun.url, "nora");
        let token = agent.exchange(&provider.issuer, &begun, &callback.code);
        let mut ask = |token: &str| {
            let outcome = federation.ask(|request| ToFederation::Introspect {
                request,
                provider: "staff".into(),
                token: secret(token),
            });
            let Ok(Outcome::Introspected(answer)) = outcome else { panic!("{signed}: {outcome:?}") };
            answer
        };
        let answer = ask(&token);
        assert!(answer.active, "{answer:?}");
        assert_eq!((&answer.claims["sub"], &answer.claims["aud"]), (&json!("nora"), &json!("clinic")));
        assert!(!ask("never made").active);
    }
}

#[test]
fn keys_are_rotated_while_many_sign_in() {
    let clients = json!([client(&json!({}))]);
    let mut provider = Provider::start(false, &[("k1", "ES256")], &clients, &[]);
    let mut federation = Federation::start();
    federation.tell(&ToFederation::Providers(vec![config("staff", &provider.issuer)]));
    let (first, _) = federation.keys("staff");
    // Keys may be asked for again half a minute after the last time.
    std::thread::sleep(Duration::from_secs(30));
    let agent = Agent::new(provider.ca_file.clone());
    let mut waiting = Vec::new();
    for round in 0..12 {
        if round == 4 {
            provider.rotate(&[("k2", "ES256"), ("k1", "ES256")]);
        }
        let begun = federation.begin("staff", CALLBACK);
        let callback = agent.sign_in(&begun.url, "nora");
        let iss = callback.iss.as_deref();
        waiting.push(federation.ask_later(|request| complete(request, "staff", &begun, &callback.code, iss)));
    }
    for number in waiting {
        signed_in(federation.answer(number)).unwrap();
    }
    let (second, jwks) = federation.keys("staff");
    assert!(second > first && jwks.contains("\"k2\""), "{jwks}");
}
