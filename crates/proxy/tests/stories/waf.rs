//! Attacks on routes that are inspected: what is refused, what is only told, what is left alone.

use std::net::TcpStream;
use std::time::Duration;

use ringfence_event::Record;

use crate::grpc::{client, runtime};
use crate::net::echo;
use crate::patience::HELP;
use crate::rig::{Rig, eventually, field, get, local, raw};

/// A small rule set in the form of the Core Rule Set: rules add to a score, and one refuses by it.
const RULES: &str = r#"
SecRule REQUEST_HEADERS:User-Agent "@contains evilbot" "id:100,phase:1,deny,status:403,msg:'A bad client'"
SecRule REQUEST_HEADERS:Authorization|REQUEST_COOKIES "@contains stolen" "id:110,phase:1,pass,msg:'A credential',setvar:'tx.inbound_anomaly_score_pl1=+1'"
SecRule REQUEST_URI_RAW "@contains /../" "id:120,phase:1,pass,msg:'A way up',setvar:'tx.inbound_anomaly_score_pl1=+5'"
SecRule REQUEST_FILENAME "@streq /files/secret" "id:130,phase:1,pass,msg:'A secret file',setvar:'tx.inbound_anomaly_score_pl1=+5'"
SecRule ARGS|XML:/* "@contains union select" "id:200,phase:2,pass,t:none,t:urlDecodeUni,t:lowercase,tag:'attack-sqli',msg:'SQL injection',setvar:'tx.inbound_anomaly_score_pl1=+5'"
SecRule ARGS "@contains <script" "id:210,phase:2,pass,t:none,t:lowercase,tag:'attack-xss',msg:'A script',setvar:'tx.inbound_anomaly_score_pl1=+5'"
SecAction "id:890,phase:2,pass,nolog,setvar:'tx.blocking_inbound_anomaly_score=+%{tx.inbound_anomaly_score_pl1}'"
SecRule TX:blocking_inbound_anomaly_score "@ge %{tx.inbound_anomaly_score_threshold}" "id:900,phase:2,deny,status:403,msg:'Too high a score'"
SecRule RESPONSE_HEADERS:X-Debug "@streq on" "id:300,phase:3,deny,status:403,msg:'A debugger answers'"
SecRule RESPONSE_BODY "@contains BEGIN PRIVATE KEY" "id:310,phase:4,deny,status:403,msg:'A key leaks'"
"#;

pub fn fence(port: u16, waf: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
waf: {{ crs: crs{waf} }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes: [{{ path: / }}, {{ path: /watched, waf: observe }}, {{ path: /open, waf: off }}]
"
    )
}

/// A node whose routes are inspected by [`RULES`].
pub fn start(port: u16, waf: &str) -> Rig {
    let rig = Rig::bare(tempfile::tempdir().unwrap());
    rig.connect_control();
    rig.give("crs/rules/test.conf", RULES.as_bytes());
    rig.apply(&fence(port, waf));
    rig
}

pub fn dial(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.gateway).unwrap()
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

fn post(rig: &Rig, path: &str, kind: &str, body: &str) -> String {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\n");
    raw(dial(rig), format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
}

/// The event of a refusal by this rule.
fn refusal(rig: &Rig, rule: &str) -> Record {
    rig.event(rule, |r| field(r, "/firewall_rule/uid") == rule)
}

#[test]
fn attacks_are_refused_wherever_they_stand_and_the_event_explains_them() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    assert_eq!(status(&get(dial(&rig), "a", "/search?q=harmless")), 200);
    assert_eq!(status(&post(&rig, "/", "application/json", r#"{"a":{"b":"union workers"}}"#)), 200);
    let form = "application/x-www-form-urlencoded";
    for answer in [
        get(dial(&rig), "a", "/search?q=1+UNION%20SELECT+name"),
        post(&rig, "/", form, "a=1&q=1+union+select+1"),
        post(&rig, "/", "application/json", r#"{"a":{"b":"1 union \u0073elect 1"}}"#),
        post(&rig, "/", "application/xml", "<a>1 union select 1</a>"),
        post(
            &rig,
            "/",
            "multipart/form-data; boundary=x",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1 union select 1\r\n--x--\r\n",
        ),
    ] {
        assert_eq!(status(&answer), 403, "{answer}");
        assert!(answer.contains("application/problem+json") && !answer.contains("union"), "{answer}");
    }
    // Connections are told in any order; this is the one whose path is known.
    let event = rig.event("the search's refusal", |r| {
        field(r, "/firewall_rule/uid") == "waf.200" && field(r, "/http_request/url/path") == "/search"
    });
    assert_eq!(field(&event, "/unmapped/stage"), "inspect");
    assert_eq!(field(&event, "/unmapped/position"), "ringfence.yaml:4:1");
    assert!(
        field(&event, "/status_detail").starts_with("SQL injection in ARGS:q; the score is 5 of 5"),
        "{}",
        event.json
    );
    let found = &event.json["unmapped"]["findings"][0];
    assert_eq!((found["rule"].as_str(), found["target"].as_str()), (Some("waf.200"), Some("ARGS:q")));
    assert_eq!((found["value"].as_str(), found["score"].as_u64()), (Some("1 union select name"), Some(5)));
    assert_eq!(found["transformations"], serde_json::json!(["urlDecodeUni", "lowercase"]));
    assert_eq!(found["observed"], serde_json::Value::Null);
    // A body that no parser understands is no way past them.
    assert_eq!(status(&post(&rig, "/", "application/json", r#"{"a":"b"#)), 400);
}

#[test]
fn what_is_only_watched_passes_and_is_told_and_what_is_off_is_not_even_told() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    assert_eq!(status(&get(dial(&rig), "a", "/watched?q=union+select")), 200);
    let event = rig.event("the call", |r| field(r, "/http_request/url/path") == "/watched");
    assert_eq!(field(&event, "/unmapped/observed/0"), "waf.200");
    assert_eq!(field(&event, "/unmapped/observed_verdict"), "deny");
    assert_eq!(event.json["unmapped"]["findings"][0]["observed"], true);
    assert_eq!(status(&post(&rig, "/watched", "application/json", r#"{"q":"union select"}"#)), 200);
    assert_eq!(status(&get(dial(&rig), "a", "/open?q=union+select")), 200);
    let event = rig.event("the call", |r| field(r, "/http_request/url/path") == "/open");
    assert_eq!(event.json["unmapped"]["findings"], serde_json::Value::Null);
    // By another fence, what was watched is refused.
    rig.apply(&fence(port, "").replace("waf: observe", "waf: enforce"));
    assert_eq!(status(&get(dial(&rig), "a", "/watched?q=union+select")), 403);
    rig.apply(&fence(port, ", mode: observe"));
    assert_eq!(status(&get(dial(&rig), "a", "/?q=union+select")), 200);
}

#[test]
fn secrets_are_not_told_and_low_scores_pass() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    let answer = raw(
        dial(&rig),
        b"GET /low HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer stolen-abc\r\nCookie: sid=stolen-def\r\n\r\n",
    );
    assert_eq!(status(&answer), 200);
    let event = rig.event("the call", |r| field(r, "/http_request/url/path") == "/low");
    assert_eq!(field(&event, "/unmapped/findings/0/rule"), "waf.110");
    assert!(!event.json.to_string().contains("stolen"), "{}", event.json);
}

#[test]
fn rules_see_the_path_that_is_sent_and_the_one_that_came() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    assert_eq!(status(&get(dial(&rig), "a", "/a/../b")), 403, "as it came");
    refusal(&rig, "waf.120");
    assert_eq!(status(&get(dial(&rig), "a", "/files/%73ecret")), 403, "as it is sent");
    refusal(&rig, "waf.130");
    let h2 = |path: &'static str| {
        runtime().block_on(async {
            let mut send = client(rig.gateway).await;
            let request = http::Request::get(format!("http://a{path}")).body(()).unwrap();
            send.send_request(request, true).unwrap().0.await.unwrap().status().as_u16()
        })
    };
    assert_eq!((h2("/?q=1"), h2("/?q=union%20select"), h2("/files/%73ecret")), (200, 403, 403));
}

#[test]
fn exclusions_hold_for_their_rules_targets_and_paths_until_they_end() {
    let (listener, port) = local();
    echo(listener);
    let exclude = |list: &str| format!(", exclude: [{list}]");
    let (next, over) = ("2999-01-01", "2020-01-01");
    let by_target =
        format!("{{ rules: [200], target: \"ARGS:q\", path: /search, reason: text, until: {next} }}");
    let rig = start(port, &exclude(&by_target));
    let ask = |path: &str| status(&get(dial(&rig), "a", path));
    assert_eq!(ask("/search?q=union+select"), 200);
    assert_eq!(ask("/search?other=union+select"), 403);
    assert_eq!(ask("/else?q=union+select"), 403);
    assert_eq!(ask("/search?q=<script>"), 403);
    rig.apply(&fence(port, &exclude(&format!("{{ tag: attack-sqli, reason: text, until: {next} }}"))));
    assert_eq!((ask("/else?q=union+select"), ask("/?q=<script>")), (200, 403));
    rig.apply(&fence(port, &exclude(&by_target.replace(next, over))));
    assert_eq!(ask("/search?q=union+select"), 403, "it is over");
    // An exclusion of what is not there any more excludes nothing, and is no reason to go on without the rest.
    rig.apply(&fence(port, &exclude(&by_target.replace("200", "777"))));
    assert_eq!((ask("/search?q=union+select"), ask("/search?q=1")), (403, 200));
}

#[test]
fn rules_that_cannot_be_read_are_not_put_in_force() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    rig.give("crs/rules/test.conf", b"SecRule ARGS \"@nonsense\" \"id:1\"\n");
    let (revision, signed) = rig.control.snapshot(&fence(port, ""));
    rig.send(&signed);
    let answer = eventually("an answer", || {
        rig.control.answers.lock().unwrap().iter().find(|(r, _)| *r == revision).cloned()
    });
    assert!(answer.1.as_ref().is_some_and(|why| why.contains("crs/rules/test.conf:1:")), "{answer:?}");
    assert_eq!(status(&get(dial(&rig), "a", "/?q=union+select")), 403, "the rules of before");
    // Other rules take the place of those of before.
    rig.give("crs/rules/test.conf", b"SecRule ARGS \"@contains x\" \"id:1,phase:2,deny,status:403\"\n");
    rig.apply(&fence(port, ""));
    assert_eq!(status(&get(dial(&rig), "a", "/?q=union+select")), 200);
    assert_eq!(status(&get(dial(&rig), "a", "/?q=x")), 403);
}

#[test]
fn answers_are_inspected_where_that_is_asked_for() {
    let (listener, port) = local();
    leaky(listener);
    let rig = start(port, ", responses: true");
    let ask = |path: &str| get(dial(&rig), "a", path);
    let answer = ask("/fine");
    assert!(status(&answer) == 200 && answer.ends_with("fine"), "{answer}");
    let answer = ask("/key");
    assert!(status(&answer) == 403 && !answer.contains("PRIVATE"), "{answer}");
    refusal(&rig, "waf.310");
    assert_eq!(status(&ask("/packed")), 403, "compressed");
    assert_eq!(status(&ask("/debug")), 403);
    refusal(&rig, "waf.300");
    // Of what is longer than the rules look at, the head counts.
    let long = ask("/long");
    assert!(status(&long) == 200 && long.len() > 1 << 20, "{}", long.len());
    assert_eq!(status(&ask("/watched/key")), 200);
    // Kinds that the rules do not look at stream.
    let mut stream = dial(&rig);
    stream.set_read_timeout(Some(HELP)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: 1\n\n\r\n") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
        seen.push(byte[0]);
    }
    drop(stream);
    rig.apply(&fence(port, ""));
    assert_eq!(status(&ask("/key")), 200, "not asked for");
}

/// Answers that should not leave the house.
fn leaky(listener: std::net::TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(leak(stream)));
        }
    });
}

fn leak(mut stream: TcpStream) -> std::io::Result<()> {
    use std::io::{BufRead, Write};
    let mut lines = std::io::BufReader::new(stream.try_clone()?).lines();
    let head = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let key = b"-----BEGIN PRIVATE KEY-----";
    let (more, body) = match path.as_str() {
        "/key" | "/watched/key" => ("Content-Type: text/plain\r\n", key.to_vec()),
        "/debug" => ("X-Debug: on\r\nContent-Type: text/plain\r\n", b"x".to_vec()),
        "/packed" => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(key)?;
            ("Content-Type: text/html\r\nContent-Encoding: gzip\r\n", packed.finish()?)
        }
        "/long" => ("Content-Type: text/html\r\n", vec![b'x'; (1 << 20) + 7]),
        "/events" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")?;
            std::thread::sleep(Duration::from_secs(3));
            return Ok(());
        }
        _ => ("Content-Type: text/html\r\n", b"fine".to_vec()),
    };
    let head =
        format!("HTTP/1.1 200 OK\r\n{more}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat())
}
