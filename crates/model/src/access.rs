//! Who may come in: whose tokens are believed, and what a route accepts and demands.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::position::Position;

/// An OpenID provider whose tokens are believed (OpenID Connect Core 1.0, RFC 9068).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Its name in the fence.
    pub name: String,
    /// The exact `iss` of its tokens; its metadata lies below it (OpenID Connect Discovery 1.0, section 4).
    pub issuer: String,
    /// A bearer token must be meant for one of these (`aud`); at least one.
    pub audiences: Vec<String>,
    /// How its tokens may be signed; at least one.
    pub algorithms: Vec<TokenAlgorithm>,
    /// The member of a token that names the user or client.
    pub user_claim: String,
    /// The member of a token that lists groups, if groups are believed.
    pub groups_claim: Option<String>,
    /// Its private authority, PEM, relative to the fence's folder; the public ones without it.
    pub ca: Option<PathBuf>,
    /// Whether it may lie at a loopback or private address.
    pub allow_private: bool,
    /// Where it is declared.
    pub position: Position,
}

/// How a token is signed (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
}

impl TokenAlgorithm {
    /// All, with their names in JOSE.
    pub const ALL: [(&'static str, Self); 4] =
        [("EdDSA", Self::EdDsa), ("ES256", Self::Es256), ("RS256", Self::Rs256), ("PS256", Self::Ps256)];

    /// What a provider may use unless the fence says otherwise.
    pub const DEFAULT: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];
}

/// Who may pass: whoever shows one of the credentials, and has what is demanded. Nothing accepted means everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Any one of these suffices.
    pub accept: Vec<Accepted>,
    /// All of this is demanded.
    pub require: Require,
}

/// A kind of credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which.
    pub credential: Credential,
    /// Where it is accepted.
    pub position: Position,
}

/// What a caller may show.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// A bearer token of this provider (RFC 6750), a JWT.
    Token(String),
    /// An API key, made by `ringfence key create`.
    ApiKey,
}

/// What whoever is let in must have besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Require {
    /// Scopes, all of them.
    pub scopes: Vec<String>,
    /// Authentication contexts (`acr`), one of them.
    pub acr: Vec<String>,
    /// Groups, one of them.
    pub groups: Vec<String>,
    /// Where it is demanded; none if nothing is.
    pub position: Option<Position>,
}

impl Access {
    /// Whether everybody may pass.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.accept.is_empty()
    }
}
