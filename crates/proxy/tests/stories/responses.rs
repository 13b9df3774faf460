//! What responses of the gateway say besides what services say, and what they do not give away.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rig::{Rig, eventually, field, local, raw};

/// A service that says too much. `/status/N/WORDS` answers N with WORDS in its body.
fn talkative(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(talk(stream)));
        }
    });
}

fn talk(mut stream: TcpStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        while !read.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            read.extend_from_slice(&buffer[..n]);
        }
        let head = String::from_utf8_lossy(&std::mem::take(&mut read)).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let mut parts = path.splitn(4, '/').skip(2);
        let (status, words) = (parts.next().unwrap_or("200"), parts.next().unwrap_or("ok"));
        let words = words.replace("%20", " ").replace('+', " ");
        let (kind, body) = match words.strip_prefix("long-") {
            Some(words) => ("text/plain", format!("{}{words}", "x".repeat(40_000))),
            None if words.starts_with("picture") => ("image/png", words.clone()),
            None => ("text/html", words.clone()),
        };
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nServer: secretd/1.2.3\r\nX-Powered-By: PHP/8.1\r\nX-Frame-Options: ALLOWALL\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}

fn fence(port: u16, gateway: &str, route: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off{gateway} }}
external:
  portal: {{ address: 127.0.0.1:{port}, tls: off, routes: [{{ path: /{route} }}] }}
"
    )
}

fn world(gateway: &str, route: &str) -> Rig {
    let (listener, port) = local();
    talkative(listener);
    Rig::start(&fence(port, gateway, route))
}

fn ask(rig: &Rig, request: &str) -> (u16, HashMap<String, String>, String) {
    let text = format!("{request}Host: x\r\nConnection: close\r\n\r\n");
    let answer = raw(TcpStream::connect(rig.gateway).unwrap(), text.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut fields = HashMap::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        let name = name.to_ascii_lowercase();
        assert!(name == "vary" || fields.insert(name, value.to_owned()).is_none(), "twice: {head}");
    }
    (head.split(' ').nth(1).unwrap_or("0").parse().unwrap(), fields, body.to_owned())
}

fn get(rig: &Rig, path: &str) -> (u16, HashMap<String, String>, String) {
    ask(rig, &format!("GET {path} HTTP/1.1\r\n"))
}

