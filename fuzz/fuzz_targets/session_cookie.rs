//! Cookies: nothing that we did not seal opens; what is inside has one spelling; ours are never passed on.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_keys::{EnvelopeKeys, Secret, random};
use ringfence_oidc::session::{Cookies, Login, ReturnPath, Session, is_ours, stripped, without_ours};

static COOKIES: LazyLock<Cookies> =
    LazyLock::new(|| Cookies::new(EnvelopeKeys::new(1, Secret::new(random()), Vec::new())));

fuzz_target!(|data: &[u8]| {
    if let Some(session) = Session::decode(data) {
        assert_eq!(session.encode().unwrap(), data);
        let _ = session.renewed(session.expires.saturating_sub(1));
        if session.provider.chars().all(|c| c.is_ascii_lowercase())
            && session.is_live(0)
            && let Ok(set) = COOKIES.set_session(&session, 0)
        {
            let header = set.split(';').next().unwrap().as_bytes();
            assert_eq!(COOKIES.session([header], &session.provider, 0).unwrap().encode().unwrap(), data);
        }
    }
    if let Some(login) = Login::decode(data) {
        assert_eq!(login.encode(), data);
        assert!(ReturnPath::new(login.return_path.as_str()).is_some());
    }
    assert!(COOKIES.session([data], "staff", 0).is_err());
    assert!(COOKIES.login([data], "state", 0).is_none());
    let _ = Cookies::clear_logins([data]);
    let left = without_ours(data).unwrap_or_default();
    assert!(!is_ours(&left) && stripped([left.as_slice()].into_iter()).is_none());
    assert_eq!(without_ours(&left).unwrap_or_default(), left);
});
