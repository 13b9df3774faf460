//! A sign-in that is under way: what must come back from the provider, kept by the browser that began it.

use super::code::{Reader, Writer};
use super::path::ReturnPath;

/// Longest text in it.
const MAX_TEXT: usize = 256;
/// How many acr values may be asked for.
const MAX_ACR: usize = 8;

/// What the callback of a sign-in is checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The fence's name of the provider.
    pub provider: String,
    /// Host and port that it was begun at. Browsers show a cookie to every port of a host.
    pub authority: String,
    /// What the callback must bring back.
    pub state: String,
    /// What the ID token must say.
    pub nonce: String,
    /// The PKCE verifier.
    pub verifier: String,
    /// Where the browser wanted to go.
    pub return_path: ReturnPath,
    /// The greatest age of the authentication that was asked for.
    pub max_age: Option<u64>,
    /// The acr values that were asked for.
    pub acr_values: Vec<String>,
    /// When it is too late, Unix time in seconds.
    pub expires: u64,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl Login {
    /// Its compact form; what a cookie seals.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        for text in [&self.provider, &self.authority, &self.state, &self.nonce, &self.verifier] {
            out.text(text);
        }
        out.text(self.return_path.as_str());
        // One more than the age, so that no age has a spelling.
        out.number(self.max_age.map_or(0, |age| age.saturating_add(1)));
        out.list(&self.acr_values);
        out.number(self.expires);
        out.finish()
    }

    /// Reads the compact form; `None` unless it is exactly one login.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        let login = Self {
            provider: input.text(MAX_TEXT)?,
            authority: input.text(MAX_TEXT)?,
            state: input.text(MAX_TEXT)?,
            nonce: input.text(MAX_TEXT)?,
            verifier: input.text(MAX_TEXT)?,
            return_path: ReturnPath::new(&input.text(usize::MAX)?)?,
            max_age: input.number()?.checked_sub(1),
            acr_values: input.list(MAX_ACR, MAX_TEXT)?,
            expires: input.number()?,
        };
        input.at_end().then_some(login)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn login() -> Login {
        Login {
            provider: "staff".into(),
            authority: "portal.clinic.example".into(),
            state: "s".repeat(43),
            nonce: "n".repeat(43),
            verifier: "v".repeat(43),
            return_path: ReturnPath::new("/records?id=3").unwrap(),
            max_age: Some(0),
            acr_values: vec!["phr".into()],
            expires: 1_800_000_600,
        }
    }

    #[test]
    fn a_login_that_is_encoded_is_decoded_and_never_shown() {
        let none = Login { max_age: None, ..login() };
        for login in [login(), none] {
            assert_eq!(Login::decode(&login.encode()).as_ref(), Some(&login));
            assert!(!format!("{login:?}").contains("vvv"));
        }
    }

    proptest! {
        #[test]
        fn a_login_has_one_spelling_and_its_path_is_checked_again(bytes: Vec<u8>) {
            if let Some(login) = Login::decode(&bytes) {
                prop_assert_eq!(login.encode(), bytes);
            }
        }
    }
}
