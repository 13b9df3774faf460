//! Signing in at a provider made by others, by clients that follow redirects and keep cookies as they like: what attackers do.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::clients::url;
use crate::provider::Provider;
use crate::running::{Clinic, Who, eventually, text};
use crate::{ECHO, SOON, at_once, now};

const SESSION: &str = "__Host-ringfence-staff";

fn start(provider: &Provider) -> Clinic {
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  staff:
    issuer: {}
    client: {{ id: clinic-gateway, secret: {{ file: secrets/staff }} }}
    login: {{ scopes: [openid, profile] }}
    claims: {{ groups: groups }}
    ca: id/ca.pem
    allow_private: true
services:
  portal:
    run: [python3, app/echo.py]
    listen: 9000
    ready: tcp
    routes:
      - {{ path: / }}
      - {{ path: /records, accept: [{{ login: staff }}] }}
      - {{ path: /records/strong, accept: [{{ login: staff }}], require: {{ acr: [phr] }} }}
      - {{ path: /records/stronger, accept: [{{ login: staff }}], require: {{ acr: [phrh] }} }}
",
        provider.issuer
    );
    let clinic = Clinic::start_fence(Who::Root, &fence, Vec::new(), |folder| {
        for name in ["app", "id", "secrets"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        let secret = folder.join("secrets/staff");
        std::fs::write(&secret, "secret").unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
        std::fs::copy(&provider.ca, folder.join("id/ca.pem")).unwrap();
    });
    let client = json!({
        "client_id": "clinic-gateway", "client_secret": "secret", "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"], "id_token_signed_response_alg": "ES256", "scope": "openid profile",
        "redirect_uris": [url(&clinic, "/.ringfence/callback/staff")],
        "post_logout_redirect_uris": [url(&clinic, "/.ringfence/logged-out")],
    });
    let ca = std::fs::read_to_string(clinic.folder.join(".ringfence/ca.pem")).unwrap();
    provider.order(&json!({ "do": "clients", "are": [client], "ca": ca }));
    clinic
}

/// Something with cookies that takes one step at a time.
struct Agent<'a> {
    clinic: &'a Clinic,
    folder: tempfile::TempDir,
}

/// Status, where to go, and what came.
struct Step {
    status: u16,
    to: String,
    body: String,
}

impl<'a> Agent<'a> {
    fn new(clinic: &'a Clinic, provider: &Provider) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trusted = [&provider.ca, &clinic.folder.join(".ringfence/ca.pem")];
        let trusted = trusted.map(|file| std::fs::read_to_string(file).unwrap()).concat();
        std::fs::write(folder.path().join("trusted.pem"), trusted).unwrap();
        Self { clinic, folder }
    }

    fn jar(&self) -> PathBuf {
        self.folder.path().join("jar")
    }

    fn step(&self, address: &str, options: &[&str]) -> Step {
        let address = if address.starts_with('/') { url(self.clinic, address) } else { address.to_owned() };
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "60", "-H", "accept: text/html", "--cacert"])
            .arg(self.folder.path().join("trusted.pem"))
            .args(["-b".as_ref(), self.jar().as_os_str(), "-c".as_ref(), self.jar().as_os_str()])
            .args(["-w", "\n%{http_code} %{redirect_url}"])
            .args(options)
            .arg(address)
            .output()
            .unwrap();
        let said = text(&output.stdout);
        let (body, last) = said.rsplit_once('\n').unwrap();
        let (code, to) = last.split_once(' ').unwrap();
        Step { status: code.parse().unwrap(), to: to.to_owned(), body: body.to_owned() }
    }

    fn get(&self, address: &str) -> Step {
        self.step(address, &[])
    }

    /// Follows redirects up to one that leads to `stop`, or until a page is shown; where that is.
    fn follow(&self, address: &str, stop: &str) -> (String, Step) {
        let mut address = address.to_owned();
        for _ in 0..10 {
            let step = self.get(&address);
            if step.to.is_empty() || step.to.contains(stop) {
                return (address, step);
            }
            address = step.to;
        }
        panic!("redirected for ever: {address}");
    }

    /// Signs in at the provider; the address of the callback, which is not called yet.
    fn to_callback(&self, user: &str, path: &str) -> String {
        let (form, page) = self.follow(path, "/.ringfence/callback/");
        if page.to.contains("/.ringfence/callback/") {
            return page.to;
        }
        assert!(page.body.contains("name=\"login\""), "{form}: {} {}", page.status, page.body);
        let posted = self.step(&form, &["--data", &format!("login={user}")]);
        let (_, back) = self.follow(&posted.to, "/.ringfence/callback/");
        assert!(back.to.contains("code="), "{}: {}", back.status, back.body);
        back.to
    }

    fn sign_in(&self, user: &str, path: &str) -> Step {
        let callback = self.to_callback(user, path);
        self.get(&callback)
    }

    fn session(&self) -> Option<String> {
        let jar = std::fs::read_to_string(self.jar()).unwrap();
        Some(jar.lines().find(|line| line.contains(&format!("{SESSION}\t")))?.rsplit_once('\t')?.1.to_owned())
    }
}

