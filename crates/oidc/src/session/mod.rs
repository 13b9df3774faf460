//! What a browser keeps for us: who signed in, and the sign-in that is under way. Both are sealed cookies.
//!
//! A session is a token that the keeper signed, so a gateway that was taken over signs nobody in; it lies in the cookie and not in a
//! table, so every gateway knows it without asking anybody, and none loses it in a restart. The cookie adds what changes as it is used.
//! A cookie that does not open is no session, never an error: whoever tampers is simply not signed in.

mod code;
mod cookie;
mod jar;
mod login;
mod path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use cookie::{CookieError, Cookies, MAX_COOKIE, NoSession};
pub use jar::{is_ours, stripped, without_ours};
pub use login::Login;
pub use path::ReturnPath;
use ringfence_keys::Secret;

use crate::session::code::{Reader, Writer};

/// Longest name of a provider or an authentication context.
const MAX_TEXT: usize = 256;
/// Longest part of a token.
const MAX_PART: usize = 4096;
/// Most authentication contexts that a sign-in asks for.
const MAX_ACR: usize = 8;
/// A cookie is renewed once this part of its idle time has passed, not with each answer.
const RENEW_PART: u64 = 4;
/// Seconds that the clocks of two gateways may differ.
const SKEW: u64 = 120;

/// Somebody who signed in at a provider.
#[derive(Clone, Debug)]
pub struct Session {
    /// The fence's name of the provider.
    pub provider: String,
    /// The session token: who it is, and when it ends at the latest. It is for whoever opens the cookie to verify.
    pub token: Secret<String>,
    /// The authentication contexts that the sign-in asked for: asking for the same again would give the same.
    pub asked: Vec<String>,
    /// When the token ends, Unix time in seconds.
    pub expires: u64,
    /// When it ends unless it is used.
    pub idle_ends: u64,
    /// How many seconds it may be unused.
    pub idle: u64,
    /// When what the provider says of the user wants to be refreshed; 0 for never.
    pub refresh_at: u64,
}

impl Session {
    /// Whether it holds at `now`. One that was used in the future does not: a clock was set back, and would let it live longer.
    #[must_use]
    pub const fn is_live(&self, now: u64) -> bool {
        now < self.ends() && self.idle_ends <= now.saturating_add(self.idle).saturating_add(SKEW)
    }

    /// When its cookie ends: the earlier of both ends.
    #[must_use]
    pub const fn ends(&self) -> u64 {
        if self.expires < self.idle_ends { self.expires } else { self.idle_ends }
    }

    /// The same if it may be unused for `idle` seconds only.
    #[must_use]
    pub fn within_idle(self, idle: u64) -> Self {
        let cut = self.idle.saturating_sub(idle);
        Self { idle: self.idle - cut, idle_ends: self.idle_ends.saturating_sub(cut), ..self }
    }

    /// Whether it wants to be refreshed.
    #[must_use]
    pub const fn is_due(&self, now: u64) -> bool {
        self.refresh_at != 0 && self.refresh_at <= now
    }

    /// The session with its idle time begun anew.
    #[must_use]
    pub fn used(self, now: u64) -> Self {
        Self { idle_ends: now.saturating_add(self.idle), ..self }
    }

    /// The same, if enough of its idle time has passed that a new cookie is worth its bytes.
    #[must_use]
    pub fn renewed(&self, now: u64) -> Option<Self> {
        let idle_ends = now.saturating_add(self.idle);
        let worth = idle_ends >= self.idle_ends.saturating_add((self.idle / RENEW_PART).max(1))
            && self.idle_ends < self.expires;
        (self.is_live(now) && worth).then(|| self.clone().used(now))
    }

