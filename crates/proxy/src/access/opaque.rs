//! Tokens that are no JWT: only their provider knows what they are, so it is asked (RFC 7662), about once a minute for each.
//!
//! What it said is remembered by the digest of the token together with all that the fence says of the provider: a provider that is
//! declared otherwise is asked anew, and no other's answer counts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfence_keys::Secret;
use ringfence_keys::digest::Sha256;
use ringfence_model::{Binding, Provider};
use ringfence_snapshot::Identity;
use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Told};
use ringfence_token::{MAX_TOKEN, Origin, TokenError};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::again::unknown;
use super::{Evidence, Lookup, Principal, RouteAccess};
use crate::deny::Deny;
use crate::door::whose;
use crate::handle::Ctx;
use crate::shared::Shared;
use crate::table::TableRef;
use crate::worker::unix_now;

/// Answers that a thread remembers.
const REMEMBERED: usize = 16_384;
/// Questions that a thread has under way, and those of them that one address began: nobody keeps others from being asked for.
const MAX_FLIGHTS: usize = 64;
const MAX_FLIGHTS_EACH: usize = 16;
/// How long a request waits for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest that is believed what a provider said, in seconds: that a token holds, that it does not, and that there was no answer.
const KEEP: u64 = 60;
const KEEP_NOTHING: u64 = 10;
const KEEP_TROUBLE: u64 = 2;

type Digest = [u8; 32];

/// What a thread knows of opaque tokens.
#[derive(Default)]
pub(crate) struct Opaques {
    known: RefCell<HashMap<Digest, Kept>>,
    flights: RefCell<HashMap<Digest, Flight>>,
}

/// A question under way.
struct Flight {
    done: Rc<Notify>,
    /// Whose request began it.
    by: IpAddr,
}

/// Tokens that were vouched for, for all threads: what one has asked for, another need not.
#[derive(Debug, Default)]
pub(crate) struct Vouched(Mutex<HashMap<Digest, (Arc<KnownOpaque>, u64)>>);

impl Vouched {
    fn all(&self) -> MutexGuard<'_, HashMap<Digest, (Arc<KnownOpaque>, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, digest: &Digest) -> Option<Kept> {
        let (known, until) = self.all().get(digest).filter(|(_, until)| unix_now() < *until)?.clone();
        Some(Kept { outcome: Ok(known), until })
    }

    fn add(&self, digest: Digest, kept: &Kept) {
        let Ok(known) = &kept.outcome else { return };
        let (mut all, now) = (self.all(), unix_now());
        if all.len() >= REMEMBERED {
            all.retain(|_, (_, until)| now < *until);
        }
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(digest, (known.clone(), kept.until));
    }
}

struct Kept {
    outcome: Result<Arc<KnownOpaque>, Unknown>,
    until: u64,
}

/// A token that its provider vouched for.
#[derive(Debug)]
pub(crate) struct KnownOpaque {
    identity: Arc<Identity>,
    origin: Origin,
    digest: Digest,
}

/// Why there is none.
#[derive(Clone)]
struct Unknown {
    status: u16,
    rule: &'static str,
    reason: String,
}

impl Unknown {
    fn new(status: u16, rule: &'static str, reason: impl Into<String>) -> Self {
        Self { status, rule, reason: reason.into() }
    }
}

impl KnownOpaque {
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether what it stands for was revoked.
    pub(super) fn check(
        &self,
        revocations: &ringfence_token::Revocations,
        trust_domain: &str,
    ) -> Result<(), TokenError> {
        revocations.check_origin(&self.origin, trust_domain)
    }
}

/// Whether a token might be a JWT, which is verified here and shown to nobody.
pub(super) fn is_jwt(token: &str) -> bool {
    token.starts_with("ey") && token.bytes().filter(|byte| *byte == b'.').count() >= 2
}

/// A token as providers issue them (RFC 6750, section 2.1).
fn is_token(token: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(good)
}

