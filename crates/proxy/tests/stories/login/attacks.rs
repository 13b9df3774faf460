//! What others may try: with cookies, callbacks, paths and pages of their own.

use super::*;

#[test]
fn nothing_below_our_own_paths_reaches_a_service() {
    let (rig, _) = rig();
    let mut browser = Browser::default();
    for path in [
        "/.ringfence",
        "/.ringfence/",
        "/.ringfence/x",
        "/.ringfence/login",
        "/.ringfence/login/",
        "/.ringfence/login/nobody",
        "/.ringfence/login/staff/x",
        "/.ringfence/logout/staff",
        "/%2eringfence/x",
        "/open/../.ringfence/x",
        "/.ringfence/backchannel/nobody",
        "/.ringfence/jwks",
    ] {
        let answer = browser.get(&rig, path);
        assert!(matches!(status(&answer), 400 | 404), "{path}: {answer}");
        assert!(!answer.contains("X-Port"), "{path} reached the service");
    }
    for (method, path) in [
        ("POST", "/.ringfence/login/staff"),
        ("GET", "/.ringfence/backchannel/staff"),
        ("PUT", "/.ringfence/logout"),
    ] {
        let answer = browser.send(&rig, method, path, "", "");
        assert!(status(&answer) == 405 && answer.contains("allow: "), "{method} {path}: {answer}");
    }
}

#[test]
fn a_sign_in_that_another_browser_began_signs_nobody_in() {
    let (rig, _) = rig();
    let (mut victim, mut attacker) = (Browser::default(), Browser::default());
    // The attacker has the victim's browser open the callback of the attacker's own sign-in (login CSRF).
    let theirs = attacker.begin(&rig, "/a");
    let answer = victim.callback(&rig, theirs, "staff", &format!("code-{theirs}"));
    assert_eq!(status(&answer), 400, "{answer}");
    assert!(answer.contains("text/html") && !answer.contains("state-staff"), "{answer}");
    assert!(victim.0.is_empty());
    refused_by(&rig, "/.ringfence/callback/staff", "signin.state");
    // The same when the victim has begun one too, and for a code of the attacker put into the victim's own callback.
    let own = victim.begin(&rig, "/b");
    assert_eq!(status(&victim.callback(&rig, theirs, "staff", &format!("code-{theirs}"))), 400);
    let injected = victim.clone().callback(&rig, own, "staff", &format!("code-{theirs}"));
    assert_eq!(status(&injected), 403, "{injected}");
    // A sign-in at one provider is not ended by the callback of another, nor at another host or port.
    let mut other = victim.clone();
    let path = format!("/.ringfence/callback/patients?code=code-{own}&state={own:012}-state-staff");
    assert_eq!(status(&other.get(&rig, &path)), 400);
    let path = format!("/.ringfence/callback/staff?code=code-{own}&state={own:012}-state-staff");
    let fields = format!("Host: {HOST}:9999\r\n{NAVIGATE}");
    assert_eq!(status(&victim.clone().send(&rig, "GET", &path, &fields, "")), 400);
    // Its honest twin.
    let mut again = victim.clone();
    assert_eq!(status(&victim.callback(&rig, own, "staff", &format!("code-{own}"))), 303);
    // Nor twice, even by somebody who kept the cookie.
    assert_eq!(status(&victim.callback(&rig, own, "staff", &format!("code-{own}"))), 400);
    assert_eq!(status(&again.callback(&rig, own, "staff", &format!("code-{own}"))), 403);
    assert!(!again.0.contains_key(SESSION));
}

