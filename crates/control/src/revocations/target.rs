//! What can be revoked, by the words of an operator or by the claims of a provider.

use axum::http::StatusCode;
use ringfence_keeper::protocol::{MAX_SVID_LIFE, MAX_TXN_LIFE};
use ringfence_model::Fence;
use ringfence_spiffe::{SpiffeId, TrustDomain};
use ringfence_store::Store;
use ringfence_token::{CERTIFICATE, Revocation, SESSION_MAX_LIFE, SVID, What};
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// The keeper lets SVIDs begin this many seconds before they are issued, for clocks that differ.
pub(crate) const SVID_BACKDATE: u64 = ringfence_keeper::protocol::SVID_BACKDATE;
/// How long is remembered what a provider may have issued: who issues for longer says so with the revocation.
const YEAR: u64 = 366 * 24 * 3600;
/// The same for a session at the provider, where an operator names it.
const WEEK: u64 = 7 * 24 * 3600;
/// What two clocks may differ by.
const SKEW: u64 = 120;

/// Body of `POST /v1/revocations`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// What kind of thing.
    pub what: RevokeWhat,
    /// The provider's name in the fence, where it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Which one.
    #[serde(default)]
    pub name: String,
    /// Why.
    #[serde(default)]
    pub why: String,
    /// Seconds for which it is remembered, where the provider's tokens live for longer than is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u64>,
    /// Of a service: none of its SVIDs counts, and it gets no other, until this is taken back.
    #[serde(default)]
    pub for_good: bool,
}

/// What can be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevokeWhat {
    /// A session of the gateway's, by its id.
    Session,
    /// A session at a provider, by `sid`.
    ProviderSession,
    /// Whatever a user was issued so far, by `sub`.
    User,
    /// Whatever a client was issued so far.
    Client,
    /// One token, by `jti`.
    Token,
    /// Whatever a key of the provider signed, by `kid`, and ever will.
    Key,
    /// Whatever the provider issued so far.
    Provider,
    /// An SVID by serial number, or all that a service was issued so far.
    Svid,
}

/// What is to be revoked, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    word: &'static str,
    provider: Option<String>,
    name: String,
    issuer: String,
    what: What,
    until: Until,
    /// How long it is remembered: seconds from now, or as long as there is.
    keep: Option<u64>,
}

/// What was issued when.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// Up to now.
    Now,
    /// Whenever.
    ForGood,
}

impl Target {
    fn of(word: &'static str, name: &str, issuer: &str, what: What, until: Until, keep: Option<u64>) -> Self {
        Self { word, provider: None, name: name.to_owned(), issuer: issuer.to_owned(), what, until, keep }
    }

    fn at(self, provider: &str) -> Self {
        Self { provider: Some(provider.to_owned()), ..self }
    }

    /// A session of the gateway's.
    pub(crate) fn session(trust_domain: &str, id: &str) -> Self {
        let keep = Some(SESSION_MAX_LIFE + SKEW);
        Self::of("session", id, trust_domain, What::Token(id.to_owned()), Until::ForGood, keep)
    }

    /// The same of something that ends at this moment anyway: users who sign in and out all day must not fill the list.
    pub(crate) fn ending(self, at: u64, now: u64) -> Self {
        let left = at.saturating_sub(now).saturating_add(SKEW);
        Self { keep: self.keep.map(|keep| keep.min(left)), ..self }
    }

    /// A session at a provider, of which nothing lives for longer than `life` seconds. Each that a user ends there comes here, so none is
    /// remembered for longer than it must.
    pub(crate) fn provider_session(provider: &str, issuer: &str, sid: &str, life: u64) -> Self {
        let what = What::Session(sid.to_owned());
        let keep = Some(life.min(WEEK) + SKEW);
        Self::of("provider-session", sid, issuer, what, Until::ForGood, keep).at(provider)
    }

    /// Whatever a user was issued so far.
    pub(crate) fn user(provider: &str, issuer: &str, subject: &str) -> Self {
        let what = What::Subject(subject.to_owned());
        Self::of("user", subject, issuer, what, Until::Now, Some(YEAR)).at(provider)
    }

    fn client(provider: &str, issuer: &str, client: &str) -> Self {
        let what = What::Client(client.to_owned());
        Self::of("client", client, issuer, what, Until::Now, Some(YEAR)).at(provider)
    }

    fn token(provider: &str, issuer: &str, jti: &str) -> Self {
        let what = What::Token(jti.to_owned());
        Self::of("token", jti, issuer, what, Until::ForGood, Some(YEAR)).at(provider)
    }

    fn key(provider: &str, issuer: &str, kid: &str) -> Self {
        // Whoever has the key signs tomorrow, too.
        Self::of("key", kid, issuer, What::Key(kid.to_owned()), Until::ForGood, None).at(provider)
    }

    fn issuer(provider: &str, issuer: &str) -> Self {
        Self::of("provider", provider, issuer, What::Issuer, Until::Now, Some(YEAR)).at(provider)
    }

    /// One client certificate, by its SHA-256, and whatever certificate names a client. When one was issued does not count: it may name any
    /// time, and the client may have got others.
    fn certificate(word: &'static str, name: &str, what: What) -> Self {
        Self::of(word, name, CERTIFICATE, what, Until::ForGood, None).at(CERTIFICATE)
    }

    /// An API key, for what was made of it: the key itself is revoked in its record.
    pub(crate) fn api_key(prefix: &str) -> Self {
        let keep = Some(MAX_TXN_LIFE + SKEW);
        Self::of("api-key", prefix, "api_key", What::Token(prefix.to_owned()), Until::ForGood, keep)
    }

    fn serial(serial: &str, left: u64) -> Self {
        Self::of("svid", serial, SVID, What::Token(serial.to_owned()), Until::ForGood, Some(left + SKEW))
    }

