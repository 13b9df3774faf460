//! Who stands behind what a request showed. A proxy parses the internet and may be another's by now, so the keeper looks itself.
//!
//! What it cannot see: whether the proxy was really shown this credential lately, and whether its holder proved to hold a key that it is
//! bound to. So a proxy that was taken over can have tokens signed for those whose credentials pass through it, and for nobody else.

use std::sync::PoisonError;
use std::time::Duration;

use ringfence_keys::digest::sha256;
use ringfence_keys::to_hex;
use ringfence_model::{Binding, Credential};
use ringfence_snapshot::node::Shown;
use ringfence_snapshot::{Der, Identity, mapping_of};
use ringfence_spiffe::{CertificateDer, UnixTime};
use ringfence_token::{
    ApiKey, CERTIFICATE, Check, KeyRecord, KeySet, KeyTable, Origin, Possession, Profile, TokenError,
    VerifiedToken,
};
use serde_json::{Map, Value};

use crate::believed::Believed;
use crate::oracle::State;
use crate::policy::{Allowed, KnownProvider};
use crate::protocol::{Evidence, MintRequest, Refusal, RefusalCode};

/// Most claims of an introspection answer that are looked at.
const MAX_CLAIMS: usize = 128;

/// Somebody whose credential was verified.
pub(crate) struct Verified {
    pub(crate) identity: Identity,
    /// What was shown, which is among what whoever asks accepts.
    pub(crate) shown: Credential,
    /// What ends what is made of it.
    pub(crate) origin: Origin,
    /// When the credential ends.
    pub(crate) ends_at: u64,
}

/// Who it is, what the credential was, and when that ends.
type Whose = (Identity, Origin, u64);

/// What a credential is judged by at one moment.
pub(crate) struct Judge<'a> {
    pub(crate) state: &'a State,
    pub(crate) current: &'a Allowed,
    pub(crate) believed: &'a Believed,
    pub(crate) revocations: &'a ringfence_token::Revocations,
    pub(crate) now: u64,
}

pub(crate) fn denied(e: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Denied, e.to_string())
}

fn malformed(reason: &str) -> Refusal {
    Refusal::new(RefusalCode::Malformed, reason)
}