#[test]
fn what_a_callback_says_is_not_shown_and_ends_in_a_page() {
    let (rig, asked) = rig();
    let mut browser = Browser::default();
    let number = browser.begin(&rig, "/a");
    let state = format!("{number:012}-state-staff");
    for (query, expected) in [
        ("", 400),
        ("code=x", 400),
        ("state=%ff", 400),
        (&*format!("state={state}&state={state}&code=x"), 400),
        (&*format!("state={}", "s".repeat(5000)), 400),
    ] {
        assert_eq!(
            status(&browser.get(&rig, &format!("/.ringfence/callback/staff?{query}"))),
            expected,
            "{query}"
        );
    }
    let evil = "%3Cscript%3Ealert(1)%3C/script%3E";
    let path = format!("/.ringfence/callback/staff?error={evil}&error_description={evil}&state={state}");
    let answer = browser.get(&rig, &path);
    assert_eq!(status(&answer), 403, "{answer}");
    assert!(!answer.contains("script>") && !answer.contains("alert"), "{answer}");
    assert!(answer.contains("href=\"/.ringfence/login/staff\""), "it can be tried again: {answer}");
    refused_by(&rig, "/.ringfence/callback/staff", "signin.refused");
    assert!(browser.0.is_empty(), "a sign-in is used once, whatever comes of it");

    // A session that would be refused at the next request is not begun: that would lead here again, for ever.
    for changes in [
        json!({ "exp": unix() - 60, "iat": unix() - 120 }),
        json!({ "idn": { "kind": "user", "provider": "patients", "id": "ada" } }),
        json!({ "origin": { "iss": "https://other.example", "sub": "ada" } }),
        json!({ "origin": { "iss": ISSUER, "sub": "ada", "client_id": "another" } }),
        json!({ "aud": "other.example", "iss": "other.example" }),
    ] {
        *asked.changes.lock().unwrap() = changes.clone();
        let mut browser = Browser::default();
        assert_eq!(status(&browser.sign_in(&rig, "/a")), 403, "{changes}");
        assert!(browser.0.is_empty());
    }
    *asked.changes.lock().unwrap() = json!({ "idn": { "kind": "user", "provider": "staff", "id": "ada", "groups": vec!["g".repeat(200); 20] } });
    let answer = Browser::default().sign_in(&rig, "/a");
    assert_eq!(status(&answer), 403, "what does not fit a cookie: {answer}");
    refused_by(&rig, "/.ringfence/callback/staff", "signin.too-large");
}

#[test]
fn no_sign_in_leads_away_from_the_host() {
    let (rig, _) = rig();
    for to in [
        "//evil.example",
        "/%5cevil.example",
        "/%09/evil.example",
        "%2f%2fevil.example",
        "https://evil.example/",
        "https:evil.example",
        "javascript:alert(1)",
        "/%0d%0aSet-Cookie:%20a=b",
        "%0d%0aLocation:%20https://evil.example",
        "/.ringfence/login/staff",
        "/%252eringfence/logout",
        "///evil.example",
        "/x%00y",
        "",
    ] {
        let mut browser = Browser::default();
        let answer = browser.sign_in(&rig, &format!("/.ringfence/login/staff?to={to}"));
        assert_eq!(status(&answer), 303, "{to}: {answer}");
        assert_eq!(location(&answer), "/", "{to}");
        assert!(!answer.contains("evil") && !answer.contains("a=b"), "{answer}");
        // The same for whoever is signed in already.
        let answer = browser.get(&rig, &format!("/.ringfence/login/staff?to={to}"));
        assert!(!answer.contains("evil") && location(&answer).starts_with('/'), "{answer}");
    }
    let mut browser = Browser::default();
    let answer = browser.sign_in(&rig, "/.ringfence/login/staff?to=/a%3Fb=c%26d=%252F&to2=x");
    assert_eq!(location(&answer), "/a?b=c&d=%2F");
}