fn digest(provider: &Provider, token: &str) -> Digest {
    let mut hash = Sha256::new();
    let bound = [provider.bound as u8];
    let groups = provider.groups_claim.as_deref().unwrap_or_default();
    let parts = [&*provider.name, &*provider.issuer, &*provider.user_claim, groups, token].map(str::as_bytes);
    for part in parts.into_iter().chain([&bound[..]]) {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finish()
}

/// Whether what one provider said counts for the other, which is mostly the same one as the fence says it now.
pub(super) fn is_same(one: &Provider, other: &Provider) -> bool {
    one.introspect == other.introspect && digest(one, "") == digest(other, "")
}

/// Whom a provider says that an active token is of.
fn read(provider: &Provider, claims: &Map<String, Value>, digest: Digest) -> Result<KnownOpaque, Unknown> {
    // Nothing shown with an opaque token could be held against what it is bound to, so a bound one is nobody's.
    let dpop =
        claims.get("token_type").and_then(Value::as_str).is_some_and(|t| t.eq_ignore_ascii_case("dpop"));
    if claims.get("cnf").is_some_and(|cnf| !cnf.is_null()) || dpop {
        return Err(Unknown::new(
            401,
            "token.bound",
            "an opaque token that is bound to a key is not accepted",
        ));
    }
    if provider.bound != Binding::Any {
        return Err(Unknown::new(
            401,
            "token.bound",
            "the token is not bound to its client, as the fence demands",
        ));
    }
    let user =
        |e: &dyn std::fmt::Display| Unknown::new(401, "token.user", format!("the token names nobody: {e}"));
    let identity = Arc::new(Identity::of_claims(provider, claims).map_err(|e| user(&e))?);
    let origin = Origin::of_claims(&provider.issuer, claims).map_err(|e| user(&e))?;
    Ok(KnownOpaque { identity, origin, digest })
}

impl Opaques {
    fn kept(&self, digest: &Digest) -> Option<Result<Arc<KnownOpaque>, Unknown>> {
        let known = self.known.borrow();
        known.get(digest).filter(|kept| unix_now() < kept.until).map(|kept| kept.outcome.clone())
    }

    fn keep(&self, digest: Digest, kept: Kept) {
        let (mut known, now) = (self.known.borrow_mut(), unix_now());
        if known.len() >= REMEMBERED {
            known.retain(|_, kept| now < kept.until);
        }
        // Whoever sends that many within seconds is asked for again sooner; what was vouched for goes last.
        if known.len() >= REMEMBERED {
            known.retain(|_, kept| kept.outcome.is_ok());
        }
        if known.len() < REMEMBERED || kept.outcome.is_ok() {
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(digest, kept);
        }
    }

    /// What the provider says of a token, however many requests show it at once.
    async fn known(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        provider: &Provider,
        token: &str,
        (lookup, by): (Lookup, IpAddr),
    ) -> Result<Arc<KnownOpaque>, Unknown> {
        let digest = digest(provider, token);
        if let Some(kept) = self.kept(&digest) {
            return kept;
        }
        if let Some(kept) = shared.vouched.find(&digest) {
            let outcome = kept.outcome.clone();
            self.keep(digest, kept);
            return outcome;
        }
        if lookup == Lookup::Here {
            return Err(Unknown::new(
                401,
                "token.unknown",
                "the token is not known here, and nobody is asked",
            ));
        }
        let flight = self.flights.borrow().get(&digest).map(|flight| flight.done.clone());
        let flight = match flight {
            Some(flight) => flight,
            None if !has_room(&self.flights.borrow(), by) => {
                return Err(Unknown::new(503, "introspection.busy", "too many tokens are being asked for"));
            }
            None => {
                let flight = Rc::<Notify>::default();
                self.flights.borrow_mut().insert(digest, Flight { done: flight.clone(), by });
                // Its own task: hanging up asks for nothing again.
                let (opaques, shared) = (self.clone(), shared.clone());
                let (provider, token) = (provider.clone(), Secret::new(token.to_owned()));
                tokio::task::spawn_local(async move {
                    let ask = Ask::Introspect { provider: provider.name.clone(), token };
                    let kept = judged(&provider, shared.asks.ask(ask).await, digest);
                    shared.vouched.add(digest, &kept);
                    opaques.keep(digest, kept);
                    if let Some(flight) = opaques.flights.borrow_mut().remove(&digest) {
                        flight.done.notify_waiters();
                    }
                });
                flight
            }
        };
        let _ = timeout(PATIENCE, flight.notified()).await;
        let late =
            || Unknown::new(503, "introspection.late", "the provider has not said in time what the token is");
        self.kept(&digest).unwrap_or_else(|| Err(late()))
    }
}

/// Whether one more question may be under way for an address.
fn has_room(flights: &HashMap<Digest, Flight>, by: IpAddr) -> bool {
    let of_it = || flights.values().filter(|flight| flight.by == by).count();
    flights.len() < MAX_FLIGHTS && of_it() < MAX_FLIGHTS_EACH
}

fn judged(provider: &Provider, told: Result<Told, NoAnswer>, digest: Digest) -> Kept {
    let now = unix_now();
    match told {
        Ok(Told::Introspected { active: true, claims, until }) => match read(provider, &claims, digest) {
            Ok(known) => Kept { outcome: Ok(Arc::new(known)), until: until.min(now + KEEP) },
            Err(unknown) => Kept { outcome: Err(unknown), until: now + KEEP_NOTHING },
        },
        Ok(Told::Introspected { active: false, .. }) => {
            let unknown =
                Unknown::new(401, "token.inactive", "the provider says that the token does not hold");
            Kept { outcome: Err(unknown), until: now + KEEP_NOTHING }
        }
        Err(NoAnswer { code: NoAnswerCode::Denied | NoAnswerCode::Malformed, reason }) => {
            Kept { outcome: Err(Unknown::new(401, "token.invalid", reason)), until: now + KEEP_NOTHING }
        }
        Err(NoAnswer { reason, .. }) => {
            let unknown = Unknown::new(503, "introspection.unavailable", reason);
            Kept { outcome: Err(unknown), until: now + KEEP_TROUBLE }
        }
        Ok(_) => {
            let unknown = Unknown::new(503, "introspection.unavailable", "control gave another answer");
            Kept { outcome: Err(unknown), until: now + KEEP_TROUBLE }
        }
    }
}

/// Lets in whoever shows a token that its provider vouches for.
pub(super) async fn authenticate(
    ctx: &Ctx<'_>,
    table: &TableRef,
    access: &RouteAccess,
    (place, lookup): (usize, Lookup),
    token: &str,
) -> Result<Principal, Deny> {
    let refuse = |unknown: Unknown| {
        let deny = Deny::new(unknown.status, "authenticate", unknown.rule, unknown.reason);
        let deny = deny.position(access.position());
        match unknown.status {
            401 => deny.challenge(access.challenge(&table.snapshot.fence, ", error=\"invalid_token\"")),
            _ => deny,
        }
    };
    if !is_token(token) {
        return Err(refuse(Unknown::new(401, "token.invalid", "what was shown is no token")));
    }
    let (worker, provider) = (ctx.worker, table.providers()[place].declared());
    let asked = (lookup, whose(ctx.peer.source.ip()));
    let known = worker.opaques.known(&worker.shared, provider, token, asked).await.map_err(refuse)?;
    let revoked = worker.tokens.revoked();
    let tokens = &revoked.as_ref().ok_or_else(unknown)?.tokens;
    known
        .check(tokens, table.trust_domain.as_str())
        .map_err(|error| refuse(Unknown::new(401, "token.revoked", error.to_string())))?;
    let identity = known.identity.clone();
    Ok(Principal { table: table.clone(), identity, evidence: Evidence::Opaque(known) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_the_questions_of_others() {
        let mut flights = HashMap::new();
        let mut fill = |by: IpAddr| {
            let mut begun = 0;
            while has_room(&flights, by) {
                let digest = [flights.len() as u8; 32];
                flights.insert(digest, Flight { done: Rc::default(), by });
                begun += 1;
            }
            begun
        };
        assert_eq!(fill([10, 0, 0, 1].into()), MAX_FLIGHTS_EACH);
        assert_eq!(fill([10, 0, 0, 1].into()), 0);
        assert_eq!(fill([10, 0, 0, 2].into()), MAX_FLIGHTS_EACH);
        let others: usize = (3..20).map(|n| fill([10, 0, 0, n].into())).sum();
        assert_eq!(others, MAX_FLIGHTS - 2 * MAX_FLIGHTS_EACH);
    }

    #[test]
    fn a_jwt_is_never_shown_to_a_provider() {
        for jwt in ["eyJhbGciOiJFUzI1NiJ9.e30.c2ln", "eyJ9.e30.", "ey..", "eyJ.a.b.c.d"] {
            assert!(is_jwt(jwt), "{jwt}");
        }
        for opaque in ["eyJ", "2YotnFZFEjr1zCsicMWpAA", "a.b.c", ""] {
            assert!(!is_jwt(opaque), "{opaque}");
        }
    }

    #[test]
    fn only_what_a_provider_may_issue_is_asked_for() {
        for good in ["2YotnFZFEjr1zCsicMWpAA", "a.b-c_d~e+f/g=="] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", "a b", "a\"b", "a&token_type_hint=x", "ä", &"a".repeat(MAX_TOKEN + 1)] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
