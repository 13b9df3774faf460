//! What a browser keeps for us: who signed in, and the sign-in that is under way. Both are sealed cookies.
//!
//! A session lives in the cookie, not in a table: every gateway opens it without asking anybody, and none loses it in a restart.
//! What a cookie cannot say is that it was revoked; for that each session has a random id, which revocations name. A
//! cookie that does not open is no session, never an error: whoever tampers is simply not signed in.

mod code;
mod cookie;
mod jar;
mod login;
mod path;

pub use cookie::{CookieError, Cookies, MAX_COOKIE};
pub use jar::without_ours;
pub use login::Login;
pub use path::ReturnPath;

use crate::session::code::{Reader, Writer};

/// Most groups or scopes that a session carries.
const MAX_LIST: usize = 256;
/// Longest text in it.
const MAX_TEXT: usize = 2048;
/// A cookie is renewed once this part of its idle time has passed, not with each answer.
const RENEW_PART: u64 = 4;

/// Somebody who signed in at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Random; what revocations name.
    pub id: [u8; 16],
    /// The fence's name of the provider.
    pub provider: String,
    /// The provider's `sub`: what is unique there and never given to another.
    pub subject: String,
    /// The name by which policies and services know the user.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Scopes that were granted.
    pub scopes: Vec<String>,
    /// How it was authenticated, as the provider calls it; may be empty.
    pub acr: String,
    /// When it was, Unix time in seconds; 0 if the provider did not say.
    pub auth_time: u64,
    /// When it ends at the latest, Unix time in seconds.
    pub expires: u64,
    /// When it ends unless it is used.
    pub idle_ends: u64,
    /// How many seconds it may be unused.
    pub idle: u64,
    /// When what the provider says of the user wants to be refreshed; 0 for never.
    pub refresh_at: u64,
    /// Under what control keeps the refresh token; not the token itself.
    pub refresh: Option<[u8; 16]>,
}

impl Session {
    /// Whether it holds at `now`.
    #[must_use]
    pub const fn is_live(&self, now: u64) -> bool {
        now < self.expires && now < self.idle_ends
    }

    /// When its cookie ends: the earlier of both ends.
    #[must_use]
    pub fn ends(&self) -> u64 {
        self.expires.min(self.idle_ends)
    }

    /// The session with its idle time begun anew, if enough of it has passed that a new cookie is worth its bytes.
    #[must_use]
    pub fn renewed(&self, now: u64) -> Option<Self> {
        let idle_ends = now.saturating_add(self.idle);
        let worth = idle_ends >= self.idle_ends.saturating_add((self.idle / RENEW_PART).max(1))
            && self.idle_ends < self.expires;
        (self.is_live(now) && worth).then(|| Self { idle_ends, ..self.clone() })
    }

    /// Its compact form; what a cookie seals.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(&self.id);
        out.text(&self.provider);
        out.text(&self.subject);
        // Mostly the subject itself.
        out.text(if self.user == self.subject { "" } else { &self.user });
        out.list(&self.groups);
        out.list(&self.scopes);
        out.text(&self.acr);
        for number in [self.auth_time, self.expires, self.idle_ends, self.idle, self.refresh_at] {
            out.number(number);
        }
        match &self.refresh {
            None => out.number(0),
            Some(handle) => {
                out.number(1);
                out.bytes(handle);
            }
        }
        out.finish()
    }

    /// Reads the compact form; `None` unless it is exactly one session.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        let id = input.array()?;
        let provider = input.text(MAX_TEXT)?;
        let subject = input.text(MAX_TEXT)?;
        let user = match input.text(MAX_TEXT)? {
            user if user.is_empty() => subject.clone(),
            // One spelling: what equals the subject is written as nothing.
            user if user == subject => return None,
            user => user,
        };
        let session = Self {
            id,
            provider,
            subject,
            user,
            groups: input.list(MAX_LIST, MAX_TEXT)?,
            scopes: input.list(MAX_LIST, MAX_TEXT)?,
            acr: input.text(MAX_TEXT)?,
            auth_time: input.number()?,
            expires: input.number()?,
            idle_ends: input.number()?,
            idle: input.number()?,
            refresh_at: input.number()?,
            refresh: match input.number()? {
                0 => None,
                1 => Some(input.array()?),
                _ => return None,
            },
        };
        input.at_end().then_some(session)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn session() -> Session {
        Session {
            id: [3; 16],
            provider: "staff".into(),
            subject: "248289761001".into(),
            user: "nora".into(),
            groups: vec!["nurse".into(), "ward-3".into()],
            scopes: vec!["openid".into(), "profile".into()],
            acr: "phr".into(),
            auth_time: 1_800_000_000,
            expires: 1_800_028_800,
            idle_ends: 1_800_001_800,
            idle: 1800,
            refresh_at: 0,
            refresh: Some([9; 16]),
        }
    }

    prop_compose! {
        pub(crate) fn sessions()(
            id: [u8; 16], provider in "[a-z]{1,12}", subject in ".{1,40}", user in ".{0,40}",
            groups in prop::collection::vec(".{0,30}", 0..12), scopes in prop::collection::vec("[a-z]{1,9}", 0..6),
            acr in ".{0,20}", numbers: [u64; 5], refresh: Option<[u8; 16]>,
        ) -> Session {
            let [auth_time, expires, idle_ends, idle, refresh_at] = numbers;
            let user = if user.is_empty() { subject.clone() } else { user };
            Session { id, provider, subject, user, groups, scopes, acr, auth_time, expires, idle_ends, idle, refresh_at, refresh }
        }
    }

    #[test]
    fn a_session_ends_when_it_is_unused_and_at_the_latest_at_its_end() {
        let session = session();
        let start = session.auth_time;
        assert!(session.is_live(start) && session.is_live(start + 1799));
        assert!(!session.is_live(start + 1800));
        assert!(session.renewed(start + 100).is_none(), "too early to be worth a cookie");
        let renewed = session.renewed(start + 900).unwrap();
        assert_eq!(renewed.idle_ends, start + 2700);
        assert!(session.renewed(start + 1800).is_none(), "a dead session does not come back");
        let late = Session { idle_ends: session.expires + 5, ..session.clone() };
        assert!(late.renewed(session.expires - 1).is_none(), "nothing is gained past its end");
        assert!(!late.is_live(session.expires));
    }

    #[test]
    fn a_usual_session_is_small() {
        assert!(session().encode().len() < 130, "{}", session().encode().len());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(session in sessions()) {
            prop_assert_eq!(Session::decode(&session.encode()), Some(session));
        }

        #[test]
        fn a_session_has_one_spelling(bytes: Vec<u8>) {
            if let Some(session) = Session::decode(&bytes) {
                prop_assert_eq!(session.encode(), bytes);
            }
        }

        #[test]
        fn no_cut_session_is_one(session in sessions(), at: prop::sample::Index) {
            let bytes = session.encode();
            prop_assert_eq!(Session::decode(&bytes[..at.index(bytes.len())]), None);
        }
    }
}