/// The provider's metadata may still be on its way.
fn ready(agent: &Agent<'_>) {
    let ready = eventually(SOON, || (agent.get("/.ringfence/login/staff").status == 303).then_some(()));
    assert!(
        ready.is_some(),
        "{}\n{}",
        agent.clinic.said(),
        text(&agent.clinic.ringfence(&["events"]).stdout)
    );
    agent.clinic.settle_at(&["-H", "accept: text/html"], "/.ringfence/login/staff", 303);
}

fn refused_by(clinic: &Clinic, rule: &str) {
    assert!(clinic.event(SOON, |e| e["firewall_rule"]["uid"] == rule).is_some(), "{rule}");
}

#[test]
fn what_a_browser_brings_back_counts_once_and_only_there() {
    let provider = Provider::start();
    let clinic = start(&provider);
    let [victim, attacker] = [(); 2].map(|()| Agent::new(&clinic, &provider));
    ready(&victim);
    // The attacker signs in and has the victim's browser finish it: the victim would act as the attacker.
    let theirs = attacker.to_callback("mallory", "/records");
    let answer = victim.get(&theirs);
    assert!(answer.status == 400 && victim.session().is_none(), "{}", answer.body);
    refused_by(&clinic, "signin.state");
    // The attacker's code in the victim's own callback: the provider bound it to another verifier.
    let own = victim.to_callback("ann", "/records?ward=7");
    let code = |address: &str| address.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let injected = own.replace(&code(&own), &code(&theirs));
    assert_eq!(victim.get(&injected).status, 403);
    assert!(victim.session().is_none());
    // An honest sign-in, and then the same callback again.
    let own = victim.to_callback("ann", "/records?ward=7");
    let before = std::fs::read(victim.jar()).unwrap();
    let back = victim.get(&own);
    assert_eq!((back.status, back.to), (303, url(&clinic, "/records?ward=7")));
    let fields: Value = serde_json::from_str(&victim.get("/records").body).unwrap();
    assert_eq!((&fields["ringfence-user"], &fields["cookie"]), (&json!("ann"), &Value::Null));
    assert_eq!(victim.get(&own).status, 400);
    let kept = Agent::new(&clinic, &provider);
    std::fs::write(kept.jar(), before).unwrap();
    assert_eq!(kept.get(&own).status, 403, "the provider takes no code twice");
    assert!(kept.session().is_none());
    assert_eq!(clinic.stop(), [""; 0]);
}

#[test]
fn a_session_is_as_strong_as_it_must_be_and_ends_when_the_operator_says() {
    let provider = Provider::start();
    let clinic = start(&provider);
    let agent = Agent::new(&clinic, &provider);
    ready(&agent);
    assert_eq!(agent.sign_in("ann", "/records").status, 303);
    assert_eq!(agent.get("/records/strong").status, 200, "the provider says how it authenticated her");
    // What the provider cannot do ends in a page, not in a circle.
    let (_, page) = agent.follow("/records/stronger", "nowhere");
    assert!(page.status == 403 || page.body.contains("name=\"login\""), "{} {}", page.status, page.body);
    // A cookie under another name, or altered, leads to the sign-in.
    let session = agent.session().unwrap();
    let stranger = Agent::new(&clinic, &provider);
    let with = |cookie: &str| stranger.step("/records", &["-H", &format!("cookie: {cookie}")]).status;
    assert_eq!(with(&format!("{SESSION}={session}")), 200);
    let altered = session.replacen(&session[20..21], if &session[20..21] == "A" { "B" } else { "A" }, 1);
    for bad in [
        format!("{SESSION}={altered}"),
        format!("__Host-ringfence-other={session}"),
        format!("{SESSION}={session}; {SESSION}=x"),
    ] {
        assert_eq!(with(&bad), 303, "{bad}");
    }
    // Listed, and ended.
    let list: Value = clinic.json(&["session", "list", "--json"]);
    let sessions =
        list["sessions"].as_array().or_else(|| list.as_array()).unwrap_or_else(|| panic!("{list}"));
    let ours = sessions.iter().find(|s| s["user"] == "ann").unwrap_or_else(|| panic!("{list}"));
    let done = clinic.ringfence(&["session", "end", ours["id"].as_str().unwrap()]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    at_once(now(), 303, || agent.get("/records").status);
    assert_eq!(clinic.stop(), [""; 0]);
}

#[test]
fn who_is_signed_in_stays_so_while_the_provider_is_gone() {
    let provider = Provider::start();
    let clinic = start(&provider);
    let agent = Agent::new(&clinic, &provider);
    ready(&agent);
    assert_eq!(agent.sign_in("ann", "/records").status, 303);
    provider.mood("down");
    assert_eq!(agent.get("/records").status, 200);
    // Whoever comes back from the provider cannot be signed in now, and is told so.
    provider.mood("good");
    let late = Agent::new(&clinic, &provider);
    let callback = late.to_callback("bob", "/records");
    provider.mood("down");
    let answer = late.get(&callback);
    assert!(answer.status == 503 && answer.body.contains("try again"), "{} {}", answer.status, answer.body);
    provider.mood("good");
    assert_eq!(late.sign_in("bob", "/records").status, 303);
    assert_eq!(late.get("/records").status, 200);
    assert_eq!(clinic.stop(), [""; 0]);
}
