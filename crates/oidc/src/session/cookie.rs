//! Sealed cookies, out and in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::{EnvelopeKeys, constant_time_eq};

use super::jar::{PREFIX, find};
use super::{Login, Session};

/// Longest cookie, name and value together: what every browser keeps. It is never split, since a browser may drop a part.
pub const MAX_COOKIE: usize = 4096;

const SESSION: &str = "oidc session v1";
const LOGIN: &str = "oidc login v1";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// Why a cookie is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    /// Browsers would drop it.
    #[error(
        "the session of a user with {groups} groups does not fit a cookie ({bytes} of at most {MAX_COOKIE} bytes): have the provider send fewer groups"
    )]
    TooLarge {
        /// How long it would be.
        bytes: usize,
        /// How many groups it names.
        groups: usize,
    },
}

/// Makes and opens our cookies.
#[derive(Clone, Debug)]
pub struct Cookies {
    keys: EnvelopeKeys,
}

impl Cookies {
    /// With keys that every gateway of this fence shares.
    #[must_use]
    pub const fn new(keys: EnvelopeKeys) -> Self {
        Self { keys }
    }

    /// The value of a `Set-Cookie` header that carries `session`.
    ///
    /// # Errors
    /// When it is too large for a browser.
    pub fn set_session(&self, session: &Session, now: u64) -> Result<String, CookieError> {
        let clear = session.encode();
        let value = self.seal(SESSION, &clear);
        let name = session_name(&session.provider);
        let bytes = name.len() + 1 + value.len();
        // What decoding would refuse is not written either.
        if bytes > MAX_COOKIE || Session::decode(&clear).is_none() {
            return Err(CookieError::TooLarge { bytes, groups: session.groups.len() });
        }
        Ok(set(&name, &value, session.ends().saturating_sub(now)))
    }

    /// The session at `provider` that a request's `Cookie` headers carry, if it is whole and holds at `now`.
    #[must_use]
    pub fn session<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        provider: &str,
        now: u64,
    ) -> Option<Session> {
        let clear = self.open(SESSION, find(headers, &session_name(provider))?)?;
        let session = Session::decode(&clear)?;
        // A browser's owner may move a cookie under another name.
        (session.provider == provider && session.is_live(now)).then_some(session)
    }

    /// The value of a `Set-Cookie` header that makes the browser forget the session at `provider`.
    #[must_use]
    pub fn clear_session(provider: &str) -> String {
        set(&session_name(provider), "", 0)
    }

    /// The value of a `Set-Cookie` header that carries `login`. Each login has a cookie of its own, so that two tabs do not disturb
    /// each other.
    ///
    /// # Errors
    /// When it is too large for a browser.
    pub fn set_login(&self, login: &Login, now: u64) -> Result<String, CookieError> {
        let clear = login.encode();
        let value = self.seal(LOGIN, &clear);
        let name = login_name(&login.state);
        let bytes = name.len() + 1 + value.len();
        if bytes > MAX_COOKIE || Login::decode(&clear).is_none() {
            return Err(CookieError::TooLarge { bytes, groups: 0 });
        }
        Ok(set(&name, &value, login.expires.saturating_sub(now)))
    }

    /// The login that a callback with this `state` ends, if this browser began it and it is not too late.
    #[must_use]
    pub fn login<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        state: &str,
        now: u64,
    ) -> Option<Login> {
        let clear = self.open(LOGIN, find(headers, &login_name(state))?)?;
        let login = Login::decode(&clear)?;
        (constant_time_eq(login.state.as_bytes(), state.as_bytes()) && now < login.expires).then_some(login)
    }

    /// The value of a `Set-Cookie` header that makes the browser forget a login: each is used once.
    #[must_use]
    pub fn clear_login(state: &str) -> String {
        set(&login_name(state), "", 0)
    }

    fn seal(&self, context: &str, clear: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.keys.seal(context, clear))
    }

    fn open(&self, context: &str, value: &str) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        if value.len() > MAX_COOKIE {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        Some(zeroize::Zeroizing::new(self.keys.open(context, &sealed)?.expose().clone()))
    }
}

fn set(name: &str, value: &str, seconds: u64) -> String {
    format!("{name}={value}; Max-Age={seconds}; {ATTRIBUTES}")
}

fn session_name(provider: &str) -> String {
    format!("{PREFIX}{provider}")
}

