//! Sealed cookies, out and in.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::{EnvelopeKeys, constant_time_eq};
use zeroize::Zeroizing;

use super::jar::{Found, LOGIN_PREFIX, PREFIX, find, names};
use super::{Login, Session};

/// Longest cookie, name and value together: what every browser keeps. It is never split, since a browser may drop a part.
pub const MAX_COOKIE: usize = 4096;
/// Sign-ins that a browser may have under way: a page that begins them by the dozen would fill the headers of each request.
const MAX_LOGINS: usize = 4;

const SESSION: &str = "oidc session v2";
const LOGIN: &str = "oidc login v2";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// Why a cookie is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    /// Browsers would drop it.
    #[error(
        "what a browser must keep of this user does not fit a cookie of {MAX_COOKIE} bytes: have the provider send fewer groups"
    )]
    TooLarge,
}

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSession {
    /// None was sent.
    #[error("no session was shown")]
    Absent,
    /// Two were, and a browser keeps one.
    #[error("two cookies of the same session came: somebody else wrote one of them")]
    Twice,
    /// It was not sealed here as a session of this provider.
    #[error("the session cookie was not made here: it was altered, moved, or sealed with a key that is gone")]
    Foreign,
    /// It was unused for too long, is at its end, or is of the future.
    #[error("the session is over: it was unused for too long, or has lasted as long as it may")]
    Over,
}

/// Makes and opens our cookies.
#[derive(Clone, Debug)]
pub struct Cookies {
    keys: Arc<EnvelopeKeys>,
}

impl Cookies {
    /// With keys that every gateway of this fence shares.
    #[must_use]
    pub fn new(keys: impl Into<Arc<EnvelopeKeys>>) -> Self {
        Self { keys: keys.into() }
    }

    /// The value of a `Set-Cookie` header that carries `session`.
    ///
    /// # Errors
    /// When it is too large for a browser.
    pub fn set_session(&self, session: &Session, now: u64) -> Result<String, CookieError> {
        // What decoding would refuse is not written either.
        let clear = session.encode().filter(|clear| Session::decode(clear).is_some());
        let name = session_name(&session.provider);
        self.set(SESSION, name, clear.map(Zeroizing::new), session.ends().saturating_sub(now))
    }

