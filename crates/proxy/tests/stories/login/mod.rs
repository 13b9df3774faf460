//! People sign in by a browser: what the gateway gives a browser, and takes from it. The test plays browser, control and provider.

mod attacks;
mod ends;
mod flows;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence_keys::{Secret, SigningKey};
use ringfence_model::Fence;
use ringfence_snapshot::mapping_of;
use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Revocations, Told};
use ringfence_token::{Revocation, SigningInput, What};
use serde_json::{Value, json};

use crate::net::echo;
use crate::rig::{Control, Rig, eventually, field, local, raw, unix};
use crate::tokens::ISSUER;

pub const HOST: &str = "localhost";
const PROVIDER: &str = "https://id.clinic.example/auth?client_id=clinic-gateway";
const NAVIGATE: &str = "Accept: text/html,*/*;q=0.8\r\nSec-Fetch-Mode: navigate\r\n";

pub fn fence(port: u16, issuer: &str, login: &str, routes: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off, sign_in: off }}
providers:
  staff:
    issuer: {issuer}
    audiences: [clinic]
    client: {{ id: clinic-gateway }}
    login: {login}
    claims: {{ user: sub, groups: groups }}
  patients:
    issuer: https://patients.example
    client: {{ id: clinic-gateway }}
    login: {{ idle: 30m, absolute: 8h }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes: {routes}
"
    )
}

const LOGIN: &str = "{ idle: 30m, absolute: 8h }";
const ROUTES: &str = "[{ path: /, accept: [{ login: staff }] }, { path: /open }, \
    { path: /strong, accept: [{ login: staff }], require: { acr: [phr] } }, \
    { path: /patients, accept: [{ login: patients }] }]";

/// What the played control remembers.
#[derive(Default)]
pub struct Asked {
    begun: AtomicU64,
    pub redirect_uri: Mutex<String>,
    pub acr_values: Mutex<Vec<String>>,
    codes: Mutex<Vec<String>>,
    pub refreshed: AtomicU64,
    pub signed_out: AtomicU64,
    pub logged_out: Mutex<Vec<String>>,
    /// How the next sessions differ from usual ones.
    pub changes: Mutex<Value>,
    pub refresh_in: AtomicU64,
    /// What a refresh gives, in place of a session.
    pub refusal: Mutex<Option<NoAnswerCode>>,
    pub slow: AtomicU64,
    /// Nobody's sign-in begins as long as this is set.
    pub held_up: AtomicBool,
    /// The session that every sign-in gives, in place of a new one.
    pub same: Mutex<Option<String>>,
}

/// What names how the fence has claims of staff mapped.
fn mapping() -> String {
    let fence = Fence::parse(vec![("ringfence.yaml", fence(1, ISSUER, LOGIN, ROUTES))]).unwrap();
    mapping_of(fence.provider("staff").unwrap())
}

/// A session token as the keeper signs them, with these members changed; null takes one out.
pub fn session(control: &Control, changes: &Value) -> String {
    session_by(&control.token_key, "t1", changes)
}

/// The same by that key.
pub fn session_by(key: &SigningKey, kid: &str, changes: &Value) -> String {
    let mut claims = json!({
        "iss": "clinic.example", "aud": "clinic.example", "jti": "s1", "sub": "ada", "iat": unix(), "exp": unix() + 8 * 3600,
        "idn": { "kind": "user", "provider": "staff", "id": "ada", "groups": ["nurse"] },
        "origin": { "iss": ISSUER, "sub": "ada", "sid": "p1", "client_id": "clinic-gateway", "iat": unix() },
        "map": mapping(),
    });
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().into_iter().flatten() {
        members.insert(name.clone(), value.clone());
        if value.is_null() {
            members.remove(name);
        }
    }
    let input = SigningInput::new("ringfence-session+jwt", key.algorithm().into(), kid, members).unwrap();
    let signature = key.sign(input.as_bytes()).unwrap();
    input.seal(&signature).unwrap()
}

fn no(code: NoAnswerCode, reason: &str) -> NoAnswer {
    NoAnswer::new(code, reason)
}

/// Control, federation, keeper and provider in one: codes are good once, and only with the verifier that they began with.
fn answer(asked: &Asked, control: &Control, ask: Ask) -> Result<Told, NoAnswer> {
    let signed = |refreshed| {
        let lasts = asked.refresh_in.load(Ordering::Relaxed);
        let refresh_at = if lasts == 0 { 0 } else { unix() + if refreshed { 600 } else { lasts - 1 } };
        let same = asked.same.lock().unwrap().clone();
        let session = same.unwrap_or_else(|| session(control, &asked.changes.lock().unwrap()));
        let session = Secret::new(session);
        Ok(Told::SignedIn { session, refresh_at })
    };
    match ask {
        Ask::Begin { provider, redirect_uri, acr_values, .. } => {
            while asked.held_up.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let number = asked.begun.fetch_add(1, Ordering::Relaxed);
            *asked.redirect_uri.lock().unwrap() = redirect_uri;
            *asked.acr_values.lock().unwrap() = acr_values;
            let state = format!("{number:012}-state-{provider}");
            let verifier = Secret::new(format!("verifier-{number}"));
            Ok(Told::Begun {
                url: format!("{PROVIDER}&state={state}"),
                state,
                nonce: format!("n{number}"),
                verifier,
            })
        }
        Ask::Complete { code, verifier, redirect_uri, .. } => {
            let mut codes = asked.codes.lock().unwrap();
            if *redirect_uri != *asked.redirect_uri.lock().unwrap() {
                return Err(no(NoAnswerCode::Denied, "another redirect_uri"));
            }
            // A code is bound to who began: `code-3` to `verifier-3`.
            let bound = code.expose().strip_prefix("code-") == verifier.expose().strip_prefix("verifier-");
            if !bound || codes.contains(code.expose()) {
                return Err(no(NoAnswerCode::Denied, "the code is not good"));
            }
            codes.push(code.expose().clone());
            signed(false)
        }
        Ask::Refresh { .. } => {
            asked.refreshed.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(asked.slow.load(Ordering::Relaxed)));
            match *asked.refusal.lock().unwrap() {
                Some(code) => Err(no(code, "the provider does not say so")),
                None => signed(true),
            }
        }
        Ask::SignOut { back, .. } => {
            asked.signed_out.fetch_add(1, Ordering::Relaxed);
            Ok(Told::SignedOut { url: Some(format!("https://id.clinic.example/end?back={back}")) })
        }
        Ask::LoggedOut { provider, token } => match token.expose().as_str() {
            "forged" => Err(no(NoAnswerCode::Denied, "the signature is wrong")),
            "later" => Err(no(NoAnswerCode::Unavailable, "no keys")),
            token => {
                asked.logged_out.lock().unwrap().push(format!("{provider} {token}"));
                Ok(Told::LoggedOut)
            }
        },
        _ => Err(no(NoAnswerCode::Unavailable, "there is no keeper")),
    }
}

