//! Credentials that were not given to whoever shows them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::digest::sha256;
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_tls::{Alpn, drill_client_config};
use ringfence_token::{KeySet, PublicKey};
use serde_json::{Value, json};

use crate::drill::issuer::{KEY_ID, changed, claims, now, token};
use crate::drill::stage::Stage;
use crate::drill::target::Target;
use crate::drill::watch::{Watch, rule};
use crate::drill::wire::{self, Speak};
use crate::drill::{Outcome, Unable};

/// One attack: its name, the header fields that it sends, and the rule that must refuse it.
struct Attack {
    name: &'static str,
    fields: String,
    rule: &'static str,
}

pub(super) fn forged_token(target: &Target) -> Result<Outcome, Unable> {
    let scene = Scene::set(target)?;
    let now = now();
    let other = key()?;
    let ours = &scene.stage.key;
    let header = || json!({ "typ": "at+jwt", "alg": "ES256", "kid": KEY_ID });
    let with = |header: Value, claims: Value| token(ours, &header, &changed(scene.claims(), &claims));
    let good = with(header(), json!({}))?;
    let unsigned = |alg: &str| -> Result<String, Unable> {
        let forged = with(changed(header(), &json!({ "alg": alg })), json!({}))?;
        Ok(forged.rsplit_once('.').map_or_else(String::new, |(rest, _)| format!("{rest}.")))
    };
    let altered = {
        let mut parts: Vec<String> = good.split('.').map(ToOwned::to_owned).collect();
        parts[1] = URL_SAFE_NO_PAD.encode(changed(scene.claims(), &json!({ "sub": "admin" })).to_string());
        parts.join(".")
    };
    let attacks = [
        ("alg none", unsigned("none")?, "token.invalid"),
        ("alg none in another case", unsigned("nOnE")?, "token.invalid"),
        ("no signature", unsigned("ES256")?, "token.invalid"),
        (
            "HMAC with the public key",
            with(changed(header(), &json!({ "alg": "HS256" })), json!({}))?,
            "token.invalid",
        ),
        ("another key under the same id", token(&other, &header(), &scene.claims())?, "token.signature"),
        ("its content changed", altered, "token.signature"),
        (
            "an ID token",
            with(changed(header(), &json!({ "typ": "JWT" })), json!({ "nonce": "n" }))?,
            "token.invalid",
        ),
        ("another issuer", with(header(), json!({ "iss": "https://id.invalid" }))?, "token.issuer"),
        ("for another audience", with(header(), json!({ "aud": "bank" }))?, "token.audience"),
        ("past its end", with(header(), json!({ "iat": now - 900, "exp": now - 600 }))?, "token.expired"),
    ];
    let attacks = attacks.map(|(name, token, rule)| Attack { name, fields: bearer(&token), rule });
    scene.play(&attacks)
}

pub(super) fn replayed_dpop(target: &Target) -> Result<Outcome, Unable> {
    let scene = Scene::set(target)?;
    let (client, thief) = (key()?, key()?);
    let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": KEY_ID });
    let jkt = URL_SAFE_NO_PAD.encode(PublicKey::from(client.verifying_key()).thumbprint());
    let bound = changed(scene.claims(), &json!({ "cnf": { "jkt": jkt } }));
    let token = token(&scene.stage.key, &header, &bound)?;
    // The first answer hands out what the next proofs must hold.
    let first = scene.send("GET", &shown(&token, &scene.proof(&client, &token, &json!({}))?))?;
    let first = String::from_utf8_lossy(&first).into_owned();
    let nonce = first.lines().find_map(|line| line.strip_prefix("dpop-nonce: ")).unwrap_or("none").trim();
    let with = |claims: Value| changed(json!({ "nonce": nonce }), &claims);
    let used = scene.proof(&client, &token, &with(json!({})))?;
    let answer = scene.send("GET", &shown(&token, &used))?;
    if wire::status(&answer) != Some(200) {
        let status = wire::status(&answer).map_or_else(|| "nothing".to_owned(), |status| status.to_string());
        return Err(Unable::new(format!("the honest client was answered {status}")));
    }
    let proof = |claims: Value| Ok::<_, Unable>(shown(&token, &scene.proof(&client, &token, &with(claims))?));
    let old = now() - 300;
    let attacks = [
        Attack { name: "the proof again", fields: shown(&token, &used), rule: "proof.replayed" },
        Attack { name: "no proof", fields: bearer(&token), rule: "token.bound" },
        Attack {
            name: "a proof by another key",
            fields: shown(&token, &scene.proof(&thief, &token, &with(json!({})))?),
            rule: "token.bound",
        },
        Attack {
            name: "for another method",
            fields: proof(json!({ "htm": "POST" }))?,
            rule: "proof.elsewhere",
        },
        Attack {
            name: "for another address",
            fields: proof(json!({ "htu": "https://other.invalid/" }))?,
            rule: "proof.elsewhere",
        },
        Attack { name: "of five minutes ago", fields: proof(json!({ "iat": old }))?, rule: "proof.time" },
        Attack {
            name: "for another token",
            fields: shown(&token, &scene.proof(&client, "another", &with(json!({})))?),
            rule: "token.bound",
        },
    ];
    scene.play(&attacks)
}

