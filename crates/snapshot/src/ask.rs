//! What a proxy asks control for on behalf of one request: sign-ins, introspection, transaction tokens.
//!
//! A proxy parses what the internet sends, so it holds no client secret and signs nothing: control has the federation process speak
//! with providers, and the keeper verify and sign.

use std::fmt;

use ringfence_keys::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Der;

/// What a proxy may ask.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Begins a sign-in; answered by [`Told::Begun`].
    Begin {
        /// The provider.
        provider: String,
        /// Where it sends the browser back to.
        redirect_uri: String,
        /// `prompt`, such as `login`.
        prompt: Option<String>,
        /// Which authentications would do, best first.
        acr_values: Vec<String>,
        /// The greatest age of the authentication in seconds.
        max_age: Option<u64>,
    },
    /// Ends a sign-in with what the browser brought back; answered by [`Told::SignedIn`].
    Complete {
        /// The provider that it was begun with.
        provider: String,
        /// The code.
        code: Secret<String>,
        /// The parameter `iss` of the callback (RFC 9207).
        iss: Option<String>,
        /// What [`Told::Begun`] gave.
        verifier: Secret<String>,
        /// What [`Told::Begun`] gave.
        nonce: String,
        /// The same as at the beginning.
        redirect_uri: String,
        /// The same as at the beginning.
        acr_values: Vec<String>,
        /// The same as at the beginning.
        max_age: Option<u64>,
    },
    /// Asks the provider whether the user of a session is still one; answered by [`Told::SignedIn`] with the session as it is now.
    Refresh {
        /// The session token.
        session: Secret<String>,
    },
    /// Ends a session; answered by [`Told::SignedOut`].
    SignOut {
        /// The session token.
        session: Secret<String>,
        /// Where the provider sends the browser afterwards.
        back: String,
    },
    /// A provider says that a session ended (back-channel logout); answered by [`Told::LoggedOut`].
    LoggedOut {
        /// The provider whose logout address was called.
        provider: String,
        /// The logout token.
        token: Secret<String>,
    },
    /// Asks what an opaque token is (RFC 7662); answered by [`Told::Introspected`].
    Introspect {
        /// The provider.
        provider: String,
        /// The token.
        token: Secret<String>,
    },
    /// Asks for a transaction token; answered by [`Told::Minted`].
    Mint(Box<Mint>),
}

/// What a transaction token shall be for. The keeper looks at the credential itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mint {
    /// What the request showed.
    pub shown: Shown,
    /// The SPIFFE ID of whoever asks: `req_wl`.
    pub workload: String,
    /// Which of the credential's scopes it is for, separated by spaces; empty for all.
    pub scope: String,
    /// Where the request came from (`rctx`).
    pub request: Map<String, Value>,
}

/// A credential as a request showed it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// A JWT of this provider.
    Token {
        /// Name of the provider.
        provider: String,
        /// The token.
        token: Secret<String>,
    },
    /// An opaque token of this provider: control adds what introspection said.
    Opaque {
        /// Name of the provider.
        provider: String,
        /// The token.
        token: Secret<String>,
    },
    /// A session token that the keeper signed.
    Session(Secret<String>),
    /// An API key.
    ApiKey(Secret<String>),
    /// A client certificate.
    Certificate {
        /// The file of the authority that was believed.
        authority: String,
        /// Leaf first.
        chain: Vec<Der>,
    },
}

/// What came out.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A sign-in was begun.
    Begun {
        /// Where to send the browser.
        url: String,
        /// What the callback must bring back.
        state: String,
        /// For [`Ask::Complete`].
        nonce: String,
        /// For [`Ask::Complete`].
        verifier: Secret<String>,
    },
    /// Somebody is signed in, or still is.
    SignedIn {
        /// The session token, signed by the keeper.
        session: Secret<String>,
        /// When what the provider says of the user wants to be refreshed, Unix time in seconds; 0 for never.
        refresh_at: u64,
    },
    /// A session ended.
    SignedOut {
        /// Where to send the browser, so that the provider signs it out too; none if it cannot.
        url: Option<String>,
    },
    /// A session of the provider ended, if there was one.
    LoggedOut,
    /// What an opaque token is.
    Introspected {
        /// Whether it holds, for us.
        active: bool,
        /// What it says; empty unless active.
        claims: Map<String, Value>,
        /// How long this may be believed, Unix time in seconds.
        until: u64,
    },
    /// A transaction token.
    Minted {
        /// The token.
        token: String,
        /// When it ends, Unix time in seconds.
        expires_at: u64,
    },
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct NoAnswer {
    /// The kind, for the status of the response.
    pub code: NoAnswerCode,
    /// For the operator; never holds a token or a secret.
    pub reason: String,
}

/// Kinds of [`NoAnswer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoAnswerCode {
    /// What was shown is not believed, or does not hold any more.
    Denied,
    /// The request makes no sense.
    Malformed,
    /// Too much is under way.
    Busy,
    /// Provider, federation process or keeper cannot be reached now.
    Unavailable,
}

/// Without what only browser and provider may know.
impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, provider) = match self {
            Self::Begin { provider, .. } => ("Begin", provider.as_str()),
            Self::Complete { provider, .. } => ("Complete", provider.as_str()),
            Self::Refresh { .. } => ("Refresh", ""),
            Self::SignOut { .. } => ("SignOut", ""),
            Self::LoggedOut { provider, .. } => ("LoggedOut", provider.as_str()),
            Self::Introspect { provider, .. } => ("Introspect", provider.as_str()),
            Self::Mint(_) => ("Mint", ""),
        };
        f.debug_struct(name).field("provider", &provider).finish_non_exhaustive()
    }
}

/// Addresses, claims and tokens are nobody's business.
impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begun { .. } => "Begun",
            Self::SignedIn { .. } => "SignedIn",
            Self::SignedOut { .. } => "SignedOut",
            Self::LoggedOut => "LoggedOut",
            Self::Introspected { .. } => "Introspected",
            Self::Minted { .. } => "Minted",
        })
    }
}

impl NoAnswer {
    /// Of a kind, for a reason.
    pub fn new(code: NoAnswerCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}
