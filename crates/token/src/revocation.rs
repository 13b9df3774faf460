//! What was revoked before its end, looked up at each request.
//!
//! A token carries marks: digests of everything about it that can be revoked. So one table answers for all kinds, in
//! constant time, and it holds no identifier of anybody.

mod record;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ringfence_keys::digest::Sha256;
use serde_json::{Map, Value};

use crate::claims::{self, Times};
use crate::jws::TokenError;
use crate::origin::{self, Origin};
use crate::profile::Profile;
use crate::verified::VerifiedToken;

pub use record::{CERTIFICATE, Revocation, SVID, What};

/// Something about tokens that was revoked. Each belongs to an issuer, by the `iss` of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revoked<'a> {
    /// One token, by `jti`.
    Token(&'a str),
    /// A session, by `sid`.
    Session(&'a str),
    /// Everything that was issued to a user, by `sub`, until a moment.
    Subject(&'a str),
    /// Everything that was issued to a client until a moment.
    Client(&'a str),
    /// Everything that a key signed, by `kid`.
    Key(&'a str),
    /// Everything of the issuer until a moment.
    Issuer,
}

/// Sixteen bytes of a digest: 2^64 tries for two that are alike.
type Id = [u8; 16];

impl Revoked<'_> {
    fn id(self, issuer: &str) -> Id {
        let (tag, value) = match self {
            Self::Token(value) => (0_u8, value),
            Self::Session(value) => (1, value),
            Self::Subject(value) => (2, value),
            Self::Client(value) => (3, value),
            Self::Key(value) => (4, value),
            Self::Issuer => (5, ""),
        };
        let mut hash = Sha256::new();
        hash.update(&[tag]);
        hash.update(&(issuer.len() as u64).to_le_bytes());
        hash.update(issuer.as_bytes());
        hash.update(value.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finish()[..16]);
        id
    }

    const fn name(tag: u8) -> &'static str {
        match tag {
            0 => "the token itself",
            1 => "its session",
            2 => "all tokens of its user",
            3 => "all tokens of its client",
            4 => "the key that signed it",
            _ => "all tokens of its issuer",
        }
    }

    const fn tag(self) -> u8 {
        match self {
            Self::Token(_) => 0,
            Self::Session(_) => 1,
            Self::Subject(_) => 2,
            Self::Client(_) => 3,
            Self::Key(_) => 4,
            Self::Issuer => 5,
        }
    }
}

/// Something about a token that can be revoked, and when the token was issued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    id: Id,
    tag: u8,
    /// 0 where the token does not say: any revocation is later.
    issued_at: u64,
}

impl Mark {
    /// A session of ours, which is revoked for good or not.
    pub(crate) fn of_session(trust_domain: &str, id: &str) -> Self {
        let what = Revoked::Token(id);
        Self { id: what.id(trust_domain), tag: what.tag(), issued_at: 0 }
    }
}

/// The marks of a token; those of the credential that it stands for included.
pub(crate) fn marks(
    profile: &Profile,
    claims: &Map<String, Value>,
    times: &Times,
    key_id: Option<&str>,
) -> Result<Vec<Mark>, TokenError> {
    let issuer = claims::identifier(claims, "iss")?.or_else(|| profile.issuer()).unwrap_or_default();
    let mut marks = Vec::with_capacity(6);
    add(&mut marks, issuer, times.issued_at.unwrap_or(0), claims, key_id)?;
    if let Some(origin) = origin::read(profile.kind(), claims)? {
        // Both kinds that have one are for the trust domain alone.
        let trust_domain = claims.get("aud").and_then(Value::as_str).unwrap_or_default();
        marks.extend(origin::marks(origin, trust_domain)?);
    }
    Ok(marks)
}

pub(crate) fn add(
    marks: &mut Vec<Mark>,
    issuer: &str,
    issued_at: u64,
    claims: &Map<String, Value>,
    key_id: Option<&str>,
) -> Result<(), TokenError> {
    let claim = |name| claims::identifier(claims, name);
    let client = claim("client_id")?.or(claim("azp")?);
    let all = [
        claim("jti")?.map(Revoked::Token),
        claim("sid")?.map(Revoked::Session),
        claim("sub")?.map(Revoked::Subject),
        client.map(Revoked::Client),
        key_id.map(Revoked::Key),
        Some(Revoked::Issuer),
    ];
    marks.extend(all.into_iter().flatten().map(|what| Mark {
        id: what.id(issuer),
        tag: what.tag(),
        issued_at,
    }));
    Ok(())
}

/// More revocations than can be held: nothing was forgotten, but this one was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many revocations are in force: revoke the issuer's tokens as a whole, or raise the bound")]
pub struct Full;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Tokens issued up to this moment are revoked.
    issued_until: u64,
    /// When the last of them has ended, so that this can be forgotten.
    forget_at: u64,
}

/// What was revoked. Bounded: what does not fit is an error, never forgotten in silence.
#[derive(Clone, Debug)]
pub struct Revocations {
    entries: HashMap<Id, Entry>,
    capacity: usize,
    version: u64,
}

/// No two lists with different content have the same.
fn next_version() -> u64 {
    static VERSIONS: AtomicU64 = AtomicU64::new(1);
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}

