//! Messages between control and the federation process.
//!
//! The process that parses the internet holds no client secret, and the one that holds state has no network; so a third one
//! speaks with OpenID providers. Control tells it which there are and asks; it answers, and says what changed.

use std::fmt;
use std::path::PathBuf;

use ringfence_keys::{Algorithm, Secret, SecretBytes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most providers of one fence.
pub const MAX_PROVIDERS: usize = 64;
/// Most bytes of entity data.
pub const MAX_ENTITIES_BYTES: usize = 4 << 20;

/// To the federation process.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToFederation {
    /// First message.
    Start {
        /// Public roots in a PEM file; where the system keeps them, if this is none.
        roots: Option<PathBuf>,
    },
    /// The providers from now on; replaces all earlier ones. What did not change keeps its keys.
    Providers(Vec<ProviderConfig>),
    /// The server of entity data from now on, if there is one; replaces the one before.
    Entities(Option<EntitiesConfig>),
    /// Begins a sign-in; answered by [`Outcome::Begun`].
    Begin {
        /// Number for the answer.
        request: u64,
        /// The provider.
        provider: String,
        /// Where the provider sends the browser back to.
        redirect_uri: String,
        /// `prompt`, such as `login`.
        prompt: Option<String>,
        /// Which authentications would do, best first.
        acr_values: Vec<String>,
        /// The greatest age of the authentication in seconds.
        max_age: Option<u64>,
    },
    /// Ends a sign-in with what the browser brought back; answered by [`Outcome::SignedIn`].
    Complete {
        /// Number for the answer.
        request: u64,
        /// The provider that it was begun with.
        provider: String,
        /// The code.
        code: Secret<String>,
        /// The parameter `iss` of the callback (RFC 9207).
        iss: Option<String>,
        /// What [`Outcome::Begun`] gave.
        verifier: Secret<String>,
        /// What [`Outcome::Begun`] gave.
        nonce: String,
        /// The same as at the beginning.
        redirect_uri: String,
        /// The same as at the beginning.
        max_age: Option<u64>,
        /// The same as at the beginning.
        acr_values: Vec<String>,
    },
    /// Asks whether a user is still one; answered by [`Outcome::SignedIn`], with the next refresh token.
    Refresh {
        /// Number for the answer.
        request: u64,
        /// The provider.
        provider: String,
        /// The present refresh token; it may be spent by this.
        refresh_token: Secret<String>,
        /// Whom the answer must be about.
        subject: String,
    },
    /// Asks what an opaque token is (RFC 7662); answered by [`Outcome::Introspected`].
    Introspect {
        /// Number for the answer.
        request: u64,
        /// The provider.
        provider: String,
        /// The token.
        token: Secret<String>,
    },
    /// Where to send a browser to be signed out at the provider too; answered by [`Outcome::EndSession`].
    EndSession {
        /// Number for the answer.
        request: u64,
        /// The provider.
        provider: String,
        /// The ID token of the session that ends.
        id_token_hint: Option<Secret<String>>,
        /// Where the provider sends the browser afterwards.
        post_logout_redirect_uri: Option<String>,
        /// What it brings back then.
        state: Option<String>,
    },
    /// A provider says that a session ended (back-channel logout); answered by [`Outcome::LoggedOut`].
    LogoutToken {
        /// Number for the answer.
        request: u64,
        /// The provider whose logout address was called.
        provider: String,
        /// What was sent there.
        token: String,
    },
    /// A token names a key of this provider that nobody knows: fetch its keys, but not too often.
    UnknownKey {
        /// The provider.
        provider: String,
        /// The key.
        kid: String,
    },
}

/// From the federation process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromFederation {
    /// It is confined and takes requests.
    Ready,
    /// The keys that a provider signs with.
    Keys {
        /// The provider.
        provider: String,
        /// Whose keys they are: the provider may have been declared anew meanwhile.
        issuer: String,
        /// Grows with each change.
        generation: u64,
        /// A JSON Web Key Set of those keys that verify signatures.
        jwks: String,
        /// Until when they may be believed if no others come, Unix time in seconds.
        until: u64,
    },
    /// What a provider can do.
    Metadata {
        /// The provider.
        provider: String,
        /// Its issuer.
        issuer: String,
        /// Whether it can sign a browser out.
        end_session: bool,
        /// Whether it can be asked for tokens.
        introspection: bool,
        /// Whether it says when a session ends, with the session's id.
        backchannel_logout: bool,
    },
    /// What is wrong with a provider, or that nothing is any more. Said when it changes.
    Trouble {
        /// The provider.
        provider: String,
        /// For the operator; `None` when it is over.
        reason: Option<String>,
    },
    /// Something about a provider that the operator should know and that needs no repair.
    Notice {
        /// The provider.
        provider: String,
        /// For the operator.
        text: String,
    },
    /// The server of entity data was asked.
    Entities {
        /// Where: another may have been declared meanwhile.
        url: String,
        /// What came out.
        news: EntitiesNews,
    },
    /// To a request.
    Answer {
        /// The request's number.
        request: u64,
        /// What came out.
        outcome: Result<Outcome, Refusal>,
    },
}

