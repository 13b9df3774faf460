//! How a session goes on, and how it ends.

use super::*;
use crate::revoke::{Began, UPGRADE, streams, try_h1};
use crate::rig::SVID_KEY_ID;
use crate::tokens::{Provider, bearer, tell};

#[test]
fn at_a_session_s_end_what_is_open_by_it_is_cut_and_nothing_else() {
    let routes = "[{ path: /, accept: [{ login: staff }, { token: staff }] }]";
    let (rig, asked) = rig_before(streams, LOGIN, routes);
    let provider = Provider::new("k1");
    tell(&rig, provider.keys(unix() + 600));
    let sign_in = |id: &str, end: u64| {
        *asked.changes.lock().unwrap() = json!({ "jti": id, "exp": end });
        let mut browser = Browser::default();
        browser.sign_in(&rig, "/once");
        let session = browser.0.get(SESSION)?;
        Some(format!("Host: {HOST}:8443\r\nOrigin: http://{HOST}:8443\r\nCookie: {SESSION}={session}\r\n"))
    };
    let open = |name: &str, fields: &str, number: u64| {
        let to = || TcpStream::connect(rig.gateway).unwrap();
        let (stream, socket) = (format!("/stream/{number}"), format!("/socket/{number}"));
        let stream = try_h1(to(), name, &stream, fields).ok()?;
        let socket = try_h1(to(), name, &socket, &format!("{fields}{UPGRADE}")).ok()?;
        Some([stream, socket])
    };
    // Time enough to open them all, and more where the machine is too slow for that.
    let opened = [4, 16, 60].into_iter().find_map(|seconds| {
        let end = unix() + seconds;
        let (short, long) = (sign_in(&format!("short-{seconds}"), end)?, sign_in("long", end + 3600)?);
        let over = open("the session that ends", &short, seconds)?;
        let token = bearer(&provider.token(&json!({ "iat": unix() - 60, "exp": end })));
        let rest =
            [open("another session", &long, seconds)?, open("a token that ends then too", &token, seconds)?];
        let is_open = over.iter().all(|open| open.lives_until(end));
        is_open.then_some((seconds, end, over, rest))
    });
    let (number, end, over, rest) = opened.expect("it was open before the end");
    let left = Duration::from_secs(end).saturating_sub(std::time::UNIX_EPOCH.elapsed().unwrap());
    std::thread::sleep(left);
    let at = Began::now();
    for open in &over {
        open.cut(&at);
    }
    refused_by(&rig, &format!("/stream/{number}"), "session.over");
    rig.event("the socket", |r| r.kind() == "connection" && field(r, "/firewall_rule/uid") == "session.over");
    rest.iter().flatten().for_each(|open| open.lives());
}

#[test]
fn whatever_a_session_stands_for_ends_it_when_it_is_revoked() {
    for (issuer, what) in [
        (ISSUER, What::Subject("ada".into())),
        (ISSUER, What::Session("p1".into())),
        (ISSUER, What::Client("clinic-gateway".into())),
        (ISSUER, What::Issuer),
        ("clinic.example", What::Token("s1".into())),
    ] {
        let (rig, asked) = rig();
        // However long the rest takes.
        let made = unix();
        let origin =
            json!({ "iss": ISSUER, "sub": "ada", "sid": "p1", "client_id": "clinic-gateway", "iat": made });
        *asked.changes.lock().unwrap() = json!({ "iat": made, "origin": origin });
        let mut browser = Browser::default();
        browser.sign_in(&rig, "/a");
        assert_eq!(status(&browser.get(&rig, "/a")), 200);
        rig.revoke(Revocations::Added(vec![revocation(issuer, what.clone())]));
        over(&rig, &browser, "/a");
        // Signing in anew is another matter, but for what was made before.
        assert_eq!(status(&browser.sign_in(&rig, "/b")), 403, "{what:?}: a session made before is not begun");
        let later = json!({ "jti": "s2", "iat": unix() + 2, "origin": { "iss": ISSUER, "sub": "ada", "iat": unix() + 2 } });
        *asked.changes.lock().unwrap() = later;
        assert_eq!(status(&browser.sign_in(&rig, "/b")), 303, "{what:?}");
    }
}

#[test]
fn a_session_is_refreshed_once_however_many_requests_come() {
    let (rig, asked) = rig();
    asked.refresh_in.store(1, Ordering::Relaxed);
    let mut browser = Browser::default();
    browser.sign_in(&rig, "/a");
    asked.slow.store(300, Ordering::Relaxed);
    *asked.changes.lock().unwrap() =
        json!({ "idn": { "kind": "user", "provider": "staff", "id": "ada", "groups": ["night"] } });
    let rig = Arc::new(rig);
    let storm: Vec<_> = (0..40)
        .map(|_| {
            let (rig, mut browser) = (rig.clone(), browser.clone());
            std::thread::spawn(move || (browser.get(&rig, "/storm"), browser))
        })
        .collect();
    for request in storm {
        let (answer, after) = request.join().unwrap();
        assert_eq!(status(&answer), 200, "{answer}");
        assert_ne!(after.0[SESSION], browser.0[SESSION], "each gets the session as it is now");
        assert!(answer.contains("cache-control: private"), "no cache keeps it for others: {answer}");
    }
    let asked_for = asked.refreshed.load(Ordering::Relaxed);
    assert!((1..=2).contains(&asked_for), "once per thread, not {asked_for} times");
    // The provider is gone: the session goes on, and it is not asked with each request.
    let mut other = Browser::default();
    *asked.changes.lock().unwrap() = json!({ "jti": "s2" });
    other.sign_in(&rig, "/a");
    *asked.refusal.lock().unwrap() = Some(NoAnswerCode::Unavailable);
    for _ in 0..10 {
        assert_eq!(status(&other.get(&rig, "/later")), 200);
    }
    assert!(asked.refreshed.load(Ordering::Relaxed) <= asked_for + 2);
    rig.event("that it was not refreshed", |r| {
        r.json["entity"]["type"] == "session" || r.json.to_string().contains("goes on within its time")
    });
    // It says no: the session is over.
    let mut third = Browser::default();
    *asked.changes.lock().unwrap() = json!({ "jti": "s3" });
    third.sign_in(&rig, "/a");
    *asked.refusal.lock().unwrap() = Some(NoAnswerCode::Denied);
    for _ in 0..6 {
        assert_eq!(status(&third.get(&rig, "/over")), 303);
    }
    assert!(asked.refreshed.load(Ordering::Relaxed) <= asked_for + 4);
    refused_by(&rig, "/over", "session.revoked");
}

