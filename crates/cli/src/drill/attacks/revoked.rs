//! What was revoked a second ago and is shown again, or still has something open.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringfence_control::{CreateKey, Revoke, RevokeWhat};
use ringfence_tls::{Alpn, drill_client_config};
use serde_json::{Value, json};

use crate::client::Client;
use crate::drill::stage::Stage;
use crate::drill::target::Target;
use crate::drill::watch::{Watch, rule};
use crate::drill::wire::{self, Speak};
use crate::drill::{Outcome, Unable};

/// How long what was revoked may still count.
const SOON: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);

/// A credential: how it is shown, how it is revoked, and the rule that must refuse it then.
struct Credential {
    name: &'static str,
    fields: String,
    revoke: (String, Value),
    rule: &'static str,
}

pub(super) fn revoked_session(target: &Target) -> Result<Outcome, Unable> {
    if let Some(stand_in) = target.stand_in() {
        return without_fence(stand_in);
    }
    let login = ", client: { id: drill }, login: {}";
    let mut stage = Stage::raise(login, "{ login: drill }, { token: drill }, api_key")?;
    stage.wait_for("/")?;
    let client = stage.client()?;
    let all = [session(&stage, &client)?, token(&stage)?, api_key(&client)?];
    let mut watch = Watch::begin(&stage.events())?;
    let (mut passed, mut untold, mut slowest) = (Vec::new(), Vec::new(), Duration::ZERO);
    for one in &all {
        let status = ask(&Speak::Plain, stage.gateway, &one.fields)?;
        if status != Some(200) {
            return Err(Unable::new(format!(
                "the {} was answered {status:?} before it was revoked",
                one.name
            )));
        }
        let mut open = open(stage.gateway, &one.fields)?;
        let (path, body) = &one.revoke;
        client.post::<Value>(path, body).map_err(|e| Unable::new(format!("cannot revoke: {e}")))?;
        let begun = Instant::now();
        let mut refused = false;
        while !refused && begun.elapsed() < SOON {
            refused = ask(&Speak::Plain, stage.gateway, &one.fields)? == Some(401);
            std::thread::sleep(POLL);
        }
        let cut = has_ended(&mut open, begun);
        slowest = slowest.max(begun.elapsed());
        passed.extend((!refused).then(|| format!("a new request by the {}", one.name)));
        passed.extend((!cut).then(|| format!("an open stream by the {}", one.name)));
        // The stream that was cut, and the request that was refused: by the keeper, where that knew before the gateway.
        let rules = [one.rule, "delegate.denied"];
        let mut told =
            || watch.wait(|e| e.kind() == "call" && e.denied() && rules.contains(&rule(e))).is_some();
        untold.extend((!(told() && told())).then_some(one.name));
    }
    let uses = all.len() * 2;
    let mut detail = format!("{} of {uses} uses ended", uses - passed.len());
    if passed.is_empty() {
        detail.push_str(&format!(", the slowest after {} ms", slowest.as_millis()));
    }
    Ok(Outcome::listed(detail, &passed, &untold))
}

/// A gateway that asks nobody whether something was revoked lets it in for ever.
fn without_fence(stand_in: SocketAddr) -> Result<Outcome, Unable> {
    let stage = Stage::without_fence(stand_in)?;
    let config = drill_client_config(None, &[Alpn::Http1]).map_err(|e| Unable::new(e.to_string()))?;
    let speak = Speak::Tls(config, stand_in.ip().to_string());
    let one = token(&stage)?;
    std::thread::sleep(SOON);
    let stopped = ask(&speak, stand_in, &one.fields)? == Some(401);
    let detail = format!("{} of 1 uses ended", usize::from(stopped));
    Ok(Outcome { stopped, reported: false, detail })
}

fn revocation(what: RevokeWhat, provider: Option<&str>, name: &str) -> (String, Value) {
    let body = Revoke {
        what,
        provider: provider.map(ToOwned::to_owned),
        name: name.to_owned(),
        why: "drill".to_owned(),
        keep: None,
        for_good: false,
    };
    ("/v1/revocations".to_owned(), serde_json::to_value(body).unwrap_or_default())
}

fn token(stage: &Stage) -> Result<Credential, Unable> {
    let token = stage.access_token(&json!({ "jti": "stolen" }))?;
    Ok(Credential {
        name: "token",
        fields: format!("Authorization: Bearer {token}\r\n"),
        revoke: revocation(RevokeWhat::Token, Some("drill"), "stolen"),
        rule: "token.revoked",
    })
}