/// A server of entity data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntitiesConfig {
    /// Its address.
    pub url: String,
    /// How often it is asked, in milliseconds.
    pub every_ms: u64,
    /// Its private CA, PEM; the public roots if there is none.
    pub ca: Option<String>,
    /// Whether it may lie at a loopback or private address.
    pub allow_private: bool,
}

/// What came of asking a server for entity data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntitiesNews {
    /// Other data than before.
    Data(String),
    /// The same data as before.
    Same,
    /// None; for the operator.
    Trouble(String),
}

/// An OpenID provider of the fence.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// The fence's name for it.
    pub name: String,
    /// Its issuer, exactly.
    pub issuer: String,
    /// The audiences of which a bearer token must have one.
    pub audiences: Vec<String>,
    /// Who we are there, for sign-ins and introspection.
    pub client: Option<ClientConfig>,
    /// Scopes that a sign-in asks for; `openid` is always among them.
    pub scopes: Vec<String>,
    /// Its private CA, PEM; the public roots if there is none.
    pub ca: Option<String>,
    /// Whether it may lie at a loopback or private address.
    pub allow_private: bool,
    /// Signature algorithms that are accepted, as JOSE calls them.
    pub algorithms: Vec<String>,
    /// Whether it is asked for tokens that are no JWT.
    pub opaque: bool,
}

/// Who we are at a provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// Client id.
    pub id: String,
    /// How we prove it.
    pub credential: Credential,
}

/// How a client proves who it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// Not at all: PKCE alone protects sign-ins.
    Public,
    /// `client_secret_basic` or `client_secret_post`, whichever the provider takes.
    Secret(Secret<String>),
    /// `private_key_jwt`.
    Key {
        /// The algorithm of the key.
        algorithm: Algorithm,
        /// Its name at the provider.
        key_id: String,
        /// PKCS#8.
        pkcs8: SecretBytes,
    },
}

/// What came out of a request.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A sign-in was begun.
    Begun {
        /// Where to send the browser.
        url: String,
        /// What the callback must bring back.
        state: String,
        /// For [`ToFederation::Complete`].
        nonce: String,
        /// For [`ToFederation::Complete`].
        verifier: Secret<String>,
    },
    /// Somebody is signed in, or still is.
    SignedIn(Box<SignedIn>),
    /// What an opaque token is.
    Introspected(Introspected),
    /// Where to send the browser to be signed out.
    EndSession {
        /// The address.
        url: String,
    },
    /// A session ended at the provider, or all of a user.
    LoggedOut {
        /// The session, as [`SignedIn::sid`] names it.
        sid: Option<String>,
        /// The user.
        subject: Option<String>,
    },
}

/// What a provider says of somebody; everything in it was verified.
#[derive(Clone, Serialize, Deserialize)]
pub struct SignedIn {
    /// `sub`.
    pub subject: String,
    /// All claims of the ID token; none if a refresh brought no ID token.
    pub claims: Map<String, Value>,
    /// The ID token, as a hint for signing out.
    pub id_token: Option<Secret<String>>,
    /// The next refresh token.
    pub refresh_token: Option<Secret<String>>,
    /// The session at the provider; what its logout tokens name.
    pub sid: Option<String>,
    /// When the ID token ends, Unix time in seconds.
    pub expires: u64,
    /// When the access token ends: the time to ask again.
    pub access_expires: Option<u64>,
    /// The scopes that were granted.
    pub scopes: Vec<String>,
}

/// What an opaque token is.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Introspected {
    /// Whether it holds, for us.
    pub active: bool,
    /// What it says; empty unless active.
    pub claims: Map<String, Value>,
    /// How long this may be believed, Unix time in seconds.
    pub until: u64,
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The kind, for whoever asked.
    pub code: RefusalCode,
    /// For the operator; never holds a token or a secret.
    pub reason: String,
}

/// Kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Too many requests are under way.
    Busy,
    /// The provider said no: the code, the refresh token or the client is not good (any more).
    Denied,
    /// The request makes no sense.
    Malformed,
    /// What the provider sent is not believed.
    NotBelieved,
    /// Not with this provider.
    NotSupported,
    /// The provider cannot be reached, or does not answer as it should; it may later.
    Unavailable,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Without what only provider and browser may know, and without what is said of people.
impl fmt::Debug for ToFederation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, request, provider) = match self {
            Self::Start { roots } => return f.debug_struct("Start").field("roots", roots).finish(),
            Self::Providers(all) => return f.debug_tuple("Providers").field(all).finish(),
            Self::Entities(server) => return f.debug_tuple("Entities").field(server).finish(),
            Self::UnknownKey { provider, .. } => ("UnknownKey", &0, provider),
            Self::Begin { request, provider, .. } => ("Begin", request, provider),
            Self::Complete { request, provider, .. } => ("Complete", request, provider),
            Self::Refresh { request, provider, .. } => ("Refresh", request, provider),
            Self::Introspect { request, provider, .. } => ("Introspect", request, provider),
            Self::EndSession { request, provider, .. } => ("EndSession", request, provider),
            Self::LogoutToken { request, provider, .. } => ("LogoutToken", request, provider),
        };
        f.debug_struct(name).field("request", request).field("provider", provider).finish_non_exhaustive()
    }
}

/// The addresses hold state, nonce and hints.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { .. } => f.debug_struct("Begun").finish_non_exhaustive(),
            Self::SignedIn(signed_in) => f.debug_tuple("SignedIn").field(signed_in).finish(),
            Self::Introspected(said) => f.debug_tuple("Introspected").field(said).finish(),
            Self::EndSession { .. } => f.debug_struct("EndSession").finish_non_exhaustive(),
            Self::LoggedOut { .. } => f.debug_struct("LoggedOut").finish_non_exhaustive(),
        }
    }
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl fmt::Debug for Introspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { active, until, .. } = self;
        f.debug_struct("Introspected").field("active", active).field("until", until).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_ever_shown() {
        let hidden = || Secret::new("hunter2".to_owned());
        let client = ClientConfig { id: "clinic".into(), credential: Credential::Secret(hidden()) };
        let config = ProviderConfig {
            name: "staff".into(),
            issuer: "https://id.clinic.example".into(),
            audiences: vec![],
            client: Some(client),
            scopes: vec![],
            ca: None,
            allow_private: false,
            algorithms: vec![],
            opaque: false,
        };
        let messages = [
            ToFederation::Providers(vec![config]),
            ToFederation::Introspect { request: 1, provider: "staff".into(), token: hidden() },
            ToFederation::Refresh {
                request: 1,
                provider: "staff".into(),
                refresh_token: hidden(),
                subject: "hunter2".into(),
            },
            ToFederation::LogoutToken { request: 1, provider: "staff".into(), token: "hunter2".into() },
            ToFederation::Complete {
                request: 1,
                provider: "staff".into(),
                code: hidden(),
                iss: None,
                verifier: hidden(),
                nonce: "hunter2".into(),
                redirect_uri: String::new(),
                max_age: None,
                acr_values: vec![],
            },
        ];
        let said = || Map::from_iter([("email".to_owned(), Value::from("hunter2"))]);
        let text = || "hunter2".to_owned();
        let signed_in = SignedIn {
            subject: text(),
            claims: said(),
            id_token: Some(hidden()),
            refresh_token: None,
            sid: Some(text()),
            expires: 1,
            access_expires: None,
            scopes: vec![],
        };
        let outcomes = [
            Outcome::Begun { url: text(), state: text(), nonce: text(), verifier: hidden() },
            Outcome::SignedIn(Box::new(signed_in)),
            Outcome::Introspected(Introspected { active: true, claims: said(), until: 1 }),
            Outcome::EndSession { url: text() },
            Outcome::LoggedOut { sid: Some(text()), subject: Some(text()) },
        ];
        for outcome in outcomes {
            assert!(!format!("{outcome:?}").contains("hunter2"), "{outcome:?}");
        }
        for message in messages {
            assert!(!format!("{message:?}").contains("hunter2"), "{message:?}");
            let text = serde_json::to_string(&message).unwrap();
            let back: ToFederation = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
    }
}