#[test]
fn a_session_ends_unused_and_at_its_end_and_goes_on_while_it_is_used() {
    let (rig, asked) = rig_with("{ idle: 1m, absolute: 8h }", ROUTES);
    let jar_of = |idle_ends: u64, expires: u64, token: String| {
        let keys = ringfence_keys::EnvelopeKeys::new(1, Secret::new([1; 32]), Vec::new());
        let session = ringfence_oidc::session::Session {
            provider: "staff".into(),
            token: Secret::new(token),
            asked: Vec::new(),
            expires,
            idle_ends,
            idle: 60,
            refresh_at: 0,
        };
        let set = ringfence_oidc::session::Cookies::new(keys).set_session(&session, unix()).unwrap();
        let mut browser = Browser::default();
        browser.0.insert(SESSION.into(), set.split([';', '=']).nth(1).unwrap().to_owned());
        browser
    };
    let jar = |idle_ends: u64, expires: u64, changes: &Value| {
        jar_of(idle_ends, expires, session(&rig.control, changes))
    };
    let (now, usual) = (unix(), json!({}));
    assert_eq!(status(&jar(now + 60, now + 3600, &usual).get(&rig, "/fresh")), 200);
    // The key of JWT-SVIDs signs nobody in, under its own name or another's.
    for kid in [SVID_KEY_ID, "t1"] {
        let forged = session_by(&rig.control.svid_key, kid, &usual);
        assert_eq!(status(&jar_of(now + 60, now + 3600, forged).get(&rig, "/svid-key")), 303, "{kid}");
    }
    let mut used = jar(unix() + 20, now + 3600, &usual);
    let answer = used.get(&rig, "/used");
    assert!(
        status(&answer) == 200 && answer.contains(&format!("set-cookie: {SESSION}=")),
        "renewed: {answer}"
    );
    assert!(answer.contains("Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax\r\n"), "{answer}");
    for (path, mut browser) in [
        ("/idle", jar(now - 1, now + 3600, &usual)),
        ("/end", jar(now + 60, now - 1, &usual)),
        // The cookie says more than the token.
        ("/token", jar(now + 60, now + 3600, &json!({ "iat": now - 3600, "exp": now - 60 }))),
        // Made by a clock that ran ahead, or ours was set back.
        ("/ahead", jar(now + 9000, now + 9999, &usual)),
    ] {
        assert_eq!(status(&browser.get(&rig, path)), 303, "{path}");
        refused_by(&rig, path, "session.over");
    }
    // The operator shortens how long it may be unused.
    let mut browser = Browser::default();
    browser.sign_in(&rig, "/a");
    drop(asked);
    let (listener, port) = local();
    echo(listener);
    rig.apply(&fence(port, "https://other.example", LOGIN, ROUTES));
    assert_eq!(status(&browser.get(&rig, "/moved")), 303, "the provider is another one now");
    refused_by(&rig, "/moved", "session.token");
}

#[test]
fn a_provider_ends_sessions_by_its_word_alone() {
    let (rig, asked) = rig();
    let mut nobody = Browser::default();
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let mut post =
        |fields: &str, body: &str| nobody.send(&rig, "POST", "/.ringfence/backchannel/staff", fields, body);
    let answer = post(form, "logout_token=good&x=y");
    assert!(status(&answer) == 200 && answer.contains("cache-control: no-store"), "{answer}");
    assert_eq!(*asked.logged_out.lock().unwrap(), ["staff good"]);
    for (fields, body, expected) in [
        (form, "logout_token=forged", 400),
        (form, "logout_token=later", 503),
        (form, "", 400),
        (form, "logout_token=", 400),
        (form, "logout_token=a&logout_token=b", 400),
        (form, "logout_token=%ff", 400),
        ("Content-Type: application/json\r\n", "{\"logout_token\":\"good\"}", 400),
        ("", "logout_token=good", 400),
    ] {
        let answer = post(fields, body);
        assert_eq!(status(&answer), expected, "{body}: {answer}");
        assert!(answer.contains("cache-control: no-store"), "{answer}");
    }
    assert_eq!(status(&post(form, &format!("logout_token={}", "a".repeat(100_000)))), 413);
    assert_eq!(asked.logged_out.lock().unwrap().len(), 1);
}