    /// Its compact form, which a cookie seals; `None` for what carries no token. Base64 in base64 would cost a third of the cookie, so the
    /// parts of the token are written as what they encode.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Writer::new();
        out.text(&self.provider);
        let mut parts = self.token.expose().split('.');
        for _ in 0..3 {
            let part = URL_SAFE_NO_PAD.decode(parts.next()?).ok().filter(|part| part.len() <= MAX_PART)?;
            out.blob(&part);
        }
        out.list(&self.asked);
        for number in [self.expires, self.idle_ends, self.idle, self.refresh_at] {
            out.number(number);
        }
        parts.next().is_none().then(|| out.finish())
    }

    /// Reads the compact form; `None` unless it is exactly one session.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        let provider = input.text(MAX_TEXT)?;
        let mut token = String::new();
        for separator in ["", ".", "."] {
            token.push_str(separator);
            URL_SAFE_NO_PAD.encode_string(input.blob(MAX_PART)?, &mut token);
        }
        let session = Self {
            provider,
            token: Secret::new(token),
            asked: input.list(MAX_ACR, MAX_TEXT)?,
            expires: input.number()?,
            idle_ends: input.number()?,
            idle: input.number()?,
            refresh_at: input.number()?,
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
            provider: "staff".into(),
            token: Secret::new(token(br#"{"typ":"ringfence-session+jwt"}"#, br#"{"sub":"nora"}"#, &[7; 64])),
            asked: vec!["phr".into()],
            expires: 1_800_028_800,
            idle_ends: 1_800_001_800,
            idle: 1800,
            refresh_at: 0,
        }
    }

    fn token(header: &[u8], claims: &[u8], signature: &[u8]) -> String {
        [header, claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }

    prop_compose! {
        pub(crate) fn sessions()(
            provider in "[a-z]{1,12}", parts: [Vec<u8>; 3], asked in prop::collection::vec(".{0,20}", 0..8), numbers: [u64; 4],
        ) -> Session {
            let [expires, idle_ends, idle, refresh_at] = numbers;
            let token = Secret::new(token(&parts[0], &parts[1], &parts[2]));
            Session { provider, token, asked, expires, idle_ends, idle, refresh_at }
        }
    }

    #[test]
    fn a_session_ends_when_it_is_unused_and_at_the_latest_at_its_end() {
        let (session, start) = (session(), 1_800_000_000);
        assert!(session.is_live(start) && session.is_live(start + 1799));
        assert!(!session.is_live(start + 1800));
        assert!(session.renewed(start + 100).is_none(), "too early to be worth a cookie");
        assert_eq!(session.renewed(start + 900).unwrap().idle_ends, start + 2700);
        assert!(session.renewed(start + 1800).is_none(), "a dead session does not come back");
        let late = Session { idle_ends: session.expires + 5, ..session.clone() };
        assert!(late.renewed(session.expires - 1).is_none(), "nothing is gained past its end");
        assert!(!late.is_live(session.expires));
        assert!(session.is_live(start - 60), "clocks differ");
        assert!(!session.is_live(start - 600), "a clock that was set back gives nobody time");
    }

    #[test]
    fn a_shorter_idle_time_in_the_fence_counts_at_once() {
        let session = session().within_idle(600);
        assert_eq!((session.idle, session.idle_ends), (600, 1_800_000_600));
        let longer = session.within_idle(9000);
        assert_eq!((longer.idle, longer.idle_ends), (600, 1_800_000_600));
    }

    #[test]
    fn what_is_no_token_is_not_carried_and_a_token_is_never_shown() {
        for bad in ["", "a.b", "a.b.c.d", "a?.b.c", "YWI=.YWI.YWI"] {
            assert!(Session { token: Secret::new(bad.into()), ..session() }.encode().is_none(), "{bad}");
        }
        assert!(!format!("{:?}", session()).contains("eyJ"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(session in sessions()) {
            let bytes = session.encode().unwrap();
            let back = Session::decode(&bytes).unwrap();
            prop_assert_eq!(back.token.expose(), session.token.expose());
            prop_assert_eq!(back.encode(), Some(bytes));
        }

        #[test]
        fn a_session_has_one_spelling(bytes: Vec<u8>) {
            if let Some(session) = Session::decode(&bytes) {
                prop_assert_eq!(session.encode(), Some(bytes));
            }
        }

        #[test]
        fn no_cut_session_is_one(session in sessions(), at: prop::sample::Index) {
            let bytes = session.encode().unwrap();
            prop_assert!(Session::decode(&bytes[..at.index(bytes.len())]).is_none());
        }
    }
}