/// A gateway to attack, and how it is spoken to.
struct Scene {
    stage: Stage,
    speak: Speak,
}

impl Scene {
    fn set(target: &Target) -> Result<Self, Unable> {
        let Some(stand_in) = target.stand_in() else {
            let mut stage = Stage::raise("", "{ token: drill }")?;
            stage.wait_for("/")?;
            return Ok(Self { stage, speak: Speak::Plain });
        };
        let config = drill_client_config(None, &[Alpn::Http1]).map_err(|e| Unable::new(e.to_string()))?;
        let speak = Speak::Tls(config, stand_in.ip().to_string());
        Ok(Self { stage: Stage::without_fence(stand_in)?, speak })
    }

    fn claims(&self) -> Value {
        claims(&self.stage.issuer)
    }

    fn proof(&self, client: &SigningKey, token: &str, changes: &Value) -> Result<String, Unable> {
        let set = KeySet::from_keys([("c".to_owned(), client.verifying_key().clone())]).to_json("sig");
        let set: Value = serde_json::from_str(&set).map_err(|e| Unable::new(e.to_string()))?;
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": set["keys"][0] });
        let scheme = if self.stage.has_fence() { "http" } else { "https" };
        let claims = json!({
            "jti": ringfence_keys::to_hex(&ringfence_keys::random::<16>()), "htm": "GET",
            "htu": format!("{scheme}://{}/", self.stage.gateway), "iat": now(),
            "ath": URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())),
        });
        crate::drill::issuer::token(client, &header, &changed(claims, changes))
    }

    fn send(&self, method: &str, fields: &str) -> Result<Vec<u8>, Unable> {
        let request = request(self.stage.gateway, method, fields);
        let answer = wire::exchange(self.stage.gateway, &self.speak, request.as_bytes());
        answer.map(|answer| answer.bytes).map_err(|e| Unable::new(format!("the gateway: {e}")))
    }

    fn play(&self, attacks: &[Attack]) -> Result<Outcome, Unable> {
        let mut watch = if self.stage.has_fence() { Some(Watch::begin(&self.stage.events())?) } else { None };
        let (mut passed, mut untold) = (Vec::new(), Vec::new());
        for attack in attacks {
            let answer = self.send("GET", &attack.fields)?;
            if wire::status(&answer) != Some(401) {
                passed.push(attack.name);
            }
            let told = watch.as_mut().is_some_and(|watch| {
                watch.wait(|e| e.kind() == "call" && e.denied() && rule(e) == attack.rule).is_some()
            });
            if !told {
                untold.push(attack.name);
            }
        }
        let detail = format!("{} of {} attacks refused", attacks.len() - passed.len(), attacks.len());
        Ok(Outcome::listed(detail, &passed, &untold))
    }
}

fn key() -> Result<SigningKey, Unable> {
    SigningKey::generate(Algorithm::P256).map_err(|e| Unable::new(format!("cannot make a key: {e}")))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn shown(token: &str, proof: &str) -> String {
    format!("Authorization: DPoP {token}\r\nDPoP: {proof}\r\n")
}

fn request(host: std::net::SocketAddr, method: &str, fields: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n")
}
