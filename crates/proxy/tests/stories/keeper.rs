//! A keeper that the test plays: it signs transaction tokens for whoever's credential it is shown.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_model::{Credential, Fence};
use ringfence_snapshot::node::{ApiKeys, Mint, NoAnswer, NoAnswerCode, Shown, Told};
use ringfence_snapshot::{Identity, JwtKey};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{ApiKey, KeyRecord, Origin, SigningInput, TokenError, TxnSpec};
use serde_json::{Map, Value, json};

use crate::rig::{TRUST_DOMAIN, unix};

pub const KEY_ID: &str = "t2";
pub const GATEWAY: &str = "spiffe://clinic.example/gateway/clinic";

pub struct Keeper {
    key: SigningKey,
    /// How many tokens it was asked for.
    pub asked: AtomicU64,
    /// How long its tokens live, in seconds.
    pub life: AtomicU64,
    /// How long it takes.
    pub delay: Mutex<Duration>,
    /// What it says instead; nothing at all for none in it.
    pub refuses: Mutex<Option<Option<NoAnswer>>>,
    /// For whom it signs instead.
    pub swaps: Mutex<Option<Identity>>,
    records: Mutex<Vec<KeyRecord>>,
}

impl Keeper {
    pub fn new() -> Self {
        Self {
            key: SigningKey::generate(Algorithm::Ed25519).unwrap(),
            asked: AtomicU64::new(0),
            life: AtomicU64::new(120),
            delay: Mutex::default(),
            refuses: Mutex::default(),
            swaps: Mutex::default(),
            records: Mutex::default(),
        }
    }

    /// What snapshots say of its key.
    pub fn public(&self) -> JwtKey {
        JwtKey { kid: KEY_ID.into(), spki: self.key.verifying_key().to_spki().into() }
    }

    /// API keys that control tells the node.
    pub fn know(&self, told: &ApiKeys) {
        let mut records = self.records.lock().unwrap();
        match told {
            ApiKeys::Part { records: more, .. } => records.extend(more.iter().cloned()),
            ApiKeys::Changed(record) => records.push(record.clone()),
        }
    }

    /// What control answers; nothing when it never does.
    pub fn answer(&self, mint: &Mint, fence: &Fence) -> Option<Result<Told, NoAnswer>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let delay = *self.delay.lock().unwrap();
        std::thread::sleep(delay);
        if let Some(refuses) = &*self.refuses.lock().unwrap() {
            return refuses.clone().map(Err);
        }
        Some(self.mint(mint, fence))
    }

    fn mint(&self, mint: &Mint, fence: &Fence) -> Result<Told, NoAnswer> {
        let denied = |reason: &str| NoAnswer::new(NoAnswerCode::Denied, reason);
        let (identity, shown, origin) = match &mint.shown {
            Shown::Token { provider, token } => {
                let shown = Credential::Token(provider.clone());
                let provider = fence.provider(provider).ok_or_else(|| denied("no such provider"))?;
                let payload = token.expose().split('.').nth(1).unwrap_or_default();
                let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
                let claims: Map<String, Value> = serde_json::from_slice(&payload).unwrap();
                let origin = Origin::of_claims(&provider.issuer, &claims).unwrap();
                (Identity::of_claims(provider, &claims).unwrap(), shown, Some(origin))
            }
            Shown::ApiKey(key) => {
                let key = ApiKey::parse(key.expose()).ok_or_else(|| denied("no API key"))?;
                let records = self.records.lock().unwrap();
                let record =
                    records.iter().find(|r| r.prefix == key.prefix()).ok_or_else(|| denied("unknown"))?;
                let lab = Identity::client("api_key", &record.client, record.scopes.clone());
                (lab, Credential::ApiKey, None)
            }
            Shown::Certificate { authority, .. } => {
                let shown = Credential::Certificate(authority.clone());
                (Identity::client(&shown.vouched_by(), "lab-7", Vec::new()), shown, None)
            }
            _ => return Err(denied("the played keeper knows tokens, API keys and certificates only")),
        };
        let identity = self.swaps.lock().unwrap().clone().unwrap_or(identity);
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        let expires_at = unix() + self.life.load(Ordering::Relaxed);
        let spec = TxnSpec {
            trust_domain: &domain,
            transaction: &format!("0192-{}", self.asked.load(Ordering::Relaxed)),
            subject: &identity.id,
            scope: &identity.scopes.join(" "),
            workload: &mint.workload,
            context: identity.to_context(&shown),
            request: mint.request.clone(),
            origin: origin.as_ref(),
            issued_at: unix(),
            expires_at,
        };
        let sign = |input: &[u8]| self.key.sign(input).map_err(TokenError::from);
        let token = spec.sign(self.key.algorithm().into(), KEY_ID, sign).unwrap();
        Ok(Told::Minted { token, expires_at })
    }

    /// A token of this type for ada with these members changed; null takes one out.
    pub fn sign(&self, typ: &str, changes: &Value) -> String {
        sign_by(&self.key, KEY_ID, typ, changes)
    }
}

/// The same by that key.
pub fn sign_by(key: &SigningKey, kid: &str, typ: &str, changes: &Value) -> String {
    let ada = json!({ "kind": "user", "provider": "staff", "id": "ada" });
    let mut claims = json!({
        "iat": unix(), "exp": unix() + 120, "aud": TRUST_DOMAIN, "txn": "0192", "sub": "ada", "scope": "read",
        "req_wl": GATEWAY, "tctx": { "idn": ada, "cred": { "token": "staff" } }, "rctx": { "ip": "192.0.2.7" },
    });
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        members.insert(name.clone(), value.clone());
        if value.is_null() {
            members.remove(name);
        }
    }
    let input = SigningInput::new(typ, key.algorithm().into(), kid, members).unwrap();
    let signature = key.sign(input.as_bytes()).unwrap();
    input.seal(&signature).unwrap()
}
