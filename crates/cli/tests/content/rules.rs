//! A rule set beside a running fence.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::RULE;
use crate::running::{Clinic, Who, eventually, text};

const SOON: Duration = Duration::from_secs(30);

const ECHO: &str = "
import http.server
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('', 9000), Echo).serve_forever()
";

const FENCE: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443 }
waf:
  crs: crs
services:
  portal:
    run: [python3, app/echo.py]
    listen: 9000
    ready: tcp
    routes: [{ path: / }, { path: /prose, waf: observe }, { path: /static, waf: off }]
";

fn start() -> Clinic {
    Clinic::start_fence(Who::Root, FENCE, Vec::new(), |folder| {
        std::fs::create_dir_all(folder.join("crs/rules")).unwrap();
        std::fs::create_dir(folder.join("app")).unwrap();
        write(folder, "app/echo.py", ECHO);
        write(folder, "crs/rules/words.conf", RULE);
        write(folder, "crs/rules/words.data", "evil\n");
    })
}

fn write(folder: &Path, name: &str, text: &str) {
    // As editors do: whoever looks sees the old file or the new.
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

/// How long until a path is answered so.
fn until(clinic: &Clinic, path: &str, wanted: u16) -> Duration {
    let begun = Instant::now();
    let found = eventually(2 * SOON, || (clinic.get(path).0 == wanted).then(|| begun.elapsed()));
    let found =
        found.unwrap_or_else(|| panic!("{path}: {:?}, not {wanted}\n{}", clinic.get(path), clinic.said()));
    clinic.settle();
    found
}

/// The id of the event that tells of a refusal.
fn refusal(clinic: &Clinic, path: &str) -> String {
    let (status, body) = clinic.get(path);
    assert_eq!(status, 403, "{path}: {body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert!(
        !body.contains("1001") && !body.contains("ARGS"),
        "a client is not told which rule it was: {body}"
    );
    problem["instance"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
}

/// Waits until the node has so many files on disk: it tidies up once the new ones are in force.
fn keeps(clinic: &Clinic, wanted: usize) {
    let folder = clinic.folder.join(".ringfence/proxy/content");
    let kept = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    assert!(eventually(SOON, || (kept() == wanted).then_some(())).is_some(), "{} files", kept());
}

#[test]
fn rules_are_in_force_as_they_are_written_and_those_of_before_where_they_cannot_be_read() {
    let clinic = start();
    assert_eq!(clinic.get("/?q=fine").0, 200);
    assert_eq!(clinic.get("/static?q=evil").0, 200, "nobody looks there");
    let id = refusal(&clinic, "/?q=EVIL");
    keeps(&clinic, 2);

    let explained = eventually(SOON, || {
        let output = clinic.ringfence(&["waf", "explain", &id]);
        output.status.success().then(|| text(&output.stdout))
    });
    let explained = explained.expect("an event");
    for said in [
        "waf.1001",
        "A word that nobody says",
        "lowercase",
        "ARGS:q",
        "evil",
        "crs/rules/words.conf:2",
        "@pmFromFile",
        "refused",
        "ringfence.yaml:4:1",
    ] {
        assert!(explained.contains(said), "{said} is missing in\n{explained}");
    }
    let found = clinic.json(&["waf", "explain", &id, "--json"]);
    let finding = &found["events"][0]["findings"][0];
    assert_eq!((&finding["rule"], &finding["target"]), (&"waf.1001".into(), &"ARGS:q".into()));
    assert_eq!(finding["stands"]["line"], 2);
    assert_eq!(clinic.ringfence(&["waf", "explain", "nonsense"]).status.code(), Some(2));
    let nobody = "00000000-0000-7000-8000-000000000000";
    assert_eq!(clinic.ringfence(&["waf", "explain", nobody]).status.code(), Some(1));

    write(&clinic.folder, "crs/rules/words.data", "evil\nwicked\n");
    let changed = until(&clinic, "/?q=wicked", 403);
    println!("rules changed on disk were in force after {changed:?}");
    assert_eq!(clinic.ringfence(&["check"]).status.code(), Some(0));

    write(
        &clinic.folder,
        "crs/rules/words.conf",
        &RULE.replace("@pmFromFile words.data", "@pmFromFile lost.data"),
    );
    let refused = eventually(SOON, || {
        let status = clinic.json(&["status", "--json"]);
        status["report"]["rejected"].as_str().map(str::to_owned)
    });
    let refused = refused.expect("the operator is told");
    assert!(refused.contains("crs/rules/words.conf:2:"), "{refused}");
    assert!(
        clinic.event(SOON, |e| e["message"].as_str().is_some_and(|m| m.contains("words.conf:2:"))).is_some()
    );
    let check = clinic.ringfence(&["check"]);
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check.stderr).contains("crs/rules/words.conf:2:"), "{}", text(&check.stderr));
    assert_eq!((clinic.get("/?q=wicked").0, clinic.get("/?q=fine").0), (403, 200), "those of before stay");

    // Whoever starts anew gets them from its own disk, or again.
    for name in ["node", "control"] {
        let pid = clinic.process(name);
        assert!(
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
        );
        until(&clinic, "/?q=fine", 200);
        // A thread that does not serve yet may answer 503; one that lets this pass is wrong at any moment.
        let refused = eventually(SOON, || {
            let status = clinic.get("/?q=wicked").0;
            assert_ne!(status, 200, "{name} started again");
            (status == 403).then_some(())
        });
        assert!(refused.is_some(), "{name} started again");
    }
    write(&clinic.folder, "crs/rules/words.conf", RULE);
    write(&clinic.folder, "crs/rules/words.data", "naughty\n");
    until(&clinic, "/?q=naughty", 403);
    // Each thread of the gateway turns to the new ones in its own moment.
    until(&clinic, "/?q=wicked", 200);
    keeps(&clinic, 2);
    assert_eq!(clinic.stop(), [""; 0]);
}

