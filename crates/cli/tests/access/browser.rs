//! Signing in and out in a real browser: Chromium, which believes the two private authorities and nothing else.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::clients::url;
use crate::provider::{Provider, here};
use crate::running::{Clinic, Who, eventually, text};
use crate::talk::Talk;
use crate::{ECHO, SOON, at_once, now};

/// Chromium, driven by `browser.mjs`.
struct Browser {
    talk: Talk,
    _folder: tempfile::TempDir,
}

impl Browser {
    fn start(authorities: &[&Path]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join(".pki/nssdb");
        std::fs::create_dir_all(&store).unwrap();
        let certutil = |args: &[&str]| {
            let status = Command::new("certutil")
                .args(args)
                .arg("-d")
                .arg(format!("sql:{}", store.display()))
                .status();
            assert!(status.expect("certutil can be started").success(), "{args:?}");
        };
        certutil(&["-N", "--empty-password"]);
        for (n, authority) in authorities.iter().enumerate() {
            certutil(&[
                "-A",
                "-n",
                &format!("authority {n}"),
                "-t",
                "C,,",
                "-i",
                authority.to_str().unwrap(),
            ]);
        }
        let mut command = Command::new("node");
        command.arg(here("browser.mjs")).arg(folder.path());
        let (talk, ready) = Talk::start(&mut command, folder.path().join("browser"));
        assert_eq!(ready, "ready", "{}", talk.log());
        Self { talk, _folder: folder }
    }

    /// One step, as `browser.mjs` has them.
    fn step(&self, name: &str, argument: Value) -> Value {
        self.talk.order(&json!({ name: argument }))
    }

    fn open(&self, address: &str) -> Seen {
        self.step("open", address.into());
        self.look()
    }

    fn click(&self, place: &str) -> Seen {
        self.step("click", place.into());
        self.look()
    }

    fn look(&self) -> Seen {
        Seen(self.step("look", Value::Null))
    }

    /// Signs in at the provider, wherever that leads.
    fn sign_in(&self, user: &str) -> Seen {
        self.step("type", json!(["[name=login]", user]));
        self.click("button")
    }
}

/// What the browser shows and keeps.
#[derive(Debug)]
struct Seen(Value);

impl Seen {
    fn url(&self) -> &str {
        self.0["url"].as_str().unwrap()
    }

    fn text(&self) -> &str {
        self.0["text"].as_str().unwrap()
    }

    /// The fields that the service was sent.
    fn fields(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The gateway's cookies.
    fn cookies(&self) -> Vec<&Value> {
        let all = self.0["cookies"].as_array().unwrap();
        all.iter().filter(|cookie| cookie["domain"] == "127.0.0.1").collect()
    }

    /// All of them, as a request carries them.
    fn cookie_field(&self) -> String {
        let pair = |c: &&Value| format!("{}={}", c["name"].as_str().unwrap(), c["value"].as_str().unwrap());
        self.cookies().iter().map(pair).collect::<Vec<_>>().join("; ")
    }

    /// Everything that a browser keeps or tells others, and that no token may be in.
    fn places(&self) -> String {
        ["cookies", "scripts", "local", "session", "history", "requests"]
            .map(|place| self.0[place].to_string())
            .concat()
    }
}

fn start(provider: &Provider) -> Clinic {
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  staff:
    issuer: {}
    client: {{ id: clinic-gateway, secret: {{ file: secrets/staff }} }}
    login: {{ scopes: [openid, profile], idle: 30m, absolute: 8h }}
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
      - {{ path: /records/diagnoses, accept: [{{ login: staff }}], require: {{ groups: [nurse] }} }}
",
        provider.issuer
    );
    let clinic = Clinic::start_fence(Who::Root, &fence, Vec::new(), |folder| {
        for name in ["app", "id", "secrets"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("secrets/staff"), "secret").unwrap();
        let post = "def post(self):\n    self.rfile.read(int(self.headers.get('content-length', 0)))\n    self.do_GET()\nEcho.do_POST = post";
        let echo = ECHO.replace("http.server.Threading", &format!("{post}\nhttp.server.Threading"));
        std::fs::write(folder.join("app/echo.py"), echo).unwrap();
        std::fs::copy(&provider.ca, folder.join("id/ca.pem")).unwrap();
    });
    let client = json!({
        "client_id": "clinic-gateway", "client_secret": "secret", "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"], "id_token_signed_response_alg": "ES256", "scope": "openid profile",
        "redirect_uris": [url(&clinic, "/.ringfence/callback/staff")],
        "post_logout_redirect_uris": [url(&clinic, "/.ringfence/logged-out")],
        "backchannel_logout_uri": url(&clinic, "/.ringfence/backchannel/staff"),
        "backchannel_logout_session_required": true,
    });
    let ca = std::fs::read_to_string(clinic.folder.join(".ringfence/ca.pem")).unwrap();
    provider.order(&json!({ "do": "clients", "are": [client], "ca": ca }));
    clinic
}