impl Revocations {
    /// An empty list for at most `capacity` revocations.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity, version: next_version() }
    }

    /// Revokes `what` of `issuer`: every token of it issued up to `issued_until`. A token, a session and a key are revoked for good
    /// with [`u64::MAX`]. It is kept until `forget_at`, when the last such token has ended.
    ///
    /// # Errors
    /// [`Full`].
    pub fn revoke(
        &mut self,
        issuer: &str,
        what: Revoked<'_>,
        issued_until: u64,
        forget_at: u64,
    ) -> Result<(), Full> {
        let id = what.id(issuer);
        let full = self.entries.len() >= self.capacity;
        match self.entries.get_mut(&id) {
            Some(entry) => {
                entry.issued_until = entry.issued_until.max(issued_until);
                entry.forget_at = entry.forget_at.max(forget_at);
            }
            None if full => return Err(Full),
            None => {
                self.entries.insert(id, Entry { issued_until, forget_at });
            }
        }
        self.version = next_version();
        Ok(())
    }

    /// Changes with each revocation: what was checked against this version need not be checked again.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Forgets what ended before `now`.
    pub fn purge(&mut self, now: u64) {
        self.entries.retain(|_, entry| entry.forget_at > now);
    }

    /// Whether `token` was revoked.
    ///
    /// # Errors
    /// [`TokenError::Revoked`] with what was.
    pub fn check(&self, token: &VerifiedToken) -> Result<(), TokenError> {
        self.check_marks(&token.marks)
    }

    /// Whether the credential was revoked that `origin` describes, for one that is no token or was made into another.
    ///
    /// # Errors
    /// [`TokenError::Revoked`] with what was; [`TokenError::Claim`] for what describes nothing.
    pub fn check_origin(&self, origin: &Origin, trust_domain: &str) -> Result<(), TokenError> {
        self.check_marks(&origin.marks(trust_domain)?)
    }

    fn check_marks(&self, marks: &[Mark]) -> Result<(), TokenError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let hit = |mark: &&Mark| {
            self.entries.get(&mark.id).is_some_and(|entry| mark.issued_at <= entry.issued_until)
        };
        marks.iter().find(hit).map_or(Ok(()), |mark| Err(TokenError::Revoked(Revoked::name(mark.tag))))
    }

    /// What of this was revoked, about a credential that is no token of `issuer`; `None` if nothing was.
    #[must_use]
    pub fn hits(&self, issuer: &str, about: &[Revoked<'_>], issued_at: u64) -> Option<&'static str> {
        let hit = |what: &&Revoked<'_>| {
            self.entries.get(&what.id(issuer)).is_some_and(|entry| issued_at <= entry.issued_until)
        };
        if self.entries.is_empty() {
            None
        } else {
            about.iter().find(hit).map(|what| Revoked::name(what.tag()))
        }
    }

    /// How many are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Issuer, NOW};

    #[test]
    fn each_thing_about_a_token_can_be_revoked_and_nothing_else_is() {
        let issuer = Issuer::new();
        let token =
            |claims| issuer.profile().verify(&issuer.access_token(claims), &issuer.keys, NOW).unwrap();
        let mine = token(json!({"jti": "t1", "sid": "s1", "sub": "ann", "client_id": "app", "iat": NOW - 5}));
        let other =
            token(json!({"jti": "t2", "sid": "s2", "sub": "bob", "client_id": "web", "iat": NOW - 5}));
        let later = token(json!({"jti": "t3", "sid": "s1", "sub": "ann", "client_id": "app", "iat": NOW}));
        for (what, later_too) in [
            (Revoked::Token("t1"), false),
            (Revoked::Session("s1"), true),
            (Revoked::Subject("ann"), false),
            (Revoked::Client("app"), false),
        ] {
            let mut list = Revocations::new(10);
            let until = if later_too { u64::MAX } else { NOW - 1 };
            list.revoke(Issuer::ISSUER, what, until, NOW + 100).unwrap();
            assert!(matches!(list.check(&mine), Err(TokenError::Revoked(_))), "{what:?}");
            assert_eq!(list.check(&later).is_err(), later_too, "{what:?}");
            list.check(&other).unwrap();
            list.purge(NOW + 100);
            list.check(&mine).unwrap();
            list.revoke("https://else.example", what, u64::MAX, NOW + 100).unwrap();
            list.check(&mine).unwrap();
        }
        for what in [Revoked::Issuer, Revoked::Key("k")] {
            let mut list = Revocations::new(10);
            list.revoke(Issuer::ISSUER, what, NOW, NOW + 100).unwrap();
            assert!(list.check(&mine).is_err() && list.check(&other).is_err());
        }
    }

    #[test]
    fn a_token_that_does_not_say_when_it_was_issued_is_revoked_by_any_moment() {
        let issuer = Issuer::new();
        let claims = json!({"sub": "ann", "iat": null});
        let token = issuer.profile().verify(&issuer.access_token(claims), &issuer.keys, NOW).unwrap();
        let mut list = Revocations::new(1);
        list.revoke(Issuer::ISSUER, Revoked::Subject("ann"), 1, NOW + 9).unwrap();
        assert!(list.check(&token).is_err());
    }

    #[test]
    fn a_full_list_says_so_and_forgets_nothing() {
        let mut list = Revocations::new(2);
        list.revoke("i", Revoked::Token("a"), 1, 10).unwrap();
        list.revoke("i", Revoked::Token("b"), 1, 20).unwrap();
        assert_eq!(list.revoke("i", Revoked::Token("c"), 1, 10), Err(Full));
        list.revoke("i", Revoked::Token("a"), 5, 10).unwrap();
        list.purge(10);
        assert_eq!(list.len(), 1);
        list.revoke("i", Revoked::Token("c"), 1, 10).unwrap();
    }
}