#[test]
fn a_page_of_another_site_cannot_use_the_session() {
    let (rig, asked) = rig();
    let mut browser = Browser::default();
    browser.sign_in(&rig, "/a");
    let own = format!("Origin: http://{HOST}:8443\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (method, fields) in [
        ("POST", "Origin: https://evil.example\r\n".to_owned()),
        ("POST", "Sec-Fetch-Site: cross-site\r\n".to_owned()),
        ("POST", "Sec-Fetch-Site: same-site\r\n".to_owned()),
        ("POST", format!("Sec-Fetch-Site: cross-site\r\n{own}")),
        ("POST", "Sec-Fetch-Site: same-origin\r\nOrigin: https://evil.example\r\n".to_owned()),
        ("POST", format!("Origin: https://{HOST}:8443\r\n")),
        ("POST", format!("Origin: http://{HOST}\r\n")),
        ("POST", "Origin: null\r\n".to_owned()),
        ("DELETE", String::new()),
        ("PROPFIND", "Sec-Fetch-Site: cross-site\r\n".to_owned()),
    ] {
        let answer = browser.send(&rig, method, "/change", &fields, "x");
        assert_eq!(status(&answer), 403, "{method} {fields}: {answer}");
        assert!(!answer.contains("X-Port"));
        refused_by(&rig, "/change", "session.cross_site");
    }
    for fields in [
        own.clone(),
        "Sec-Fetch-Site: same-origin\r\n".into(),
        "Sec-Fetch-Site: same-origin\r\nOrigin: null\r\n".into(),
    ] {
        assert_eq!(status(&browser.send(&rig, "POST", "/change", &fields, "x")), 200, "{fields}");
    }
    // A WebSocket is opened by GET, from anywhere.
    let foreign = format!("{upgrade}Origin: https://evil.example\r\n");
    let answer = browser.send(&rig, "GET", "/ws", &foreign, "").to_owned();
    assert_eq!(status(&answer), 403, "{answer}");
    assert_eq!(status(&browser.send(&rig, "GET", "/ws", upgrade, "")), 403, "{answer}");
    refused_by(&rig, "/ws", "session.cross_site");
    // A link from elsewhere shows the page.
    let fields = format!("{NAVIGATE}Sec-Fetch-Site: cross-site\r\n");
    assert_eq!(status(&browser.send(&rig, "GET", "/page", &fields, "")), 200);
    // Nor can another site sign anybody out.
    for fields in ["Origin: https://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n", ""] {
        assert_eq!(status(&browser.send(&rig, "POST", "/.ringfence/logout", fields, "")), 403);
    }
    assert_eq!(asked.signed_out.load(Ordering::Relaxed), 0);
    assert_eq!(status(&browser.get(&rig, "/a")), 200);
}

#[test]
fn a_cookie_that_was_altered_moved_or_added_is_no_session() {
    let (rig, _) = rig();
    let mut browser = Browser::default();
    browser.sign_in(&rig, "/a");
    let good = browser.0[SESSION].clone();
    let login = {
        let mut other = Browser::default();
        other.begin(&rig, "/a");
        other.0.values().next().unwrap().clone()
    };
    let with = |name: &str, value: &str, path: &str| {
        let mut browser = Browser::default();
        browser.0.insert(name.into(), value.into());
        let answer = browser.get(&rig, path);
        (status(&answer), location(&answer).starts_with("/.ringfence/login/"))
    };
    assert_eq!(with(SESSION, &good, "/a"), (200, false));
    let last = if good.ends_with('A') { "Q" } else { "A" };
    let middle = good.len() / 2;
    let flipped = if &good[middle..=middle] == "x" { "y" } else { "x" };
    for (what, value) in [
        ("altered", format!("{}{flipped}{}", &good[..middle], &good[middle + 1..])),
        ("altered at its end", format!("{}{last}", &good[..good.len() - 4])),
        ("cut", good[..good.len() - 4].to_owned()),
        ("a sign-in", login),
        ("empty", String::new()),
        ("nonsense", "%00\u{7f}".replace('\u{7f}', "~")),
        ("oversized", "A".repeat(9000)),
        ("a bare token", session(&rig.control, &json!({}))),
        ("quoted", format!("\"{good}\"")),
    ] {
        assert_eq!(with(SESSION, &value, "/altered"), (303, true), "{what}");
    }
    refused_by(&rig, "/altered", "session.cookie");
    // Moved under the name of another provider, or of a sign-in.
    assert_eq!(with("__Host-ringfence-patients", &good, "/patients/x"), (303, true));
    assert_eq!(with("__host-ringfence-staff", &good, "/case"), (303, true));
    // Two of them: a neighbouring host or an older browser wrote one.
    let mut browser = Browser::default();
    browser.0.insert(SESSION.into(), format!("{good}; {SESSION}={good}"));
    assert_eq!(status(&browser.get(&rig, "/twice")), 303);
    refused_by(&rig, "/twice", "session.cookie");
    // Sealed by another fence.
    rig.tell_cookie_keys(vec![(1, Secret::new([2; 32]))]);
    eventually("other keys", || (with(SESSION, &good, "/a") == (303, true)).then_some(()));
    // Keys are rotated without ending a session.
    rig.tell_cookie_keys(vec![(2, Secret::new([2; 32])), (1, Secret::new([1; 32]))]);
    eventually("both keys", || (with(SESSION, &good, "/a") == (200, false)).then_some(()));
}

