//! Who may come in: whose tokens are believed, and what a route accepts and demands.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// Who we are there, for sign-ins and introspection.
    pub client: Option<Client>,
    /// How people sign in there in a browser, if they may.
    pub login: Option<Login>,
    /// Whether it is asked for tokens that are no JWT (RFC 7662); they are refused otherwise.
    pub introspect: bool,
    /// What its tokens must be bound to.
    pub bound: Binding,
    /// How its tokens may be signed; at least one.
    pub algorithms: Vec<TokenAlgorithm>,
    /// The member of a token that names the user or client.
    pub user_claim: String,
    /// The member of a token that lists groups, if groups are believed.
    pub groups_claim: Option<String>,
    /// Members of a token that limits count by: they are kept with the identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_claims: Vec<String>,
    /// Its private authority, PEM, relative to the fence's folder; the public ones without it. `gateway` is the authority of this
    /// fence's own gateway ([`Provider::is_behind_gateway`]).
    pub ca: Option<PathBuf>,
    /// Whether it may lie at a loopback or private address.
    pub allow_private: bool,
    /// Where it is declared.
    pub position: Position,
}

/// Who we are at a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Client id.
    pub id: String,
    /// How we prove it; without it PKCE alone protects sign-ins. It is not in snapshots.
    pub proof: Option<ClientProof>,
    /// Where it is declared.
    pub position: Position,
}

/// How a client proves who it is: where that is kept, never what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientProof {
    /// By a secret in a file, relative to the fence's folder.
    SecretFile(PathBuf),
    /// By a secret in a variable of the environment of `up`.
    SecretEnv(String),
    /// By a key (`private_key_jwt`) in a file, PKCS#8, relative to the fence's folder.
    Key(PathBuf),
}

/// Browser login by the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Scopes that are asked for; `openid` is always among them.
    pub scopes: Vec<String>,
    /// A session that says nothing for this long ends.
    pub idle: Duration,
    /// Every session ends after this long.
    pub absolute: Duration,
}

impl Login {
    /// Scope that makes a sign-in one of OpenID.
    pub const OPENID: &str = "openid";
    /// Longest life of a session.
    pub const MAX: Duration = Duration::from_secs(24 * 3600);
}

impl Default for Login {
    fn default() -> Self {
        Self {
            scopes: vec![Self::OPENID.to_owned()],
            idle: Duration::from_secs(30 * 60),
            absolute: Duration::from_secs(8 * 3600),
        }
    }
}

/// What a token must be bound to. One that says by itself that it is bound is held to that always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// Whatever it says.
    #[default]
    Any,
    /// A key of its client (RFC 9449).
    Dpop,
    /// A certificate of its client (RFC 8705).
    Mtls,
}

impl Binding {
    /// All, with their words in the fence.
    pub const ALL: [(&'static str, Self); 3] =
        [("any", Self::Any), ("dpop", Self::Dpop), ("mtls", Self::Mtls)];
}

impl Provider {
    /// Whether it is reached over this fence's own gateway, whose certificate proves it.
    #[must_use]
    pub fn is_behind_gateway(&self) -> bool {
        self.ca.as_deref() == Some(Path::new("gateway"))
    }
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
    /// A session of somebody who signed in at this provider in a browser.
    Login(String),
    /// A token of this provider (RFC 6750, RFC 9449), a JWT or an opaque one that it is asked for.
    Token(String),
    /// An API key, made by `ringfence key create`.
    ApiKey,
    /// A client certificate that this authority issued: a PEM file, relative to the fence's folder.
    Certificate(String),
}

impl Credential {
    /// The provider that it is of.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        match self {
            Self::Login(provider) | Self::Token(provider) => Some(provider),
            Self::ApiKey | Self::Certificate(_) => None,
        }
    }

    /// The file of the authority that issues it.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        match self {
            Self::Certificate(file) => Some(file),
            Self::Login(_) | Self::Token(_) | Self::ApiKey => None,
        }
    }

    /// Who vouches for the name of whoever shows it, as policies and services are told: the provider, `api_key`, or `certificate:NAME` with
    /// the name of the authority's file, without folder and ending. Names are told apart by it, so no two of a fence are alike.
    #[must_use]
    pub fn vouched_by(&self) -> Cow<'_, str> {
        match self {
            Self::Login(provider) | Self::Token(provider) => Cow::Borrowed(provider),
            Self::ApiKey => Cow::Borrowed("api_key"),
            Self::Certificate(file) => {
                let name = Path::new(file).file_stem().and_then(|stem| stem.to_str());
                Cow::Owned(format!("certificate:{}", name.unwrap_or(file)))
            }
        }
    }
}

/// As pictures and explanations say it.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(provider) => write!(f, "login {provider}"),
            Self::Token(provider) => write!(f, "token {provider}"),
            Self::ApiKey => f.write_str("API key"),
            Self::Certificate(file) => write!(f, "certificate {file}"),
        }
    }
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

    /// Whether it lets the same callers in, wherever that is said.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        let all_in = |a: &Self, b: &Self| {
            a.accept.iter().all(|one| b.accept.iter().any(|other| one.credential == other.credential))
        };
        let words = |a: &[String], b: &[String]| a.len() == b.len() && a.iter().all(|word| b.contains(word));
        let (ours, theirs) = (&self.require, &other.require);
        all_in(self, other)
            && all_in(other, self)
            && words(&ours.scopes, &theirs.scopes)
            && words(&ours.acr, &theirs.acr)
            && words(&ours.groups, &theirs.groups)
    }

    /// What it accepts, in a few words; empty for everybody.
    pub(crate) fn summary(&self) -> String {
        self.accept.iter().map(|accepted| accepted.credential.to_string()).collect::<Vec<_>>().join(" or ")
    }
}