/// Enough of the state to tell logins apart; characters that cannot be part of ours give a name that no cookie has.
fn login_name(state: &str) -> String {
    let start: String =
        state.chars().take(12).filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    format!("{PREFIX}login.{start}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_keys::Secret;

    use super::super::login::tests::login;
    use super::super::tests::{session, sessions};
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn cookies(id: u8) -> Cookies {
        Cookies::new(EnvelopeKeys::new(id.into(), Secret::new([id; 32]), Vec::new()))
    }

    /// What a browser sends back.
    fn sent(set: &str) -> Vec<u8> {
        set.split(';').next().unwrap().as_bytes().to_vec()
    }

    #[test]
    fn a_browser_keeps_a_session_that_only_we_can_read() {
        let set = cookies(1).set_session(&session(), NOW).unwrap();
        assert!(set.starts_with("__Host-ringfence-staff="), "{set}");
        assert!(set.ends_with("; Max-Age=1800; Path=/; Secure; HttpOnly; SameSite=Lax"), "{set}");
        assert!(!set.contains("Domain") && !set.contains("nora"));
        let header = sent(&set);
        let of = |cookies: Cookies, provider, now| cookies.session([header.as_slice()], provider, now);
        assert_eq!(of(cookies(1), "staff", NOW), Some(session()));
        assert_eq!(of(cookies(1), "staff", NOW + 1800), None, "idle for too long");
        assert_eq!(of(cookies(1), "patients", NOW), None);
        assert_eq!(of(cookies(2), "staff", NOW), None);
        let rotated = EnvelopeKeys::new(2, Secret::new([2; 32]), vec![(1, Secret::new([1; 32]))]);
        assert_eq!(of(Cookies::new(rotated), "staff", NOW), Some(session()));
    }

    #[test]
    fn a_cookie_under_another_name_is_nothing() {
        let jar = cookies(1);
        let set = jar.set_session(&session(), NOW).unwrap();
        let moved = String::from_utf8(sent(&set)).unwrap().replace("-staff=", "-patients=");
        assert_eq!(jar.session([moved.as_bytes()], "patients", NOW), None);
        // A login is no session, even under its name.
        let set = jar.set_login(&login(), NOW).unwrap();
        let value = String::from_utf8(sent(&set)).unwrap().split_once('=').unwrap().1.to_owned();
        assert_eq!(jar.session([format!("__Host-ringfence-staff={value}").as_bytes()], "staff", NOW), None);
    }

    #[test]
    fn a_login_ends_only_where_it_began_and_in_time() {
        let set = cookies(1).set_login(&login(), NOW).unwrap();
        assert!(set.contains("Max-Age=600"), "{set}");
        let header = sent(&set);
        let state = login().state;
        assert_eq!(cookies(1).login([header.as_slice()], &state, NOW), Some(login()));
        assert_eq!(cookies(1).login([header.as_slice()], &state, NOW + 600), None);
        assert_eq!(cookies(1).login([header.as_slice()], &format!("{}x", &state[..42]), NOW), None);
        assert_eq!(cookies(1).login([b"a=b".as_slice()], &state, NOW), None, "another browser");
        assert!(Cookies::clear_login(&state).contains("=; Max-Age=0; Path=/; Secure"));
    }

    #[test]
    fn a_user_of_too_many_groups_is_told_so_and_not_cut() {
        let many =
            Session { groups: (0..200).map(|n| format!("department-of-{n:06}")).collect(), ..session() };
        let error = cookies(1).set_session(&many, NOW).unwrap_err();
        assert!(error.to_string().contains("200 groups"), "{error}");
    }

    proptest! {
        #[test]
        fn a_tampered_cookie_is_no_session(position: prop::sample::Index, replacement in "[A-Za-z0-9_-]") {
            let set = cookies(1).set_session(&session(), NOW).unwrap();
            let mut header = sent(&set);
            let start = "__Host-ringfence-staff=".len();
            let at = start + position.index(header.len() - start);
            let same = header[at] == replacement.as_bytes()[0];
            header[at] = replacement.as_bytes()[0];
            prop_assert_eq!(cookies(1).session([header.as_slice()], "staff", NOW).is_some(), same);
        }

        #[test]
        fn every_session_fits_or_is_refused(session in sessions()) {
            let live = Session { expires: u64::MAX, idle_ends: u64::MAX, ..session };
            if let Ok(set) = cookies(1).set_session(&live, NOW) {
                let header = sent(&set);
                prop_assert!(header.len() <= MAX_COOKIE);
                prop_assert_eq!(cookies(1).session([header.as_slice()], &live.provider, NOW), Some(live));
            }
        }
    }
}
