//! Signing in and out as it should be.

use super::*;

#[test]
fn somebody_signs_in_is_known_to_the_service_and_signs_out() {
    let (rig, asked) = rig();
    let mut browser = Browser::default();
    let answer = browser.get(&rig, "/records?id=3&x=%2F");
    assert_eq!(
        (status(&answer), location(&answer)),
        (303, "/.ringfence/login/staff?to=/records%3Fid%3D3%26x%3D%252F")
    );
    let back = browser.sign_in(&rig, "/records?id=3&x=%2F");
    assert_eq!((status(&back), location(&back)), (303, "/records?id=3&x=%2F"), "{back}");
    assert_eq!(*asked.redirect_uri.lock().unwrap(), format!("http://{HOST}:8443/.ringfence/callback/staff"));
    assert_eq!(browser.0.keys().collect::<Vec<_>>(), [SESSION], "the sign-in's own cookie is gone");
    let set = back.lines().find(|line| line.contains(&format!("{SESSION}="))).unwrap();
    assert!(set.ends_with("; Max-Age=1800; Path=/; Secure; HttpOnly; SameSite=Lax"), "{set}");
    assert!(
        back.contains("cache-control: no-store") && back.contains("referrer-policy: no-referrer"),
        "{back}"
    );

    browser.0.insert("theme".into(), "dark".into());
    let answer = browser.get(&rig, "/records?id=3");
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(
        answer.contains("ringfence-user: ada\r\n") && answer.contains("ringfence-provider: staff"),
        "{answer}"
    );
    assert!(answer.contains("cookie: theme=dark\r\n") && !answer.contains("__Host-ringfence"), "{answer}");
    assert!(!answer.contains("set-cookie"), "a session that was just begun is not renewed: {answer}");
    let event = rig.event("the call", |r| {
        field(r, "/http_request/url/path") == "/records" && field(r, "/src_endpoint/owner/name") == "ada"
    });
    let text = event.json.to_string();
    assert!(!text.contains(&browser.0[SESSION]) && !text.contains("eyJ"), "{text}");
    // Not where nobody signs in either.
    let answer = browser.get(&rig, "/open");
    assert!(answer.contains("cookie: theme=dark\r\n") && !answer.contains("__Host-ringfence"), "{answer}");

    // Whoever is signed in is not sent to the provider again.
    let answer = browser.get(&rig, "/.ringfence/login/staff?to=/x");
    assert_eq!((status(&answer), location(&answer)), (303, "/x"));

    let page = browser.get(&rig, "/.ringfence/logout");
    assert!(page.contains("<form method=\"post\" action=\"/.ringfence/logout\">"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'; "), "{page}");
    let old = browser.clone();
    let fields = format!("Sec-Fetch-Site: same-origin\r\nOrigin: http://{HOST}:8443\r\n");
    let answer = browser.send(&rig, "POST", "/.ringfence/logout", &fields, "");
    let end = format!("https://id.clinic.example/end?back=http://{HOST}:8443/.ringfence/logged-out");
    assert_eq!((status(&answer), location(&answer)), (303, &*end), "{answer}");
    assert!(answer.contains("\r\nclear-site-data: \"cache\"\r\n"), "{answer}");
    assert!(!browser.0.contains_key(SESSION));
    assert_eq!(asked.signed_out.load(Ordering::Relaxed), 1);
    assert_eq!(status(&browser.get(&rig, "/.ringfence/logged-out")), 200);
    assert_eq!(status(&browser.get(&rig, "/records")), 303);
    // Whoever kept the cookie: as soon as the revocation arrives.
    rig.revoke(Revocations::Added(vec![revocation("clinic.example", What::Token("s1".into()))]));
    over(&rig, &old, "/kept");
    refused_by(&rig, "/kept", "session.revoked");
}

#[test]
fn a_browser_that_speaks_http_2_signs_in() {
    let (rig, _) = rig();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = crate::grpc::client(rig.gateway).await;
        let mut get = async |path: &str, cookies: &[String]| {
            let request =
                http::Request::get(format!("http://{HOST}:8443{path}")).header("accept", "text/html");
            // HTTP/2 may split cookies.
            let request = cookies.iter().fold(request, |request, cookie| request.header("cookie", cookie));
            let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            let answer = answer.await.unwrap();
            let all = |name| {
                let values = answer.headers().get_all(name).iter();
                values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            (answer.status().as_u16(), all("location"), all("set-cookie"))
        };
        let sent = |set: &[String]| {
            set.iter().map(|set| set.split(';').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (code, to, _) = get("/a", &[]).await;
        assert_eq!((code, &*to[0]), (303, "/.ringfence/login/staff?to=/a"));
        let (_, to, set) = get(&to[0], &[]).await;
        let state = to[0].split_once("&state=").unwrap().1.to_owned();
        let number: u64 = state[..12].parse().unwrap();
        let path = format!("/.ringfence/callback/staff?code=code-{number}&state={state}");
        let (code, to, set) = get(&path, &sent(&set)).await;
        assert_eq!(
            (code, &*to[0], set.len()),
            (303, "/a", 2),
            "the session comes and the sign-in goes: {set:?}"
        );
        let kept: Vec<String> = set.into_iter().filter(|set| !set.contains("Max-Age=0")).collect();
        let mut cookies = sent(&kept);
        cookies.insert(0, "theme=dark".to_owned());
        let (code, ..) = get("/a", &cookies).await;
        assert_eq!(code, 200);
    });
}

#[test]
fn only_navigations_are_led_to_a_sign_in() {
    let (rig, _) = rig();
    let mut browser = Browser::default();
    for (path, method, fields) in [
        ("/a", "GET", "Accept: application/json\r\n"),
        ("/b", "GET", "Accept: text/html\r\nSec-Fetch-Mode: cors\r\n"),
        ("/c", "POST", NAVIGATE),
        ("/d", "GET", ""),
        ("/e", "HEAD", NAVIGATE),
    ] {
        let answer = browser.send(&rig, method, path, fields, "");
        assert_eq!(status(&answer), 401, "{path}: {answer}");
        assert!(
            answer.contains("www-authenticate: Login realm=\"clinic\", at=\"/.ringfence/login/staff\""),
            "{answer}"
        );
        refused_by(&rig, path, "session.none");
    }
    assert_eq!(status(&browser.send(&rig, "GET", "/f", "Accept: text/html\r\n", "")), 303, "an old browser");
}

#[test]
fn what_asks_for_a_stronger_sign_in_gets_it_or_ends() {
    let (rig, asked) = rig();
    let mut browser = Browser::default();
    browser.sign_in(&rig, "/a");
    let answer = browser.get(&rig, "/strong?x=1");
    assert_eq!(
        (status(&answer), location(&answer)),
        (303, "/.ringfence/login/staff?to=/strong%3Fx%3D1&acr=phr"),
        "{answer}"
    );
    // A script is told what is missing.
    let answer = browser.send(&rig, "GET", "/strong", "", "");
    assert!(status(&answer) == 401 && answer.contains("insufficient_user_authentication"), "{answer}");
    // The provider does not do it: one try, then a page.
    assert_eq!(location(&browser.sign_in(&rig, "/strong")), "/strong");
    assert_eq!(*asked.acr_values.lock().unwrap(), ["phr"]);
    let answer = browser.get(&rig, "/strong");
    assert!(status(&answer) == 403 && answer.contains("text/html"), "{answer}");
    assert_eq!(status(&browser.get(&rig, "/a")), 200, "it is a session still");
    // It does.
    let mut browser = Browser::default();
    browser.sign_in(&rig, "/a");
    *asked.changes.lock().unwrap() =
        json!({ "idn": { "kind": "user", "provider": "staff", "id": "ada", "acr": "phr" } });
    browser.sign_in(&rig, "/strong");
    assert_eq!(status(&browser.get(&rig, "/strong")), 200);
}

#[test]
fn no_session_is_begun_without_tls_but_on_this_machine() {
    let (rig, _) = rig();
    let mut browser = Browser::default();
    let answer = browser.send(
        &rig,
        "GET",
        "/.ringfence/login/staff",
        &format!("Host: portal.clinic.example\r\n{NAVIGATE}"),
        "",
    );
    assert!(status(&answer) == 403 && answer.contains("https"), "{answer}");
    browser.sign_in(&rig, "/a");
    let answer =
        browser.send(&rig, "GET", "/plain", &format!("Host: portal.clinic.example\r\n{NAVIGATE}"), "");
    assert_eq!(status(&answer), 401, "{answer}");
    refused_by(&rig, "/plain", "session.plain");
    for host in ["127.0.0.1:8443", "app.localhost", "[::1]:8443"] {
        let answer = Browser::default().send(
            &rig,
            "GET",
            "/.ringfence/login/staff",
            &format!("Host: {host}\r\n{NAVIGATE}"),
            "",
        );
        assert_eq!(status(&answer), 303, "{host}: {answer}");
    }
}