pub fn rig_with(login: &str, routes: &str) -> (Rig, Arc<Asked>) {
    rig_before(echo, login, routes)
}

/// The same before another service.
fn rig_before(service: impl Fn(TcpListener), login: &str, routes: &str) -> (Rig, Arc<Asked>) {
    let (listener, port) = local();
    service(listener);
    let rig = Rig::start(&fence(port, ISSUER, login, routes));
    let asked = Arc::<Asked>::default();
    let (for_node, control) = (asked.clone(), rig.control.clone());
    rig.answer(move |ask| answer(&for_node, &control, ask));
    rig.tell_cookie_keys(vec![(1, Secret::new([1; 32]))]);
    // The keys are there once a sign-in can begin.
    eventually("cookie keys", || {
        let begins = || Browser::default().get(&rig, "/.ringfence/login/staff").starts_with("HTTP/1.1 303");
        (0..8).all(|_| begins()).then_some(())
    });
    (rig, asked)
}

fn rig() -> (Rig, Arc<Asked>) {
    rig_with(LOGIN, ROUTES)
}

/// A browser's cookies.
#[derive(Clone, Default)]
pub struct Browser(pub BTreeMap<String, String>);

impl Browser {
    pub fn send(&mut self, rig: &Rig, method: &str, path: &str, fields: &str, body: &str) -> String {
        let cookies: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies =
            if cookies.is_empty() { String::new() } else { format!("Cookie: {}\r\n", cookies.join("; ")) };
        let length = if body.is_empty() && method == "GET" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let host = format!("Host: {HOST}:8443\r\n");
        let fields = if fields.contains("Host:") { fields.to_owned() } else { host + fields };
        let request =
            format!("{method} {path} HTTP/1.1\r\n{fields}{cookies}{length}Connection: close\r\n\r\n{body}");
        let answer = raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes());
        self.keep(&answer);
        answer
    }

    fn keep(&mut self, answer: &str) {
        let head = answer.split("\r\n\r\n").next().unwrap();
        for set in head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")) {
            let (pair, attributes) = set.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.starts_with("Max-Age=0;") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    pub fn get(&mut self, rig: &Rig, path: &str) -> String {
        self.send(rig, "GET", path, NAVIGATE, "")
    }

    /// Where a navigation ends up at the provider; the number of the sign-in.
    fn begin(&mut self, rig: &Rig, path: &str) -> u64 {
        let answer = self.get(rig, path);
        let answer = match location(&answer) {
            to if to.starts_with("/.ringfence/login/") => self.get(rig, to),
            _ => answer,
        };
        let to = location(&answer);
        assert!(to.starts_with(PROVIDER), "{answer}");
        to.split_once("&state=").unwrap().1[..12].parse().unwrap()
    }

    fn callback(&mut self, rig: &Rig, number: u64, provider: &str, code: &str) -> String {
        let path = format!(
            "/.ringfence/callback/{provider}?code={code}&state={number:012}-state-{provider}&iss={ISSUER}"
        );
        self.get(rig, &path)
    }

    pub fn sign_in(&mut self, rig: &Rig, path: &str) -> String {
        let number = self.begin(rig, path);
        self.callback(rig, number, "staff", &format!("code-{number}"))
    }
}

pub fn location(answer: &str) -> &str {
    let head = answer.split("\r\n\r\n").next().unwrap();
    head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default()
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn refused_by(rig: &Rig, path: &str, rule: &str) {
    rig.event(&format!("{path} refused by {rule}"), |r| {
        field(r, "/http_request/url/path") == path && field(r, "/firewall_rule/uid") == rule
    });
}

const SESSION: &str = "__Host-ringfence-staff";

fn revocation(issuer: &str, what: What) -> Revocation {
    Revocation { issuer: issuer.into(), what, issued_until: unix(), forget_at: unix() + 9000 }
}

/// Waits until the session is over on every thread.
fn over(rig: &Rig, browser: &Browser, path: &str) {
    eventually("the session to end", || {
        (0..16).all(|_| status(&browser.clone().get(rig, path)) == 303).then_some(())
    });
}
