//! A revocation as it is stored and told: by what it names, not by a digest, so that an operator can read it.

use serde::{Deserialize, Serialize};

use super::{Full, Revocations, Revoked};

/// Issuer of revocations of SVIDs: [`What::Token`] with the serial number in lower-case hexadecimal, [`What::Subject`] with a SPIFFE ID,
/// whose SVIDs are meant that are valid from [`Revocation::issued_until`] at the latest.
pub const SVID: &str = "svid";
/// Issuer of revocations of client certificates.
pub const CERTIFICATE: &str = "certificate";
/// Longest issuer or name in bytes.
const MAX_NAME: usize = 1024;

/// Something that was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// `iss` of what is revoked: a provider's issuer; the trust domain for sessions ([`What::Token`] with the session's id) and
    /// transaction tokens; `api_key` and `certificate` for those ([`What::Token`] with the key's prefix or the certificate's SHA-256).
    pub issuer: String,
    /// What of it.
    pub what: What,
    /// What was issued up to this moment is revoked, Unix seconds; [`u64::MAX`] for good.
    pub issued_until: u64,
    /// When the last of it has ended, Unix seconds.
    pub forget_at: u64,
}

/// What of an issuer was revoked; see [`Revoked`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// One token, by `jti`.
    Token(String),
    /// A session of the provider, by `sid`.
    Session(String),
    /// A user, by `sub`.
    Subject(String),
    /// A client.
    Client(String),
    /// A key, by `kid`.
    Key(String),
    /// Everything.
    Issuer,
}

impl What {
    /// For [`Revocations::revoke`].
    #[must_use]
    pub fn as_revoked(&self) -> Revoked<'_> {
        match self {
            Self::Token(name) => Revoked::Token(name),
            Self::Session(name) => Revoked::Session(name),
            Self::Subject(name) => Revoked::Subject(name),
            Self::Client(name) => Revoked::Client(name),
            Self::Key(name) => Revoked::Key(name),
            Self::Issuer => Revoked::Issuer,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Token(name)
            | Self::Session(name)
            | Self::Subject(name)
            | Self::Client(name)
            | Self::Key(name) => name,
            Self::Issuer => "-",
        }
    }
}

impl Revocation {
    /// Whether it names something, within bounds; to be asked of whatever was read from elsewhere.
    #[must_use]
    pub fn fits(&self) -> bool {
        [self.issuer.as_str(), self.what.name()].iter().all(|name| (1..=MAX_NAME).contains(&name.len()))
    }
}

impl Revocations {
    /// Adds one that was stored or told.
    ///
    /// # Errors
    /// [`Full`].
    pub fn add(&mut self, revocation: &Revocation) -> Result<(), Full> {
        let Revocation { issuer, what, issued_until, forget_at } = revocation;
        self.revoke(issuer, what.as_revoked(), *issued_until, *forget_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_read_as_it_was_written() {
        let all = [
            What::Token("t".into()),
            What::Session("s".into()),
            What::Subject("ann".into()),
            What::Client("app".into()),
            What::Key("k".into()),
            What::Issuer,
        ];
        for what in all {
            let issuer = "https://id.clinic.example".to_owned();
            let one = Revocation { issuer, what, issued_until: u64::MAX, forget_at: 9 };
            let text = serde_json::to_string(&one).unwrap();
            assert_eq!(serde_json::from_str::<Revocation>(&text).unwrap(), one);
            assert!(one.fits());
            let mut list = Revocations::new(1);
            list.add(&one).unwrap();
            assert_eq!(list.len(), 1);
        }
        let nameless = Revocation {
            issuer: "i".into(),
            what: What::Token(String::new()),
            issued_until: 1,
            forget_at: 1,
        };
        assert!(!nameless.fits());
        assert!(
            serde_json::from_str::<Revocation>(r#"{"issuer":"i","what":"all","issued_until":1}"#).is_err()
        );
    }
}
