//! A transaction token in the hands of somebody whom it was not given to, or after its time.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use ringfence_control::supervisor::Applied;
use ringfence_snapshot::loopback_service_ip;
use ringfence_tls::{Alpn, drill_client_config};
use serde_json::json;

use crate::drill::attack::ROLE;
use crate::drill::issuer::now;
use crate::drill::stage::{BINARY, Stage, free_address};
use crate::drill::target::Target;
use crate::drill::watch::{Watch, rule};
use crate::drill::wire::{self, Speak};
use crate::drill::{Outcome, Unable};

/// How long the stolen token lives, in seconds.
const LIFE: u64 = 6;
/// Where the sidecar of a service listens without isolation for calls to port 80.
const PORT: u16 = 20_080;

/// How long a drill waits for another one.
const TURN: Duration = Duration::from_secs(90);

/// One attack: its name, what came of it, and the rule that must have refused it.
struct Tried {
    name: &'static str,
    status: Option<u16>,
    rule: &'static str,
}

pub(super) fn stolen_token(target: &Target) -> Result<Outcome, Unable> {
    if let Some(stand_in) = target.stand_in() {
        // Nobody there gives out tokens; one that looks like it does for a gateway that looks at nothing.
        let stage = Stage::without_fence(stand_in)?;
        let token = stage.access_token(&json!({}))?;
        let config = drill_client_config(None, &[Alpn::Http1]).map_err(|e| Unable::new(e.to_string()))?;
        let speak = Speak::Tls(config, stand_in.ip().to_string());
        return Ok(score(&outside(&speak, stand_in, &token)?, None));
    }
    let _turn = turn()?;
    let mut stage = Stage::with("", &target.lenient(&services()?))?;
    stage.wait_for("/front")?;
    let applied: Applied = stage.client()?.get("/v1/fence").map_err(|e| Unable::new(e.to_string()))?;
    let mut watch = Watch::begin(&stage.events())?;
    let ends_at = now() + LIFE;
    let given = given(&stage, ends_at)?;
    let honest = call(&applied, "front", &given.fields)?;
    if honest != Some(200) {
        return Err(Unable::new(format!("the service that was given the token was answered {honest:?}")));
    }
    let mut tried = vec![Tried {
        name: "another service",
        status: call(&applied, "thief", &given.fields)?,
        rule: "delegate.required",
    }];
    tried.extend(outside(&Speak::Plain, stage.gateway, &given.token)?);
    while now() <= ends_at {
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = call(&applied, "front", &given.fields)?;
    tried.push(Tried { name: "after its end", status, rule: "delegate.required" });
    Ok(score(&tried, Some(&mut watch)))
}

/// Without isolation all fences share their services' addresses: two drills at once take turns, by an address that no service has.
fn turn() -> Result<TcpListener, Unable> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)) {
            Ok(turn) => return Ok(turn),
            Err(e) if begun.elapsed() > TURN => {
                let reason = format!("port {PORT} of loopback is not free ({e}): does another drill run?");
                return Err(Unable::new(reason));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Two services that may call a third on somebody's behalf, which tells everybody what it was sent.
fn services() -> Result<String, Unable> {
    let mut services = "services:\n".to_owned();
    let calls = ", calls: [{ service: vault, on_behalf: required }]";
    let route = ", routes: [{ path: /front, accept: [{ token: drill }] }]";
    for (name, more) in
        [("front", format!("{calls}{route}")), ("thief", calls.to_owned()), ("vault", String::new())]
    {
        let address = free_address().map_err(|e| Unable::new(format!("cannot find a free port: {e}")))?;
        let port = address.port();
        let run = json!([BINARY, ROLE, "serve", port.to_string()]);
        services.push_str(&format!("  {name}: {{ run: {run}, listen: {port}{more} }}\n"));
    }
    Ok(services)
}

/// What a service was given: the token, and the fields that it passes on.
struct Given {
    token: String,
    fields: String,
}

fn given(stage: &Stage, ends_at: u64) -> Result<Given, Unable> {
    let token = stage.access_token(&json!({ "exp": ends_at, "jti": "short" }))?;
    let request = request("/front", &format!("Authorization: Bearer {token}\r\n"));
    let answer = exchange(&Speak::Plain, stage.gateway, &request)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let field = |name: &str| {
        let mut fields = answer.lines().filter_map(|line| line.split_once(": "));
        fields.find_map(|(field, value)| field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned()))
    };
    let token = field("txn-token").ok_or_else(|| Unable::new("a service was given no transaction token"))?;
    let trace = field("traceparent").unwrap_or_default();
    Ok(Given { fields: format!("Txn-Token: {token}\r\ntraceparent: {trace}\r\n"), token })
}

/// The same from outside, where it is no credential.
fn outside(speak: &Speak, gateway: SocketAddr, token: &str) -> Result<Vec<Tried>, Unable> {
    let attacks = [
        ("from outside", format!("Txn-Token: {token}\r\n"), "credential.none"),
        ("from outside as bearer", format!("Authorization: Bearer {token}\r\n"), "token.type"),
    ];
    let tried = attacks.into_iter().map(|(name, fields, rule)| {
        let status = wire::status(&exchange(speak, gateway, &request("/front", &fields))?);
        Ok(Tried { name, status, rule })
    });
    tried.collect()
}

/// A call to the vault by a service: whoever dials in its block of addresses is it, without isolation.
fn call(applied: &Applied, service: &str, fields: &str) -> Result<Option<u16>, Unable> {
    let number = |name: &str| applied.services.iter().find(|(known, _)| known == name).map(|(_, n)| *n);
    let address = number(service).zip(number("vault")).and_then(|(by, to)| loopback_service_ip(by, to));
    let address = address.ok_or_else(|| Unable::new(format!("{service} has no way to the vault")))?;
    let answer = exchange(&Speak::Plain, (address, PORT).into(), &request("/", fields))?;
    Ok(wire::status(&answer))
}

fn request(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: drill\r\n{fields}Connection: close\r\n\r\n")
}

fn exchange(speak: &Speak, address: SocketAddr, request: &str) -> Result<Vec<u8>, Unable> {
    let answer = wire::exchange(address, speak, request.as_bytes());
    answer.map(|answer| answer.bytes).map_err(|e| Unable::new(format!("{address}: {e}")))
}

fn score(tried: &[Tried], mut watch: Option<&mut Watch>) -> Outcome {
    let (mut passed, mut untold) = (Vec::new(), Vec::new());
    for one in tried {
        if !matches!(one.status, Some(401 | 403)) {
            passed.push(one.name);
        }
        let told = watch.as_mut().is_some_and(|watch| {
            watch.wait(|e| e.kind() == "call" && e.denied() && rule(e) == one.rule).is_some()
        });
        if !told {
            untold.push(one.name);
        }
    }
    let detail = format!("{} of {} uses refused", tried.len() - passed.len(), tried.len());
    Outcome::listed(detail, &passed, &untold)
}
