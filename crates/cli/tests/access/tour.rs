//! The example as README shows it: people sign in by browser, a patient sees one record, a clerk no diagnosis, a laboratory has a key,
//! a nightly job a token, and each refusal explains itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::running::{Clinic, Who, eventually, services, text, workspace};

const SOON: Duration = Duration::from_secs(30);

/// The clinic with its provider, as `cargo xtask demo` brings it up, at another port.
fn clinic(who: Who) -> Clinic {
    let example = workspace().join("examples/clinic");
    let fence = std::fs::read_to_string(example.join("ringfence.yaml")).unwrap();
    Clinic::start_fence(who, &fence, Vec::new(), |folder| {
        services(folder);
        for name in ["policies", "openapi", "services/id"] {
            let done = Command::new("cp").arg("-r").arg(example.join(name)).arg(folder.join(name)).status();
            assert!(done.unwrap().success());
        }
        assert!(
            folder.join("services/id/node_modules").is_dir(),
            "`cargo xtask test` installs what the provider needs into examples/clinic/services/id"
        );
    })
}

/// Somebody with a browser: cookies are kept, redirects are followed.
struct Browser<'a> {
    clinic: &'a Clinic,
    jar: PathBuf,
}

impl<'a> Browser<'a> {
    fn new(clinic: &'a Clinic, name: &str) -> Self {
        let jar = std::env::temp_dir().join(format!("ringfence-jar-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&jar);
        Self { clinic, jar }
    }

    fn curl(&self, path: &str, options: &[&str]) -> Output {
        let origin = format!("https://localhost:{}", self.clinic.port);
        let url = if path.starts_with('/') { format!("{origin}{path}") } else { path.to_owned() };
        Command::new("curl")
            .args([
                "-s",
                "--max-time",
                "60",
                "-H",
                "accept: text/html",
                "-w",
                "\n%{http_code} %{url_effective}",
            ])
            .arg("--cacert")
            .arg(self.clinic.folder.join(".ringfence/ca.pem"))
            .args(["-b".as_ref(), self.jar.as_os_str(), "-c".as_ref(), self.jar.as_os_str()])
            .args(options)
            .arg(url)
            .output()
            .unwrap()
    }

    /// Status, body, and where it ended.
    fn ask(&self, path: &str, options: &[&str]) -> (u16, String, String) {
        let said = text(&self.curl(path, options).stdout);
        let (body, last) = said.rsplit_once('\n').unwrap();
        let (code, url) = last.split_once(' ').unwrap();
        (code.parse().unwrap(), body.to_owned(), url.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (code, body, _) = self.ask(path, &["-L"]);
        (code, body)
    }

    /// Asks for a page, is sent to the provider, and signs in there; the page that was asked for.
    fn sign_in(&self, user: &str, path: &str) -> (u16, String, String) {
        let (code, form, url) = self.ask(path, &["-L"]);
        assert_eq!((code, form.contains("Clinic sign-in")), (200, true), "{url}: {form}");
        let answer = format!("user={user}&password={user}-secret");
        // Back over the callback as browsers do it: what was posted is not posted again.
        self.ask(&url, &["-L", "--data", &answer])
    }
}

impl Browser<'_> {
    /// Signs out here, and at the provider, which asks once more.
    fn sign_out(&self) {
        let origin = format!("origin: https://localhost:{}", self.clinic.port);
        let (code, page, url) = self.ask("/.ringfence/logout", &["-L", "-H", &origin, "--data", ""]);
        let question = page.split_once("name=\"xsrf\" value=\"").and_then(|(_, rest)| rest.split_once('"'));
        let Some((xsrf, _)) = question else { panic!("{code} {url}: {page}") };
        let confirm = format!("https://id.localhost:{}/session/end/confirm", self.clinic.port);
        let (code, page, url) = self.ask(&confirm, &["-L", "--data", &format!("xsrf={xsrf}&logout=yes")]);
        assert!(code == 200 && url.ends_with("/.ringfence/logged-out"), "{code} {url}: {page}");
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.jar);
    }
}

fn wait_for_provider(clinic: &Clinic) {
    let known =
        || clinic.event(Duration::from_millis(100), |e| e.to_string().contains("its keys are believed"));
    assert!(eventually(SOON, known).is_some(), "{}", clinic.said());
}

fn why(clinic: &Clinic, rule: &str, path: &str) -> String {
    let wanted = |e: &Value| e["firewall_rule"]["uid"] == rule && e["http_request"]["url"]["path"] == path;
    let event = clinic.event(SOON, wanted);
    let event = event
        .unwrap_or_else(|| panic!("no event of {rule}:\n{}", text(&clinic.ringfence(&["events"]).stdout)));
    let trace = event["trace"]["uid"].as_str().unwrap_or_else(|| panic!("{event}"));
    text(&clinic.ringfence(&["why", trace]).stdout)
}

#[test]
fn the_tour_of_the_clinic_shows_who_may_what_and_why_not() {
    let clinic = clinic(Who::Root);
    wait_for_provider(&clinic);

    // A nurse signs in and sees everybody.
    let nora = Browser::new(&clinic, "nora");
    // What control knows of the provider, the gateway learns a moment later.
    let asked = eventually(SOON, || (nora.ask("/patients", &["-L"]).0 == 200).then_some(()));
    assert!(asked.is_some(), "{}", clinic.said());
    clinic.settle_at(&["-H", "accept: text/html"], "/.ringfence/login/staff", 303);
    let (code, page, url) = nora.sign_in("nora", "/patients");
    assert_eq!((code, url.ends_with("/patients")), (200, true), "{url}: {page}\n{}", clinic.said());
    assert!(page.contains("Alma Birch"), "{page}");
    let (code, page) = nora.get("/patients/p-1001");
    assert!(code == 200 && page.contains("hypertension"), "{code} {page}");
    let cookies = std::fs::read_to_string(&nora.jar).unwrap();
    assert!(
        cookies.contains("#HttpOnly_localhost") && !cookies.contains("eyJ"),
        "no token in the browser: {cookies}"
    );

    // A patient sees one record.
    let alma = Browser::new(&clinic, "alma");
    assert_eq!(alma.sign_in("p-1001", "/patients/p-1001").0, 200);
    let (code, other) = alma.get("/patients/p-1002");
    assert!(code == 403 && !other.contains("diabetes"), "{code} {other}");
    let told = why(&clinic, "policy.default", "/patients/p-1002");
    assert!(told.contains("p-1001") && told.contains("GET"), "{told}");

    // Whoever bills gets invoices and names, and no diagnosis.
    let bela = Browser::new(&clinic, "bela");
    let (code, page, _) = bela.sign_in("bela", "/invoices");
    assert!(code == 200 && page.contains("Alma Birch"), "{code} {page}");
    let (_, page) = bela.get("/patients/p-1001");
    assert!(!page.contains("hypertension"), "{page}");
    let told = why(&clinic, "billing-sees-no-diagnosis", "/patients/p-1001");
    for part in ["bela", "portal → patients", "whoever bills needs no health data", "clinic.cedar:"] {
        assert!(told.contains(part), "{part}: {told}");
    }

    laboratory(&clinic, &nora);
    nightly(&clinic);

    // Who signs out is out, and so is whoever is revoked.
    alma.sign_out();
    let out = eventually(SOON, || {
        Some(alma.get("/patients/p-1001")).filter(|seen| seen.1.contains("Clinic sign-in"))
    });
    assert!(out.is_some_and(|(code, _)| code == 200), "{:?}", alma.get("/patients/p-1001"));
    let revoked = clinic.ringfence(&["revoke", "user", "staff", "nora"]);
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    // To the sign-in again; that the provider still knows her there is between the two of them.
    let gone = || (nora.ask("/patients/p-1001", &[]).0 == 303).then_some(());
    assert!(eventually(SOON, gone).is_some(), "a revoked session ends");
    drop((nora, alma, bela));
    assert_eq!(clinic.stop(), [""; 0]);
}

fn laboratory(clinic: &Clinic, nora: &Browser<'_>) {
    let key = |name: &str, scopes: &str| {
        let made = clinic.ringfence(&["key", "create", "--client", name, "--scopes", scopes, "--json"]);
        let made: Value =
            serde_json::from_slice(&made.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&made.stderr)));
        made["key"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    };
    let send = |key: &str, kind: &str, body: &str| {
        let (field, kind) = (format!("authorization: ApiKey {key}"), format!("content-type: {kind}"));
        let said =
            clinic.curl(&["-H", &field, "-H", &kind, "-d", body, "-w", "\n%{http_code}", "/lab/results"]);
        let said = text(&said.stdout);
        let (body, code) = said.rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    };
    let json = "application/json";
    let report = |key: &str| send(key, json, r#"{"patient":"p-1001","test":"HbA1c","value":"5.4 %"}"#).0;
    assert_eq!(report("none"), "401");
    let (lab, reader) = (key("lab", "results"), key("reader", "read"));
    // A key counts a moment after it was made.
    assert!(eventually(SOON, || (report(&reader) == "403").then_some(())).is_some());
    assert_eq!(report(&lab), "201");
    assert!(nora.get("/patients/p-1001").1.contains("HbA1c 5.4 %"));

    // What is not as described, and what is an attack, reaches no service.
    let (code, problem) = send(&lab, json, r#"{"patient":"p-1001","test":"HbA1c","value":5.4}"#);
    assert!(code == "400" && problem.contains("/value"), "{code} {problem}");
    assert_eq!(send(&lab, "text/csv", "p-1001;HbA1c").0, "415");
    let (code, problem) =
        send(&lab, json, r#"{"patient":"p-1001","test":"x' union select name from patients--","value":"1"}"#);
    assert!(code == "403" && !problem.contains("waf"), "{code} {problem}");
    let blocked = clinic.event(SOON, |e| {
        let rule = e["firewall_rule"]["uid"].as_str().unwrap_or_default();
        rule.starts_with("waf.") && e["http_request"]["url"]["path"] == "/lab/results"
    });
    let blocked = blocked.expect("an event");
    let id = blocked["metadata"]["uid"].as_str().unwrap_or_else(|| panic!("{blocked}"));
    let told = text(&clinic.ringfence(&["waf", "explain", id]).stdout);
    assert!(told.contains("ringfence.yaml:") && told.contains("ARGS:json.test"), "{told}");
    // Ten at once are let pass, and no more than one in a second from then on: as one client sends them, one right after another.
    let field = format!("authorization: ApiKey {lab}");
    let body = r#"{"patient":"p-1001","test":"HbA1c","value":"5.4 %"}"#;
    let place = format!("https://127.0.0.1:{}/lab/results", clinic.port);
    let mut options =
        vec!["-H", &field, "-H", "content-type: application/json", "-d", body, "-w", "\n%{http_code}\n"];
    options.extend(std::iter::repeat_n(&*place, 39));
    options.push("/lab/results");
    let flood = || text(&clinic.curl(&options).stdout).lines().any(|line| line == "429").then_some(());
    assert!(eventually(SOON, flood).is_some(), "nobody is told to wait");
}

fn nightly(clinic: &Clinic) {
    let ca = clinic.folder.join(".ringfence/ca.pem");
    let token = |secret: &str| {
        let said = Command::new("curl")
            .args(["-s", "--max-time", "60", "--cacert"])
            .arg(Path::new(&ca))
            .args(["-u", &format!("nightly:{secret}"), "-d", "grant_type=client_credentials&scope=agenda"])
            .arg(format!("https://id.localhost:{}/token", clinic.port))
            .output()
            .unwrap();
        let said: Value =
            serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&said.stdout)));
        said["access_token"].as_str().map(ToOwned::to_owned)
    };
    assert_eq!(token("wrong"), None);
    let field = format!("authorization: Bearer {}", token("nightly-secret").unwrap());
    let ask = |path: &str| text(&clinic.curl(&["-H", &field, "-w", "\n%{http_code}", path]).stdout);
    let agenda = ask("/api/appointments");
    assert!(agenda.contains("Alma Birch") && agenda.ends_with("200"), "{agenda}");
    let records = ask("/api/patients/p-1001");
    assert!(records.ends_with("403") && !records.contains("hypertension"), "{records}");
}
