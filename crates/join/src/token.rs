//! The token that an operator carries to a new host.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::digest::{Sha256, sha256};
use ringfence_keys::{Secret, constant_time_eq, from_hex, random, to_hex};
use ringfence_spiffe::{SpiffeId, TrustBundle, TrustDomain};
use serde::{Deserialize, Serialize};

/// Most addresses of control in a token.
pub const MAX_CONTROLS: usize = 8;
/// Longest token in bytes.
pub const MAX_TOKEN: usize = 2048;
const PREFIX: &str = "rfjoin1.";
const MAX_NAME: usize = 63;

/// The text is no join token, or something in it is not allowed. It names no part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadToken {
    /// Not a token.
    #[error("this is not a join token: make one with the control host's `ringfence`, and copy it whole")]
    Malformed,
    /// The name.
    #[error("a host's name is 1 to 63 lower-case letters, digits and hyphens, and begins with a letter")]
    Name,
    /// No address, or too many.
    #[error("a join token needs 1 to {MAX_CONTROLS} addresses of control, each with a port")]
    Controls,
}

/// What a host joins with: its name, whom to believe, where to go, and a secret that is good once.
#[derive(Clone, Debug)]
pub struct JoinToken {
    host: String,
    trust_domain: TrustDomain,
    bundle: [u8; 32],
    controls: Vec<SocketAddr>,
    secret: Secret<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    host: String,
    trust_domain: String,
    bundle: String,
    controls: Vec<SocketAddr>,
    secret: Secret<String>,
}

impl JoinToken {
    /// A new token with a secret of 256 random bits.
    ///
    /// # Errors
    /// [`BadToken`], when the name or the addresses are not allowed.
    pub fn generate(host: &str, bundle: &TrustBundle, controls: Vec<SocketAddr>) -> Result<Self, BadToken> {
        let trust_domain = bundle.trust_domain().clone();
        Self::checked(host, trust_domain, fingerprint(bundle), controls, Secret::new(random()))
    }

    /// Reads a token, which has one spelling.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn parse(text: &str) -> Result<Self, BadToken> {
        if text.len() > MAX_TOKEN {
            return Err(BadToken::Malformed);
        }
        let body = text.strip_prefix(PREFIX).ok_or(BadToken::Malformed)?;
        let json = Secret::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| BadToken::Malformed)?);
        let wire: Wire = serde_json::from_slice(json.expose()).map_err(|_| BadToken::Malformed)?;
        let token = Self::checked(
            &wire.host,
            TrustDomain::new(&wire.trust_domain).map_err(|_| BadToken::Malformed)?,
            array(&wire.bundle).ok_or(BadToken::Malformed)?,
            wire.controls,
            Secret::new(array(wire.secret.expose()).ok_or(BadToken::Malformed)?),
        )?;
        if !constant_time_eq(token.to_text().expose().as_bytes(), text.as_bytes()) {
            return Err(BadToken::Malformed);
        }
        Ok(token)
    }

    fn checked(
        host: &str,
        trust_domain: TrustDomain,
        bundle: [u8; 32],
        controls: Vec<SocketAddr>,
        secret: Secret<[u8; 32]>,
    ) -> Result<Self, BadToken> {
        let letters =
            host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let first = host.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !letters || !first || host.len() > MAX_NAME || SpiffeId::node(&trust_domain, host).is_err() {
            return Err(BadToken::Name);
        }
        if controls.is_empty() || controls.len() > MAX_CONTROLS || controls.iter().any(|at| at.port() == 0) {
            return Err(BadToken::Controls);
        }
        Ok(Self { host: host.to_owned(), trust_domain, bundle, controls, secret })
    }

    /// What the operator carries. It is as secret as the host is worth, until it is used or ends.
    #[must_use]
    pub fn to_text(&self) -> Secret<String> {
        let wire = Wire {
            host: self.host.clone(),
            trust_domain: self.trust_domain.as_str().to_owned(),
            bundle: to_hex(&self.bundle),
            controls: self.controls.clone(),
            secret: Secret::new(to_hex(self.secret.expose())),
        };
        let json = Secret::new(serde_json::to_vec(&wire).unwrap_or_default());
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json.expose())))
    }

    /// The host that it is for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The trust domain to join.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Where control listens.
    #[must_use]
    pub fn controls(&self) -> &[SocketAddr] {
        &self.controls
    }

    /// Whether a bundle that somebody at one of those addresses shows is the one that the operator meant. Asked before
    /// [`JoinToken::secret`] is shown to anybody.
    #[must_use]
    pub fn trusts(&self, bundle: &TrustBundle) -> bool {
        constant_time_eq(&fingerprint(bundle), &self.bundle)
    }

    /// The secret, for control alone.
    #[must_use]
    pub fn secret(&self) -> &Secret<[u8; 32]> {
        &self.secret
    }

    pub(crate) fn digest(&self) -> String {
        to_hex(&sha256(self.secret.expose()))
    }
}