fn api_key(client: &Client) -> Result<Credential, Unable> {
    let body =
        CreateKey { client: "drill".to_owned(), scopes: Vec::new(), life: Some(300), not_before: None };
    let key: Value =
        client.post("/v1/keys", &body).map_err(|e| Unable::new(format!("cannot make an API key: {e}")))?;
    let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
    Ok(Credential {
        name: "API key",
        fields: format!("X-API-Key: {}\r\n", text("key")),
        revoke: (format!("/v1/keys/{}/revoke", text("id")), Value::Null),
        rule: "api_key.revoked",
    })
}

/// Somebody signs in, as a browser would.
fn session(stage: &Stage, client: &Client) -> Result<Credential, Unable> {
    let unable = |what: &str| Unable::new(format!("nobody could sign in: {what}"));
    let begun = browse(stage, "/.ringfence/login/drill?to=/", "")?;
    let to = field(&begun, "location").next().ok_or_else(|| unable("the gateway leads nowhere"))?;
    let parameter = |name: &str| {
        let query = to.split_once('?').map_or("", |(_, query)| query);
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let (state, nonce) = parameter("state").zip(parameter("nonce")).ok_or_else(|| unable("no state"))?;
    let path = format!("/.ringfence/callback/drill?code={nonce}&state={state}");
    let done = browse(stage, &path, &cookies(&begun))?;
    let cookies = cookies(&done);
    let sessions = client.all::<Value>("sessions").map_err(|e| unable(&e.to_string()))?;
    let id = sessions.first().and_then(|session| session["id"].as_str());
    let id = id.ok_or_else(|| unable(done.lines().next().unwrap_or_default()))?;
    Ok(Credential {
        name: "session",
        fields: format!("Cookie: {cookies}\r\n"),
        revoke: revocation(RevokeWhat::Session, None, id),
        rule: "session.revoked",
    })
}

fn browse(stage: &Stage, path: &str, cookies: &str) -> Result<String, Unable> {
    let gateway = stage.gateway;
    let cookies = if cookies.is_empty() { String::new() } else { format!("Cookie: {cookies}\r\n") };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {gateway}\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n{cookies}Connection: close\r\n\r\n"
    );
    exchange(&Speak::Plain, gateway, &request).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn field<'a>(answer: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = answer.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(": "));
    fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// What an answer sets and does not take back.
fn cookies(answer: &str) -> String {
    let set = field(answer, "set-cookie").filter(|set| !set.contains("Max-Age=0"));
    set.filter_map(|set| set.split(';').next()).collect::<Vec<_>>().join("; ")
}

fn ask(speak: &Speak, gateway: SocketAddr, fields: &str) -> Result<Option<u16>, Unable> {
    let request = format!("GET / HTTP/1.1\r\nHost: {gateway}\r\n{fields}Connection: close\r\n\r\n");
    Ok(wire::status(&exchange(speak, gateway, &request)?))
}

fn exchange(speak: &Speak, gateway: SocketAddr, request: &str) -> Result<Vec<u8>, Unable> {
    let answer = wire::exchange(gateway, speak, request.as_bytes());
    answer.map(|answer| answer.bytes).map_err(|e| Unable::new(format!("the gateway: {e}")))
}

/// A stream that has begun.
fn open(gateway: SocketAddr, fields: &str) -> Result<TcpStream, Unable> {
    let exchange = || -> std::io::Result<(TcpStream, Vec<u8>)> {
        let mut stream = TcpStream::connect_timeout(&gateway, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET /stream HTTP/1.1\r\nHost: {gateway}\r\n{fields}\r\n").as_bytes())?;
        let mut first = vec![0; 4096];
        let length = stream.read(&mut first)?;
        first.truncate(length);
        Ok((stream, first))
    };
    match exchange() {
        Ok((stream, first)) if wire::status(&first) == Some(200) => Ok(stream),
        Ok((_, first)) => Err(Unable::new(format!("a stream was answered {:?}", wire::status(&first)))),
        Err(e) => Err(Unable::new(format!("a stream: {e}"))),
    }
}

/// Whether it ended in time; what comes until then is read.
fn has_ended(stream: &mut TcpStream, begun: Instant) -> bool {
    let mut chunk = [0; 4096];
    loop {
        let left = SOON.saturating_sub(begun.elapsed());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}