#[test]
fn banners_stay_here_and_headers_are_what_the_fence_says() {
    let rig = world(
        ", headers: { csp: \"default-src 'self'\", frame: deny, nosniff: true, hsts: 30d }",
        ", headers: { referrer: no-referrer }",
    );
    let (status, fields, _) = get(&rig, "/a");
    assert_eq!(status, 200);
    for banner in ["server", "x-powered-by"] {
        assert!(!fields.contains_key(banner), "{fields:?}");
    }
    for (name, value) in [
        ("content-security-policy", "default-src 'self'"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{fields:?}");
    }
    assert!(!fields.contains_key("strict-transport-security"), "no TLS, no such promise: {fields:?}");
    // An answer of the gateway's own has them too.
    let (status, fields, _) = get(&rig, "/%2f");
    assert_eq!(status, 400, "refused before it is known whose it is: {fields:?}");
    let plain = world("", "");
    let (_, fields, _) = get(&plain, "/a");
    assert_eq!(fields.get("x-frame-options").map(String::as_str), Some("ALLOWALL"), "nothing was said");
    assert!(!fields.contains_key("x-content-type-options") && !fields.contains_key("server"), "{fields:?}");
}

#[test]
fn errors_say_nothing_of_what_runs_behind_them() {
    let rig = world("", "");
    for (words, rule) in [
        ("Traceback%20(most%20recent%20call%20last):", "hygiene.python"),
        ("java.lang.NullPointerException", "hygiene.java"),
        ("You%20have%20an%20error%20in%20your%20SQL%20syntax", "hygiene.sql"),
        ("panic:%20runtime%20error", "hygiene.go"),
    ] {
        let (status, fields, body) = get(&rig, &format!("/status/500/{words}"));
        assert_eq!(status, 500);
        assert_eq!(fields["content-type"], "application/problem+json", "{body}");
        assert!(!body.contains(&words.replace("%20", " ")), "{body}");
        rig.event(rule, |r| field(r, "/firewall_rule/uid") == rule);
    }
    // What is no secret passes as it came, and so does whatever is no error, or nothing that people read.
    for (path, status, said) in [
        ("/status/503/we%20are%20closed", 503, "we are closed"),
        ("/status/200/Traceback%20(most%20recent%20call%20last):", 200, "Traceback (most recent call last):"),
        ("/status/404/java.lang.String", 404, "java.lang.String"),
        ("/status/500/picture-java.lang.String", 500, "picture-java.lang.String"),
    ] {
        let (found, _, body) = get(&rig, path);
        assert_eq!((found, body.as_str()), (status, said), "{path}");
    }
    // Far behind the beginning nobody looks, and nothing is lost of what is long.
    let (status, _, body) = get(&rig, "/status/500/long-java.lang.String");
    assert_eq!((status, body.len()), (500, 40_000 + "java.lang.String".len()));
}

#[test]
fn who_only_watches_changes_nothing_and_tells() {
    let rig = world(", hygiene: observe", "");
    let (status, fields, body) = get(&rig, "/status/500/java.lang.NullPointerException");
    assert_eq!((status, body.as_str()), (500, "java.lang.NullPointerException"));
    assert_eq!(fields["server"], "secretd/1.2.3");
    rig.event("what would have been masked", |r| {
        r.json.to_string().contains("hygiene.java") && r.json.to_string().contains("hygiene.banner")
    });
    let rig = world(", hygiene: off", "");
    let (_, fields, body) = get(&rig, "/status/500/java.lang.NullPointerException");
    assert_eq!(
        (fields["server"].as_str(), body.as_str()),
        ("secretd/1.2.3", "java.lang.NullPointerException")
    );
}

#[test]
fn the_gateway_answers_what_browsers_ask_before_and_says_who_may_read() {
    let rig = world(
        "",
        ", cors: { origins: [https://app.example], methods: [GET, PUT], headers: [x-id], credentials: true, expose: [etag], max_age: 5m }",
    );
    let preflight = |origin: &str, method: &str, more: &str| {
        ask(
            &rig,
            &format!(
                "OPTIONS /a HTTP/1.1\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n{more}"
            ),
        )
    };
    let (status, fields, body) =
        preflight("https://app.example", "PUT", "Access-Control-Request-Headers: X-Id\r\n");
    assert_eq!((status, body.as_str()), (204, ""));
    assert!(!fields.contains_key("content-length"), "{fields:?}");
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-id"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "300"),
    ] {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{fields:?}");
    }
    for (origin, method, more) in [
        ("https://evil.example", "PUT", ""),
        ("https://app.example.evil.example", "GET", ""),
        ("null", "GET", ""),
        ("https://app.example", "DELETE", ""),
        ("https://app.example", "PUT", "Access-Control-Request-Headers: x-id, x-other\r\n"),
    ] {
        let (status, fields, _) = preflight(origin, method, more);
        assert_eq!(status, 403, "{origin} {method} {more}");
        assert!(!fields.keys().any(|name| name.starts_with("access-control-")), "{fields:?}");
    }
    rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "cors.refused");
    let (_, fields, _) = ask(&rig, "GET /a HTTP/1.1\r\nOrigin: https://app.example\r\n");
    assert_eq!(fields["access-control-allow-origin"], "https://app.example", "in place of the service's own");
    assert_eq!(fields["access-control-expose-headers"], "etag");
    let (_, fields, _) = ask(&rig, "GET /a HTTP/1.1\r\nOrigin: https://evil.example\r\n");
    assert!(!fields.contains_key("access-control-allow-origin"), "{fields:?}");
    // Where the fence says nothing, the service answers for itself.
    let rig = world("", "");
    let (status, fields, _) = ask(
        &rig,
        "OPTIONS /a HTTP/1.1\r\nOrigin: https://b.example\r\nAccess-Control-Request-Method: GET\r\n",
    );
    assert_eq!((status, fields["access-control-allow-origin"].as_str()), (200, "*"));
}