#[test]
fn what_rules_should_not_have_found_is_proposed_as_an_exclusion_that_can_be_pasted() {
    let clinic = start();
    assert_eq!(clinic.get("/prose/7?note=evil").0, 200, "it is only watched");
    refusal(&clinic, "/people/17?q=evil");
    let tune = |more: &[&str]| clinic.json(&[&["waf", "tune", "--json"], more].concat());
    let proposals = eventually(SOON, || {
        let found = tune(&["--clients", "1"])["proposals"].as_array().cloned()?;
        (found.len() == 2).then_some(found)
    });
    let proposals = proposals.expect("two proposals");
    let of = |path: &str| proposals.iter().find(|p| p["path"] == path).unwrap();
    assert_eq!((&of("/prose/*")["refused"], &of("/people/*")["refused"]), (&0.into(), &1.into()));
    assert_eq!(
        (of("/people/*")["rule"].as_u64(), of("/people/*")["clients"].as_u64()),
        (Some(1001), Some(1))
    );
    assert_eq!(tune(&[])["proposals"], Value::Array(Vec::new()), "one client is no proof");
    assert_eq!(tune(&[])["fewer_clients"], 2);
    assert_eq!(
        tune(&["--clients", "1", "--since", "2999-01-01T00:00:00Z"])["proposals"],
        Value::Array(Vec::new())
    );

    let page = text(&clinic.ringfence(&["waf", "tune", "--clients", "1"]).stdout);
    assert!(page.contains("# 1 request of 1 client, 1 refused: A word that nobody says: evil"), "{page}");
    let fence = std::fs::read_to_string(clinic.folder.join("ringfence.yaml")).unwrap();
    let lines: String =
        page.lines().skip_while(|line| *line != "  exclude:").map(|line| format!("{line}\n")).collect();
    write(&clinic.folder, "ringfence.yaml", &fence.replace("  crs: crs\n", &format!("  crs: crs\n{lines}")));
    until(&clinic, "/people/17?q=evil", 200);
    assert_eq!(clinic.get("/elsewhere?q=evil").0, 403, "only there");
    assert_eq!(clinic.get("/people/17?other=evil").0, 403, "only in that variable");
    assert_eq!(clinic.stop(), [""; 0]);
}