/// SHA-256 over the trust domain and its X.509 authorities in order of their bytes, each with its length.
#[must_use]
pub fn fingerprint(bundle: &TrustBundle) -> [u8; 32] {
    let mut authorities: Vec<&[u8]> = bundle.x509_authorities().iter().map(AsRef::as_ref).collect();
    authorities.sort_unstable();
    let mut digest = Sha256::new();
    digest.update(b"ringfence bundle v1\0");
    for part in std::iter::once(bundle.trust_domain().as_str().as_bytes()).chain(authorities) {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finish()
}

fn array(text: &str) -> Option<[u8; 32]> {
    from_hex(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bundle(domain: &str) -> TrustBundle {
        TrustBundle::new(TrustDomain::new(domain).unwrap(), Vec::new(), Vec::new(), 1, None).unwrap()
    }

    fn token(host: &str) -> Result<JoinToken, BadToken> {
        JoinToken::generate(host, &bundle("clinic.example"), vec!["192.0.2.1:7443".parse().unwrap()])
    }

    #[test]
    fn a_token_says_whom_to_believe() {
        let text = token("east").unwrap().to_text();
        let read = JoinToken::parse(text.expose()).unwrap();
        assert_eq!((read.host(), read.trust_domain().as_str()), ("east", "clinic.example"));
        assert!(read.trusts(&bundle("clinic.example")));
        assert!(!read.trusts(&bundle("other.example")));
        assert!(!format!("{read:?}").contains(&to_hex(read.secret().expose())));
    }

    #[test]
    fn names_and_addresses_are_bounded() {
        for host in ["", "-a", "1a", "East", "a/b", "a.b", &"a".repeat(64)] {
            assert_eq!(token(host).unwrap_err(), BadToken::Name, "{host}");
        }
        let at: SocketAddr = "192.0.2.1:0".parse().unwrap();
        for controls in [Vec::new(), vec![at], vec!["[2001:db8::1]:7443".parse().unwrap(); MAX_CONTROLS + 1]]
        {
            let refused = JoinToken::generate("east", &bundle("clinic.example"), controls);
            assert_eq!(refused.unwrap_err(), BadToken::Controls);
        }
    }

    #[test]
    fn the_longest_token_is_read() {
        let domain = format!("{}.example", "a".repeat(200));
        let controls = vec!["[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(); MAX_CONTROLS];
        let token = JoinToken::generate(&"a".repeat(MAX_NAME), &bundle(&domain), controls).unwrap();
        JoinToken::parse(token.to_text().expose()).unwrap();
    }

    proptest! {
        #[test]
        fn only_one_spelling_is_accepted(at in 0_usize..500, byte in 0x20_u8..0x7f) {
            let text = token("east").unwrap().to_text();
            let mut bytes = text.expose().clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(read) = JoinToken::parse(&text) {
                let again = read.to_text();
                prop_assert_eq!(again.expose(), &text);
            }
        }

        #[test]
        fn anything_is_read_or_refused(text in ".{0,200}") {
            prop_assert!(JoinToken::parse(&text).is_err());
            let encoded = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&text));
            prop_assert!(JoinToken::parse(&encoded).is_err());
        }
    }
}