fn browser(provider: &Provider, clinic: &Clinic) -> Browser {
    Browser::start(&[&provider.ca, &clinic.folder.join(".ringfence/ca.pem")])
}

/// Opens a page that needs a session until the provider's page is there: its metadata may still be on its way.
fn to_login(browser: &Browser, clinic: &Clinic, provider: &Provider, path: &str) -> Seen {
    let seen = eventually(SOON, || {
        let seen = browser.open(&url(clinic, path));
        seen.url().starts_with(&provider.issuer).then_some(seen)
    });
    let events = || text(&clinic.ringfence(&["events"]).stdout);
    seen.unwrap_or_else(|| panic!("{:?}\n{}{}", browser.look(), clinic.said(), events()))
}

/// The status of a request with these cookies and no browser.
fn with_cookies(clinic: &Clinic, path: &str, cookies: &str) -> u16 {
    let field = format!("cookie: {cookies}");
    let output = clinic.curl(&["-H", &field, "-o", "/dev/null", "-w", "%{http_code}", path]);
    text(&output.stdout).parse().unwrap()
}

#[test]
fn a_nurse_signs_in_and_out_in_a_browser_that_is_given_no_token() {
    let provider = Provider::start();
    let clinic = start(&provider);
    let browser = browser(&provider, &clinic);
    let login = to_login(&browser, &clinic, &provider, "/records?ward=7");
    assert!(login.text().contains("Staff of the clinic"), "{login:?}");
    let before = login.cookie_field();
    let seen = browser.sign_in("ann");
    assert_eq!(seen.url(), url(&clinic, "/records?ward=7"), "back where the user wanted to go: {seen:?}");
    let fields = seen.fields();
    assert_eq!((&fields["ringfence-user"], &fields["ringfence-provider"]), (&json!("ann"), &json!("staff")));
    assert_eq!(fields["authorization"], Value::Null);
    assert!(
        !fields["cookie"].to_string().contains("ringfence"),
        "the session stays at the gateway: {fields}"
    );

    // One cookie, which no script reads and no other site sends; the one of the sign-in is gone.
    let [cookie] = seen.cookies()[..] else { panic!("{:?}", seen.cookies()) };
    assert!(cookie["name"].as_str().unwrap().starts_with("__Host-"), "{cookie}");
    assert_eq!(
        (&cookie["secure"], &cookie["httpOnly"], &cookie["path"]),
        (&json!(true), &json!(true), &json!("/"))
    );
    assert!(["Lax", "Strict"].contains(&cookie["sameSite"].as_str().unwrap()), "{cookie}");
    assert_eq!(seen.0["scripts"], "", "no script sees it");
    for (place, nothing) in
        [("local", json!({})), ("session", json!({})), ("databases", json!(0)), ("caches", json!(0))]
    {
        assert_eq!(seen.0[place], nothing, "{place}");
    }
    for secret in ["eyJ", "access_token", "id_token=", "refresh_token"] {
        assert!(!seen.places().contains(secret), "{secret}: {}", seen.places());
    }
    let told = seen.0["requests"].as_array().unwrap();
    let referers: Vec<&str> = told.iter().filter_map(|request| request["referer"].as_str()).collect();
    assert!(referers.iter().all(|referer| !referer.contains("code=")), "{referers:?}");
    assert!(seen.0["history"].as_array().unwrap().iter().all(|url| !url.as_str().unwrap().contains("code=")));

    // A script of the page reads and writes; one of another site does neither.
    let read = browser.step("fetch", json!([url(&clinic, "/records/diagnoses")]));
    assert_eq!(read["status"], 200, "{read}");
    let write = json!([url(&clinic, "/records"), { "method": "POST", "body": "x" }]);
    assert_eq!(browser.step("fetch", write.clone())["status"], 200);
    let stolen = seen.cookie_field();
    assert_eq!(with_cookies(&clinic, "/records", &stolen), 200, "it is the session");
    assert_eq!(with_cookies(&clinic, "/records", &before), 401, "what was there before the sign-in is none");
    let posted = clinic.curl(&[
        "-H",
        &format!("cookie: {stolen}"),
        "-H",
        "origin: https://elsewhere.example",
        "-d",
        "x",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "/records",
    ]);
    assert_eq!(text(&posted.stdout), "403", "a form of another site");
    assert!(clinic.event(SOON, |e| e["firewall_rule"]["uid"] == "session.cross_site").is_some());

    // Out: here, and at the provider.
    browser.open(&url(&clinic, "/.ringfence/logout"));
    let asked = browser.click("button");
    assert!(asked.url().starts_with(&provider.issuer), "the provider asks too: {asked:?}");
    let out = browser.click("button[name=logout]");
    assert_eq!(out.url().split('?').next(), Some(&*url(&clinic, "/.ringfence/logged-out")), "{out:?}");
    assert!(out.text().contains("signed out") && out.cookies().is_empty(), "{out:?}");
    // A copy of the cookie is worth nothing now.
    at_once(now(), 401, || with_cookies(&clinic, "/records", &stolen));
    let again = browser.open(&url(&clinic, "/records"));
    assert!(
        again.text().contains("Staff of the clinic"),
        "whoever comes next has to say who they are: {again:?}"
    );
    assert_eq!(browser.sign_in("bob").fields()["ringfence-user"], "bob");
    let refused = browser.step("fetch", json!([url(&clinic, "/records/diagnoses")]));
    assert_eq!(refused["status"], 403, "a clerk is no nurse: {refused}");
    drop(browser);
    assert_eq!(clinic.stop(), [""; 0]);
}

#[test]
fn whoever_signs_out_at_the_provider_is_out_everywhere_within_a_second() {
    let provider = Provider::start();
    let clinic = start(&provider);
    let browser = browser(&provider, &clinic);
    to_login(&browser, &clinic, &provider, "/records");
    let seen = browser.sign_in("ann");
    let cookies = seen.cookie_field();
    assert_eq!(with_cookies(&clinic, "/records", &cookies), 200, "{seen:?}");
    // A session needs no provider while it lasts.
    provider.mood("down");
    assert_eq!(with_cookies(&clinic, "/records", &cookies), 200);
    provider.mood("good");
    browser.open(&format!("{}/session/end", provider.issuer));
    let out = browser.click("button[name=logout]");
    // The provider tells the gateway before it tells the browser.
    let told = now();
    assert!(out.text().contains("Signed out"), "{out:?}");
    at_once(told, 401, || with_cookies(&clinic, "/records", &cookies));
    let seen = browser.open(&url(&clinic, "/records"));
    assert!(seen.url().starts_with(&provider.issuer), "{seen:?}");
    drop(browser);
    assert_eq!(clinic.stop(), [""; 0]);
}