    /// The session at `provider` that a request's `Cookie` headers carry, if it is whole and holds at `now`.
    ///
    /// # Errors
    /// [`NoSession`].
    pub fn session<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        provider: &str,
        now: u64,
    ) -> Result<Session, NoSession> {
        let sealed = match find(headers, &session_name(provider)) {
            Found::None => return Err(NoSession::Absent),
            Found::Several => return Err(NoSession::Twice),
            Found::One(sealed) => sealed,
        };
        let session = self.open(SESSION, sealed).and_then(|clear| Session::decode(&clear));
        // A browser's owner may move a cookie under another name.
        let session = session.filter(|session| session.provider == provider).ok_or(NoSession::Foreign)?;
        if session.is_live(now) { Ok(session) } else { Err(NoSession::Over) }
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
        let clear = Zeroizing::new(login.encode());
        let clear = Login::decode(&clear).is_some().then_some(clear);
        self.set(LOGIN, login_name(&login.state), clear, login.expires.saturating_sub(now))
    }

    /// The login that a callback with this `state` ends, if this browser began it and it is not too late.
    #[must_use]
    pub fn login<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        state: &str,
        now: u64,
    ) -> Option<Login> {
        let Found::One(sealed) = find(headers, &login_name(state)) else { return None };
        let login = Login::decode(&self.open(LOGIN, sealed)?)?;
        (constant_time_eq(login.state.as_bytes(), state.as_bytes()) && now < login.expires).then_some(login)
    }

    /// The value of a `Set-Cookie` header that makes the browser forget a login: each is used once.
    #[must_use]
    pub fn clear_login(state: &str) -> String {
        set(&login_name(state), "", 0)
    }

    /// The values of `Set-Cookie` headers that make room for another login, when a browser has too many under way.
    pub fn clear_logins<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let names: Vec<&str> = names(headers, LOGIN_PREFIX).collect();
        if names.len() < MAX_LOGINS {
            Vec::new()
        } else {
            names.iter().map(|name| set(name, "", 0)).collect()
        }
    }

    fn set(
        &self,
        context: &str,
        name: String,
        clear: Option<Zeroizing<Vec<u8>>>,
        seconds: u64,
    ) -> Result<String, CookieError> {
        let value = URL_SAFE_NO_PAD.encode(self.keys.seal(context, &clear.ok_or(CookieError::TooLarge)?));
        if name.len() + 1 + value.len() > MAX_COOKIE {
            return Err(CookieError::TooLarge);
        }
        Ok(set(&name, &value, seconds))
    }

    fn open(&self, context: &str, value: &str) -> Option<Zeroizing<Vec<u8>>> {
        if value.len() > MAX_COOKIE {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        Some(Zeroizing::new(self.keys.open(context, &sealed)?.expose().clone()))
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
    format!("{LOGIN_PREFIX}{start}")
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
        let of = |cookies: Cookies, provider, now| {
            cookies.session([header.as_slice()], provider, now).map(|session| session.encode())
        };
        assert_eq!(of(cookies(1), "staff", NOW), Ok(session().encode()));
        assert_eq!(of(cookies(1), "staff", NOW + 1800), Err(NoSession::Over));
        assert_eq!(of(cookies(1), "patients", NOW), Err(NoSession::Absent));
        assert_eq!(of(cookies(2), "staff", NOW), Err(NoSession::Foreign));
        let rotated = EnvelopeKeys::new(2, Secret::new([2; 32]), vec![(1, Secret::new([1; 32]))]);
        assert_eq!(of(Cookies::new(rotated), "staff", NOW), Ok(session().encode()));
        let twice = [header.as_slice(), header.as_slice()].join(&b"; "[..]);
        assert_eq!(cookies(1).session([twice.as_slice()], "staff", NOW).unwrap_err(), NoSession::Twice);
    }

    #[test]
    fn a_cookie_under_another_name_is_nothing() {
        let jar = cookies(1);
        let set = jar.set_session(&session(), NOW).unwrap();
        let moved = String::from_utf8(sent(&set)).unwrap().replace("-staff=", "-patients=");
        assert_eq!(jar.session([moved.as_bytes()], "patients", NOW).unwrap_err(), NoSession::Foreign);
        // A login is no session, even under its name.
        let set = jar.set_login(&login(), NOW).unwrap();
        let value = String::from_utf8(sent(&set)).unwrap().split_once('=').unwrap().1.to_owned();
        let moved = format!("__Host-ringfence-staff={value}");
        assert_eq!(jar.session([moved.as_bytes()], "staff", NOW).unwrap_err(), NoSession::Foreign);
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
    fn logins_that_pile_up_are_forgotten() {
        let header = |count: usize| {
            (0..count).map(|n| format!("__Host-ringfence-login.{n}=x")).collect::<Vec<_>>().join("; ")
        };
        assert!(Cookies::clear_logins([header(MAX_LOGINS - 1).as_bytes()]).is_empty());
        let cleared = Cookies::clear_logins([header(30).as_bytes()]);
        assert_eq!(cleared.len(), 30);
        assert!(cleared[29].starts_with("__Host-ringfence-login.29=; Max-Age=0; "), "{}", cleared[29]);
    }

    #[test]
    fn what_does_not_fit_is_told_and_not_cut() {
        let token = Secret::new(format!("eyJ9.{}.eyJ9", "YWFh".repeat(1024)));
        let error = cookies(1).set_session(&Session { token, ..session() }, NOW).unwrap_err();
        assert!(error.to_string().contains("fewer groups"), "{error}");
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
            prop_assert_eq!(cookies(1).session([header.as_slice()], "staff", NOW).is_ok(), same);
        }

        #[test]
        fn every_session_fits_or_is_refused(session in sessions()) {
            let live = Session { expires: u64::MAX, idle_ends: NOW + 5, ..session };
            if let Ok(set) = cookies(1).set_session(&live, NOW) {
                let header = sent(&set);
                prop_assert!(header.len() <= MAX_COOKIE);
                let back = cookies(1).session([header.as_slice()], &live.provider, NOW).unwrap();
                prop_assert_eq!(back.encode(), live.encode());
            }
        }
    }
}
