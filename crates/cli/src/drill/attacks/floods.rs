//! More than may come in: of one user, and of wrong credentials.

use ringfence_tls::{Alpn, drill_client_config};
use serde_json::json;

use crate::drill::issuer::{KEY_ID, changed, claims, token};
use crate::drill::stage::Stage;
use crate::drill::target::Target;
use crate::drill::watch::{Watch, rule};
use crate::drill::wire::{self, Speak};
use crate::drill::{Outcome, Unable};

/// What the fence lets each user do in an hour.
const MAY: usize = 5;
/// Requests of one flood: more than any rule lets pass.
const FLOOD: usize = 100;

/// A flood, how many of it may pass, and the rule that must end it.
struct Flood {
    name: &'static str,
    fields: Vec<String>,
    may: usize,
    rule: &'static str,
}

pub(super) fn rate_flood(target: &Target) -> Result<Outcome, Unable> {
    let (stage, speak) = match target.stand_in() {
        Some(stand_in) => {
            let config = drill_client_config(None, &[Alpn::Http1]).map_err(|e| Unable::new(e.to_string()))?;
            (Stage::without_fence(stand_in)?, Speak::Tls(config, stand_in.ip().to_string()))
        }
        None => {
            let limit = target.lenient(&format!("], limit: [{{ by: user, rate: {MAY}/1h }}"));
            let mut stage = Stage::raise("", &format!("{{ token: drill }}{limit}"))?;
            stage.wait_for("/")?;
            (stage, Speak::Plain)
        }
    };
    let mut watch = if stage.has_fence() { Some(Watch::begin(&stage.events())?) } else { None };
    let (mut through, mut untold) = (Vec::new(), Vec::new());
    let floods = [user(&stage)?, guesses(&stage)?];
    for flood in &floods {
        let mut passed = 0;
        for fields in &flood.fields {
            let address = stage.gateway;
            let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n{fields}Connection: close\r\n\r\n");
            let answer = wire::exchange(address, &speak, request.as_bytes());
            let answer = answer.map_err(|e| Unable::new(format!("the gateway: {e}")))?;
            passed += usize::from(wire::status(&answer.bytes) != Some(429));
        }
        if passed > flood.may {
            through.push(format!("{} ({passed} of {FLOOD})", flood.name));
        }
        let told = watch.as_mut().is_some_and(|watch| {
            watch.wait(|e| e.kind() == "call" && e.denied() && rule(e) == flood.rule).is_some()
        });
        if !told {
            untold.push(flood.name.to_owned());
        }
    }
    let detail = format!("{} of {} floods held", floods.len() - through.len(), floods.len());
    Ok(Outcome::listed(detail, &through, &untold))
}

/// One user with a token for each request.
fn user(stage: &Stage) -> Result<Flood, Unable> {
    let one = |n: usize| {
        let token = stage.access_token(&json!({ "sub": "flood", "jti": format!("flood-{n}") }))?;
        Ok(format!("Authorization: Bearer {token}\r\n"))
    };
    let fields = (0..FLOOD).map(one).collect::<Result<_, _>>()?;
    Ok(Flood { name: "one user with many tokens", fields, may: MAY, rule: "limit.user" })
}

/// One wrong token after the other. Nothing is declared against it: the gateway does that by itself.
fn guesses(stage: &Stage) -> Result<Flood, Unable> {
    let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": KEY_ID });
    let one = |n: usize| {
        let claims = changed(claims(&stage.issuer), &json!({ "aud": format!("guess-{n}") }));
        Ok(format!("Authorization: Bearer {}\r\n", token(&stage.key, &header, &claims)?))
    };
    let fields = (0..FLOOD).map(one).collect::<Result<_, _>>()?;
    // One comes back each second.
    Ok(Flood { name: "wrong credentials", fields, may: FLOOD * 9 / 10, rule: "limit.failures" })
}