#[test]
fn browsers_report_what_a_policy_stopped_and_few_of_it_is_told() {
    let rig = world(", headers: { csp_report_only: \"script-src 'self'\", csp_reports: true }", "");
    let (_, fields, _) = get(&rig, "/a");
    let policy = &fields["content-security-policy-report-only"];
    assert_eq!(policy, "script-src 'self'; report-uri /.ringfence/csp");
    let post = |body: &str| {
        let text = format!(
            "POST /.ringfence/csp HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        raw(TcpStream::connect(rig.gateway).unwrap(), text.as_bytes())
    };
    let body = r#"{"csp-report":{"document-uri":"https://clinic.example/x?secret=1","effective-directive":"script-src","blocked-uri":"https://evil.example/a.js"}}"#;
    assert!(post(body).starts_with("HTTP/1.1 204"));
    let event = rig.event("the report", |r| r.json.to_string().contains("csp.report"));
    let text = event.json.to_string();
    assert!(text.contains("https://evil.example/a.js") && !text.contains("secret=1"), "{text}");
    assert!(post("no report").starts_with("HTTP/1.1 400"));
    assert!(post(&format!("\"{}\"", "x".repeat(20_000))).starts_with("HTTP/1.1 413"));
    let begun = Instant::now();
    for _ in 0..200 {
        assert!(post(body).starts_with("HTTP/1.1 204"));
    }
    let told = || rig.events().iter().filter(|r| r.json.to_string().contains("csp.report")).count();
    eventually("events", || (told() > 1).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    // A few, and one every other second.
    let most = 100 + begun.elapsed().as_secs() as usize;
    assert!(told() < most, "{} of 201 were told", told());
    // Where nobody asked for reports there is no such place.
    let rig = world("", "");
    assert_eq!(get(&rig, "/.ringfence/csp").0, 404);
}

#[test]
fn a_request_has_one_method() {
    let rig = world("", "");
    for path in ["/a?_method=DELETE", "/a?x=1&%5Fmethod=PUT", "/a?X-HTTP-Method-Override=DELETE"] {
        assert_eq!(ask(&rig, &format!("POST {path} HTTP/1.1\r\nContent-Length: 0\r\n")).0, 400, "{path}");
    }
    rig.event("the claim", |r| field(r, "/firewall_rule/uid") == "method.override" && r.denied());
    assert_eq!(ask(&rig, "POST /b?_method=POST HTTP/1.1\r\nContent-Length: 0\r\n").0, 200, "says what it is");
    for name in ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method", "X_HTTP_Method_Override"] {
        let path = format!("/{}", name.to_ascii_lowercase());
        assert_eq!(
            ask(&rig, &format!("POST {path} HTTP/1.1\r\n{name}: DELETE\r\nContent-Length: 0\r\n")).0,
            200
        );
        let event = rig.event("what was dropped", |r| field(r, "/http_request/url/path") == path);
        assert_eq!(field(&event, "/firewall_rule/uid"), "header.spoofed", "{name}");
    }
}

#[test]
fn over_tls_the_usual_headers_are_there_unless_the_service_says_otherwise() {
    let (listener, port) = local();
    talkative(listener);
    let yaml = fence(port, "", "").replace(", tls: off }\nexternal", ", hosts: [clinic.test] }\nexternal");
    let rig = Rig::start(&yaml);
    let ca = rig.dir.path().join("ca.pem");
    std::fs::write(&ca, crate::walls::pem(&rig.control.authority.lock().unwrap())).unwrap();
    let ca = Arc::new(ca);
    for version in ["--http1.1", "--http2"] {
        let out = std::process::Command::new("curl")
            .args(["--silent", "--show-error", "--include", version, "--cacert"])
            .arg(&*ca)
            .args(["--resolve", &format!("clinic.test:{}:127.0.0.1", rig.gateway.port())])
            .arg(format!("https://clinic.test:{}/a", rig.gateway.port()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).to_ascii_lowercase();
        for line in [
            "strict-transport-security: max-age=31536000\r\n",
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: strict-origin-when-cross-origin\r\n",
            "x-frame-options: allowall\r\n",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{version}: {line}: {text}");
        }
        assert!(!text.contains("secretd") && !text.contains("x-frame-options: sameorigin"), "{text}");
    }
}