impl Judge<'_> {
    /// Whose credential a request shows, if whoever asks may accept its kind.
    pub(crate) fn verify(&self, request: &MintRequest) -> Result<Verified, Refusal> {
        let accepted = self.current.minter(&request.ask.workload, self.now)?;
        let accepts = |credential: Credential| {
            if accepted.contains(&credential) {
                return Ok(credential);
            }
            let reason = format!("{} accepts no {credential}", request.ask.workload);
            Err(Refusal::new(RefusalCode::NotAllowed, reason))
        };
        let (shown, believed) = match (&request.ask.shown, &request.evidence) {
            (Shown::Token { provider, token }, None) => {
                let shown = accepts(Credential::Token(provider.clone()))?;
                (shown, self.token(self.current.provider(provider)?, token.expose())?)
            }
            (Shown::Opaque { provider, .. }, Some(Evidence::Introspected { claims, until })) => {
                let shown = accepts(Credential::Token(provider.clone()))?;
                (shown, self.opaque(self.current.provider(provider)?, claims, *until)?)
            }
            (Shown::Session(token), None) => {
                let (token, identity) = self.session(token.expose())?;
                let shown = accepts(Credential::Login(identity.provider.clone()))?;
                (shown, (identity, Origin::of_token(&token), token.expires_at()))
            }
            (Shown::ApiKey(key), Some(Evidence::ApiKey(record))) => {
                (accepts(Credential::ApiKey)?, self.api_key(key.expose(), record)?)
            }
            (Shown::Certificate { authority, chain }, None) => {
                let shown = accepts(Credential::Certificate(authority.clone()))?;
                let believed = self.certificate(&shown, authority, chain)?;
                (shown, believed)
            }
            _ => return Err(malformed("the evidence does not fit what was shown")),
        };
        let (identity, origin, ends_at) = believed;
        Ok(Verified { identity, shown, origin, ends_at })
    }

    /// A JWT of a provider.
    fn token(&self, provider: &KnownProvider, token: &str) -> Result<Whose, Refusal> {
        let keys = self.keys_of(provider)?;
        let token = self.check(token, &provider.profile, &keys)?;
        let identity = Identity::of_claims(&provider.declared, token.claims()).map_err(denied)?;
        Ok((identity, Origin::of_token(&token), token.expires_at()))
    }

    /// What control says that a provider says of an opaque token.
    fn opaque(
        &self,
        provider: &KnownProvider,
        claims: &Map<String, Value>,
        until: u64,
    ) -> Result<Whose, Refusal> {
        let declared = &provider.declared;
        if !declared.introspect {
            let reason = format!("the fence does not have {} asked for opaque tokens", declared.name);
            return Err(Refusal::new(RefusalCode::NotAllowed, reason));
        }
        if claims.len() > MAX_CLAIMS {
            return Err(malformed("an introspection answer with that many members"));
        }
        let ends_at = match claims.get("exp") {
            None => until,
            Some(exp) => exp.as_u64().ok_or_else(|| denied(TokenError::Claim("exp")))?.min(until),
        };
        if ends_at <= self.now {
            return Err(denied(TokenError::Expired));
        }
        if claims.get("iss").is_some_and(|iss| iss.as_str() != Some(&declared.issuer)) {
            return Err(denied(TokenError::Issuer));
        }
        if declared.bound != Binding::Any && !claims.get("cnf").is_some_and(Value::is_object) {
            return Err(denied(TokenError::NotBound("a key or certificate of its client")));
        }
        let identity = Identity::of_claims(declared, claims).map_err(denied)?;
        let origin = Origin::of_claims(&declared.issuer, claims).map_err(denied)?;
        self.unrevoked(&origin)?;
        Ok((identity, origin, ends_at))
    }

    /// A session token of ours, of a provider that people still sign in at.
    pub(crate) fn session(&self, token: &str) -> Result<(std::sync::Arc<VerifiedToken>, Identity), Refusal> {
        let token = self.check(token, &self.current.session, &self.state.signers.txn_keys)?;
        let identity = Identity::of_session(&token).map_err(denied)?;
        let provider = self.current.provider(&identity.provider)?;
        let issuer = token.claims().get("origin").and_then(|origin| origin.get("iss"));
        if issuer.and_then(Value::as_str) != Some(provider.declared.issuer.as_str()) {
            return Err(denied("the session is of somebody whose provider has another issuer now"));
        }
        if token.mapping() != Some(&mapping_of(&provider.declared)) {
            return Err(denied(
                "the session was made by another mapping of its provider's claims (`claims`)",
            ));
        }
        if provider.login.is_none() {
            let reason = format!("the fence does not have people sign in at {} any more", identity.provider);
            return Err(Refusal::new(RefusalCode::NotAllowed, reason));
        }
        Ok((token, identity))
    }

    fn api_key(&self, text: &str, record: &KeyRecord) -> Result<Whose, Refusal> {
        let key = ApiKey::parse(text).ok_or_else(|| denied("this is no API key"))?;
        let mut table = KeyTable::new();
        table.insert(record).map_err(|e| malformed(&e.to_string()))?;
        let known = table.authenticate(&key, self.now).map_err(denied)?;
        let identity =
            Identity::client("api_key", known.client(), known.scopes().map(ToOwned::to_owned).collect());
        identity.check().map_err(denied)?;
        let origin = Origin::named("api_key", &known.prefix().to_string(), known.client());
        self.unrevoked(&origin)?;
        let previous = record.previous.filter(|_| known.is_previous()).map(|(_, until)| until);
        let ends_at = record.expires_at.into_iter().chain(previous).min().unwrap_or(u64::MAX);
        Ok((identity, origin, ends_at))
    }

    /// The chain of a client certificate, by the authority of that file alone. The handshake proved that its holder has the key.
    fn certificate(&self, shown: &Credential, authority: &str, chain: &[Der]) -> Result<Whose, Refusal> {
        let nobody = || denied("the snapshot in force has no such authority");
        let authority = self.current.authority(authority).ok_or_else(nobody)?;
        let certificates: Vec<CertificateDer<'_>> =
            chain.iter().map(|der| CertificateDer::from(der.0.as_slice())).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.now));
        let client = authority.verify(&certificates, now).map_err(denied)?;
        let identity = Identity::client(&shown.vouched_by(), client.name(), Vec::new());
        identity.check().map_err(denied)?;
        let leaf = to_hex(&sha256(chain.first().map_or(&[], |der| &der.0)));
        let origin = Origin::named(CERTIFICATE, &leaf, client.name());
        self.unrevoked(&origin)?;
        // The last second in which it is valid, and the end is the first in which it is not.
        Ok((identity, origin, client.not_after_unix() + 1))
    }

    pub(crate) fn keys_of(&self, provider: &KnownProvider) -> Result<std::sync::Arc<KeySet>, Refusal> {
        self.believed.keys(&provider.declared.name, &provider.declared.issuer, self.now)
    }

    pub(crate) fn unrevoked(&self, origin: &Origin) -> Result<(), Refusal> {
        self.revocations.check_origin(origin, self.current.trust_domain().as_str()).map_err(denied)
    }

    fn check(
        &self,
        token: &str,
        profile: &Profile,
        keys: &KeySet,
    ) -> Result<std::sync::Arc<VerifiedToken>, Refusal> {
        let check = Check {
            profile,
            keys,
            revocations: self.revocations,
            // Nobody proves anything to the keeper: the gateway, which has the connection, asked for it.
            possession: Possession::ELSEWHERE,
            now: self.now,
        };
        let mut verifier = self.believed.verifier.lock().unwrap_or_else(PoisonError::into_inner);
        verifier.verify(token, &check).map_err(denied)
    }
}
