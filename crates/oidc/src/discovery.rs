//! What a provider says of itself (OpenID Connect Discovery 1.0, RFC 8414).

use serde::Deserialize;

use crate::endpoint::{Endpoint, EndpointError};

/// Why a provider's metadata is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// Not JSON of the right shape.
    #[error("its metadata is malformed: {0}")]
    Malformed(String),
    /// It says that it is somebody else.
    #[error(
        "it says that its issuer is `{said}`, the fence says `{declared}`: they must be equal, to the last slash"
    )]
    Issuer {
        /// What it says.
        said: String,
        /// What the fence says.
        declared: String,
    },
    /// An address that is not taken.
    #[error("its `{0}` is not taken: {1}")]
    Endpoint(&'static str, String),
    /// It cannot do what is needed.
    #[error("its metadata has no `{0}`")]
    Missing(&'static str),
}

/// What a provider can do, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub(crate) issuer: String,
    pub(crate) authorization: Option<Endpoint>,
    pub(crate) token: Option<Endpoint>,
    pub(crate) keys: Endpoint,
    pub(crate) introspection: Option<Endpoint>,
    pub(crate) end_session: Option<Endpoint>,
    pub(crate) token_methods: Option<Vec<String>>,
    pub(crate) introspection_methods: Option<Vec<String>>,
    /// Whether each callback says which provider sent it.
    pub(crate) says_issuer: bool,
    pub(crate) backchannel_logout: bool,
    /// Whether it signs what it says of opaque tokens.
    pub(crate) signs_introspection: bool,
}

/// The members that are looked at; one that is there twice makes the document malformed.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: Option<String>,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    introspection_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    introspection_endpoint_auth_methods_supported: Option<Vec<String>>,
    introspection_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    backchannel_logout_session_supported: bool,
}

impl Metadata {
    /// Where the metadata of `issuer` lies.
    pub(crate) fn place(issuer: &str, allow_private: bool) -> Result<Endpoint, EndpointError> {
        let base = Endpoint::new(issuer, allow_private)?;
        if base.path_and_query().contains('?') {
            return Err(EndpointError::Malformed);
        }
        Endpoint::new(
            &format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
            allow_private,
        )
    }

    /// Reads the metadata of the provider whose issuer is `issuer`, exactly. Addresses are https, unless `allow_private`.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub fn parse(document: &[u8], issuer: &str, allow_private: bool) -> Result<Self, DiscoveryError> {
        // Members that are not looked at are skipped unread; what is no text is refused all the same.
        let text = std::str::from_utf8(document).map_err(|e| DiscoveryError::Malformed(e.to_string()))?;
        let document: Document =
            serde_json::from_str(text).map_err(|e| DiscoveryError::Malformed(e.to_string()))?;
        if document.issuer != issuer {
            let said = document.issuer.chars().take(120).filter(|c| !c.is_control()).collect();
            return Err(DiscoveryError::Issuer { said, declared: issuer.to_owned() });
        }
        let endpoint = |name, text: Option<String>| match text {
            None => Ok(None),
            Some(text) => Endpoint::new(&text, allow_private)
                .map(Some)
                .map_err(|e| DiscoveryError::Endpoint(name, e.to_string())),
        };
        Ok(Self {
            issuer: document.issuer,
            authorization: endpoint("authorization_endpoint", document.authorization_endpoint)?,
            token: endpoint("token_endpoint", document.token_endpoint)?,
            keys: endpoint("jwks_uri", document.jwks_uri)?.ok_or(DiscoveryError::Missing("jwks_uri"))?,
            introspection: endpoint("introspection_endpoint", document.introspection_endpoint)?,
            end_session: endpoint("end_session_endpoint", document.end_session_endpoint)?,
            token_methods: document.token_endpoint_auth_methods_supported,
            introspection_methods: document.introspection_endpoint_auth_methods_supported,
            says_issuer: document.authorization_response_iss_parameter_supported,
            backchannel_logout: document.backchannel_logout_session_supported,
            signs_introspection: document
                .introspection_signing_alg_values_supported
                .is_some_and(|a| !a.is_empty()),
        })
    }

    /// Whether every address in it is https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        [&self.authorization, &self.token, &self.introspection, &self.end_session]
            .into_iter()
            .flatten()
            .chain([&self.keys])
            .all(Endpoint::is_https)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://id.clinic.example";

    fn parse(document: &serde_json::Value) -> Result<Metadata, DiscoveryError> {
        Metadata::parse(document.to_string().as_bytes(), ISSUER, false)
    }

    #[test]
    fn metadata_is_only_the_declared_issuer_s() {
        let good = json!({ "issuer": ISSUER, "jwks_uri": "https://id.clinic.example/jwks", "more": [1] });
        assert!(parse(&good).unwrap().is_https());
        for issuer in ["https://id.clinic.example/", "https://ID.clinic.example", "https://evil.example", ""]
        {
            let other = json!({ "issuer": issuer, "jwks_uri": "https://id.clinic.example/jwks" });
            assert!(matches!(parse(&other), Err(DiscoveryError::Issuer { .. })), "{issuer}");
        }
    }

    #[test]
    fn what_is_not_metadata_says_why() {
        for (document, what) in [
            (json!({ "issuer": ISSUER }), "jwks_uri"),
            (json!({ "issuer": ISSUER, "jwks_uri": "http://id.clinic.example/jwks" }), "https"),
            (json!({ "issuer": ISSUER, "jwks_uri": "/jwks" }), "jwks_uri"),
            (json!({ "issuer": ISSUER, "jwks_uri": 1 }), "malformed"),
            (json!([]), "malformed"),
            (
                json!({ "issuer": ISSUER, "jwks_uri": "https://a/", "token_endpoint": "https://u@a/" }),
                "token_endpoint",
            ),
        ] {
            let error = parse(&document).unwrap_err().to_string();
            assert!(error.contains(what), "{document}: {error}");
        }
        let twice = format!(r#"{{"issuer":"{ISSUER}","jwks_uri":"https://a/","jwks_uri":"https://b/"}}"#);
        assert!(Metadata::parse(twice.as_bytes(), ISSUER, false).is_err());
        let start = format!(r#"{{"issuer":"{ISSUER}","jwks_uri":"https://a/","x":""#);
        let no_text = [start.as_bytes(), b"\xff\"}"].concat();
        assert!(Metadata::parse(&no_text, ISSUER, false).is_err());
    }

    #[test]
    fn the_metadata_lies_below_the_issuer() {
        let of = |issuer| Metadata::place(issuer, false).map(|e| e.to_string());
        let expected = "https://id.clinic.example/realms/staff/.well-known/openid-configuration";
        assert_eq!(of("https://id.clinic.example/realms/staff").unwrap(), expected);
        assert_eq!(of("https://id.clinic.example/realms/staff/").unwrap(), expected);
        assert!(of("https://id.clinic.example/?realm=staff").is_err());
        assert!(of("http://id.clinic.example").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Metadata::parse(&bytes, ISSUER, false);
        }
    }
}
