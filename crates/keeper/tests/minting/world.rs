//! A keeper that knows a provider and what was revoked: nothing.

use ringfence_keeper::ClientError;
use ringfence_keeper::protocol::{
    Evidence, MintRequest, OpenSession, Refusal, SessionToken, ToldRevocations, TxnToken,
};
use ringfence_keys::{Secret, VerifyingKey};
use ringfence_snapshot::node::{Mint, Shown};
use ringfence_snapshot::{ClientAuthority, Snapshot};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{ApiKey, KeyRecord, KeySet, Profile, Revocation, TokenError, VerifiedToken, What};
use serde_json::json;
use tempfile::TempDir;

use crate::common::{Keeper, keeper, now, snapshot};
use crate::provider::{ISSUER, Provider};

pub(crate) const GATEWAY: &str = "spiffe://clinic.example/gateway/clinic";

pub(crate) const FENCE: &str = "
fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, hosts: [clinic.example] }
providers:
  staff:
    issuer: https://id.clinic.example
    audiences: [clinic]
    client: { id: portal, secret: { env: STAFF } }
    login: { absolute: 2h }
    opaque: introspect
    claims: { user: name, groups: groups }
  partners:
    issuer: https://partners.example
    audiences: [clinic]
services:
  portal:
    run: [portal]
    listen: 9000
    calls: [records, billing]
    routes: [{ path: /, accept: [{ login: staff }, { token: staff }, api_key] }]
  records: { run: [records], listen: 9001, accept: [{ token: staff }] }
  billing: { run: [billing], listen: 9003 }
";

pub(crate) struct World {
    pub(crate) data: TempDir,
    pub(crate) keeper: Keeper,
    pub(crate) provider: Provider,
}

impl World {
    pub(crate) async fn new() -> Self {
        let w = Self::untold().await;
        w.tell_revoked(&[]).await;
        w.keeper.client.provider_keys(w.provider.keys("staff")).await.unwrap();
        w
    }

    /// It has a snapshot, and nothing was said to it.
    pub(crate) async fn untold() -> Self {
        let data = tempfile::tempdir().unwrap();
        let w = Self { keeper: keeper(data.path()), data, provider: Provider::new(ISSUER) };
        w.sign(1, FENCE).await;
        w
    }

    pub(crate) async fn sign(&self, revision: u64, fence: &str) {
        self.sign_with(revision, fence, Vec::new()).await;
    }

    pub(crate) async fn sign_with(&self, revision: u64, fence: &str, authorities: Vec<ClientAuthority>) {
        let bundle = self.keeper.client.bundle().await.unwrap();
        let signed = Snapshot { authorities, ..snapshot(fence, revision, bundle) };
        let text = serde_json::to_string(&signed).unwrap();
        self.keeper.client.sign_snapshot(text).await.unwrap();
    }

    pub(crate) async fn tell_revoked(&self, entries: &[Revocation]) {
        let told = ToldRevocations::Part { first: true, last: true, entries: entries.to_vec() };
        self.keeper.client.revocations(told).await.unwrap();
    }

    pub(crate) async fn mint(&self, request: MintRequest) -> Result<TxnToken, Refusal> {
        match self.keeper.client.mint(vec![request]).await {
            Ok(mut results) => results.remove(0),
            Err(ClientError::Refused(refusal)) => Err(refusal),
            Err(e) => panic!("{e}"),
        }
    }

    pub(crate) async fn open(&self, id_token: &str) -> Result<SessionToken, ClientError> {
        let request = OpenSession {
            provider: "staff".into(),
            id_token: secret(id_token),
            nonce: "n".into(),
            scopes: vec!["openid".into()],
        };
        self.keeper.client.open_session(request).await
    }

    /// What whoever has the keeper's bundle makes of a transaction token.
    pub(crate) async fn verify(&self, token: &str) -> Result<VerifiedToken, TokenError> {
        Profile::txn_token(&domain()).verify(token, &self.own_keys().await, now())
    }

    pub(crate) async fn own_keys(&self) -> KeySet {
        let bundle = self.keeper.client.bundle().await.unwrap();
        let key = |key: &ringfence_snapshot::JwtKey| {
            (key.kid.clone(), VerifyingKey::from_spki(&key.spki.0).unwrap())
        };
        KeySet::from_keys(bundle.txn.iter().map(key))
    }
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("clinic.example").unwrap()
}

pub(crate) fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

pub(crate) fn token(provider: &str, token: &str) -> Shown {
    Shown::Token { provider: provider.into(), token: secret(token) }
}

/// The gateway asks for a token for whoever showed this.
pub(crate) fn ask(shown: Shown) -> MintRequest {
    let request = json!({ "ip": "192.0.2.7" }).as_object().unwrap().clone();
    MintRequest {
        ask: Mint { shown, workload: GATEWAY.into(), scope: String::new(), request },
        evidence: None,
    }
}

pub(crate) trait With {
    fn with(self, evidence: Evidence) -> Self;
}

impl With for MintRequest {
    fn with(self, evidence: Evidence) -> Self {
        Self { evidence: Some(evidence), ..self }
    }
}

pub(crate) fn key_record(key: &ApiKey) -> KeyRecord {
    KeyRecord {
        prefix: key.prefix(),
        secret: key.digest(),
        previous: None,
        client: "lab".into(),
        scopes: vec!["read".into()],
        not_before: None,
        expires_at: None,
        disabled: false,
        last_used: None,
    }
}

pub(crate) fn revoked(issuer: &str, what: What) -> Revocation {
    Revocation { issuer: issuer.into(), what, issued_until: u64::MAX, forget_at: now() + 3600 }
}