#[test]
fn sign_ins_that_pile_up_make_room() {
    let (rig, _) = rig();
    let mut browser = Browser::default();
    for number in 0..30 {
        browser.begin(&rig, &format!("/{number}"));
        assert!(browser.0.len() <= 4, "{}", browser.0.len());
    }
    assert_eq!(status(&browser.sign_in(&rig, "/a")), 303);
}

#[test]
fn a_session_of_one_provider_is_none_of_another_however_often_it_was_believed() {
    let (rig, asked) = rig();
    *asked.same.lock().unwrap() = Some(session(&rig.control, &json!({})));
    let mut browser = Browser::default();
    browser.sign_in(&rig, "/a");
    for _ in 0..32 {
        assert_eq!(status(&browser.get(&rig, "/a")), 200, "each thread knows it");
    }
    for _ in 0..8 {
        let mut other = Browser::default();
        let number = other.begin(&rig, "/patients");
        let answer = other.callback(&rig, number, "patients", &format!("code-{number}"));
        assert_ne!(status(&answer), 303, "{answer}");
        assert!(!other.0.contains_key("__Host-ringfence-patients"), "{answer}");
    }
}

#[test]
fn another_mapping_of_claims_asks_for_a_new_sign_in() {
    let (listener, port) = local();
    echo(listener);
    let (rig, _) = rig();
    let mut browser = Browser::default();
    browser.sign_in(&rig, "/a");
    assert_eq!(status(&browser.get(&rig, "/a")), 200);
    // Another claim names people now: `ada` may be somebody else there.
    rig.apply(&fence(port, ISSUER, LOGIN, ROUTES).replace("user: sub", "user: email"));
    over(&rig, &browser, "/mapped");
    refused_by(&rig, "/mapped", "session.token");
    rig.apply(&fence(port, ISSUER, LOGIN, ROUTES));
    assert_eq!(status(&browser.get(&rig, "/a")), 200, "it is the mapping alone");
}

#[test]
fn no_service_plants_a_session() {
    let (listener, port) = local();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let _ = std::io::Read::read(&mut stream, &mut bytes);
            let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: __Host-ringfence-staff=evil; Path=/; Secure\r\nSet-Cookie: =__host-RINGFENCE-staff=evil\r\nSet-Cookie: own=fine\r\nService-Worker-Allowed: /\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
        }
    });
    let rig = Rig::start(&fence(port, ISSUER, LOGIN, ROUTES));
    let answer = Browser::default().send(&rig, "GET", "/open", "", "").to_ascii_lowercase();
    assert!(answer.contains("set-cookie: own=fine") && !answer.contains("evil"), "{answer}");
    assert!(!answer.contains("service-worker-allowed"), "its script stays below its own path: {answer}");
}

#[test]
fn a_flood_of_sign_ins_is_bounded() {
    let (rig, asked) = rig();
    asked.held_up.store(true, Ordering::Relaxed);
    let (rig, refused) = (Arc::new(rig), Arc::<AtomicU64>::default());
    let flood: Vec<_> = (0..200)
        .map(|_| {
            let (rig, refused) = (rig.clone(), refused.clone());
            std::thread::spawn(move || {
                let code = status(&Browser::default().get(&rig, "/.ringfence/login/staff"));
                refused.fetch_add(u64::from(code == 503), Ordering::Relaxed);
                code
            })
        })
        .collect();
    // All that are too many, before any of the others is answered.
    eventually("those who are too many", || (refused.load(Ordering::Relaxed) >= 200 - 2 * 64).then_some(()));
    asked.held_up.store(false, Ordering::Relaxed);
    let codes: Vec<u16> = flood.into_iter().map(|one| one.join().unwrap()).collect();
    let count = |code| codes.iter().filter(|one| **one == code).count();
    assert_eq!(count(303) + count(503), 200, "{codes:?}");
    assert!(count(503) >= 200 - 2 * 64, "no more than 64 wait on a thread: {codes:?}");
    refused_by(&rig, "/.ringfence/login/staff", "signin.busy");
    assert_eq!(status(&Browser::default().sign_in(&rig, "/a")), 303);
}