    /// All SVIDs of an identity that were issued so far.
    pub(crate) fn svids_so_far(id: &SpiffeId) -> Self {
        Self::svids(id, false)
    }

    fn svids(id: &SpiffeId, for_good: bool) -> Self {
        let (until, keep) = match for_good {
            true => (Until::ForGood, None),
            false => (Until::Now, Some(MAX_SVID_LIFE + SKEW)),
        };
        Self::of("svid", id.as_str(), SVID, What::Subject(id.as_str().to_owned()), until, keep)
    }

    pub(super) const fn word(&self) -> &'static str {
        self.word
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) fn provider(&self) -> Option<String> {
        self.provider.clone()
    }

    pub(super) fn revocation(self, now: u64) -> Revocation {
        let issued_until = match self.until {
            Until::ForGood => u64::MAX,
            // What counts of an SVID is when its validity begins.
            Until::Now if self.issuer == SVID => now - SVID_BACKDATE,
            Until::Now => now,
        };
        let forget_at = self.keep.map_or(u64::MAX, |keep| now.saturating_add(keep));
        Revocation { issuer: self.issuer, what: self.what, issued_until, forget_at }
    }
}

fn wrong(why: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, why.into())
}

impl Revoke {
    /// What is meant, by the names of the fence and the records of what was issued.
    pub(crate) async fn target(
        &self,
        fence: &Fence,
        trust_domain: &str,
        store: &Store,
        now: u64,
    ) -> Result<Target, Refusal> {
        if self.for_good && self.what != RevokeWhat::Svid {
            return Err(wrong(
                "only a service can be revoked for good: users, clients and providers are revoked up to now",
            ));
        }
        let mut target = match self.what {
            RevokeWhat::Session => Target::session(trust_domain, &self.name),
            RevokeWhat::Svid => self.svid(fence, trust_domain, store, now).await?,
            what if self.provider.as_deref() == Some(CERTIFICATE) => self.certificate(what)?,
            what => {
                let (provider, issuer) = self.provider(fence)?;
                match what {
                    RevokeWhat::ProviderSession => {
                        Target::provider_session(provider, issuer, &self.name, WEEK)
                    }
                    RevokeWhat::User => Target::user(provider, issuer, &self.name),
                    RevokeWhat::Client => Target::client(provider, issuer, &self.name),
                    RevokeWhat::Token => Target::token(provider, issuer, &self.name),
                    RevokeWhat::Key => Target::key(provider, issuer, &self.name),
                    _ => Target::issuer(provider, issuer),
                }
            }
        };
        if let (Some(keep), Some(usual)) = (self.keep, target.keep) {
            // Less than usual could let something come back.
            target.keep = Some(keep.max(usual));
        }
        Ok(target)
    }

    fn certificate(&self, what: RevokeWhat) -> Result<Target, Refusal> {
        match what {
            RevokeWhat::Client => {
                Ok(Target::certificate("client", &self.name, What::Client(self.name.clone())))
            }
            RevokeWhat::Token => {
                // As tools print it: in capitals, with colons.
                let name = self.name.replace(':', "").to_ascii_lowercase();
                if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(wrong(
                        "a client certificate is named by its SHA-256, 64 hexadecimal digits: events have it as `credential_uid`",
                    ));
                }
                Ok(Target::certificate("token", &name, What::Token(name.clone())))
            }
            _ => Err(wrong(
                "of certificates, one is revoked (`token certificate SHA256`) or all of a client (`client certificate NAME`)",
            )),
        }
    }

    fn provider<'f>(&self, fence: &'f Fence) -> Result<(&'f str, &'f str), Refusal> {
        let all = || fence.providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
        let name =
            self.provider.as_deref().ok_or_else(|| wrong("of which provider? Name it as the fence does"))?;
        if name == "api_key" {
            return Err(wrong(
                "API keys are revoked with `ringfence key revoke ID`; `ringfence key list` shows them",
            ));
        }
        match fence.provider(name) {
            Some(provider) => Ok((&provider.name, &provider.issuer)),
            None if fence.providers.is_empty() => {
                Err(wrong(format!("the fence has no provider `{name}`, nor any other")))
            }
            None => Err(wrong(format!("the fence has no provider `{name}`; it has {}", all()))),
        }
    }

    async fn svid(
        &self,
        fence: &Fence,
        trust_domain: &str,
        store: &Store,
        now: u64,
    ) -> Result<Target, Refusal> {
        let trust_domain = TrustDomain::new(trust_domain).map_err(|e| wrong(e.to_string()))?;
        let id = match fence.service(&self.name) {
            Some(service) => SpiffeId::service(&trust_domain, &service.name),
            None if self.name.starts_with("spiffe://") => SpiffeId::parse(&self.name),
            None => return self.by_serial(store, now).await,
        };
        id.map(|id| Target::svids(&id, self.for_good)).map_err(|e| wrong(e.to_string()))
    }

    async fn by_serial(&self, store: &Store, now: u64) -> Result<Target, Refusal> {
        let serial = self.name.to_ascii_lowercase();
        let issued = store.issued_serial(&serial).await?.filter(|issued| issued.kind == "x509");
        let Some(issued) = issued else {
            let reason = format!(
                "`{}` is neither a service of the fence nor the serial number of an SVID that was issued: `ringfence events` shows those",
                self.name
            );
            return Err(Refusal(StatusCode::NOT_FOUND, reason));
        };
        if self.for_good {
            return Err(wrong(
                "a serial number is revoked for good anyway; name the service to revoke it as a whole",
            ));
        }
        Ok(Target::serial(&serial, issued.not_after.saturating_sub(now)))
    }
}
