//! The relying party: sign-ins, refresh, introspection and logout at one provider.

use http::StatusCode;
use ringfence_keys::Secret;
use ringfence_keys::digest::sha256;
use ringfence_token::{Algorithm, Algorithms, Profile, SKEW, VerifiedToken};
use serde_json::Map;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::answer::{Tokens, refused};
use crate::client_auth::{random_text, signed_call};
use crate::endpoint::Endpoint;
use crate::fetch::{Fetcher, Reply};
use crate::id_token::{Asked, IdTokenError, verify};
use crate::introspection::{IntrospectionError, SIGNED, Signed, read_introspection};
use crate::known::Known;
use crate::protocol::{ClientConfig, Introspected, Outcome, ProviderConfig, Refusal, RefusalCode, SignedIn};

/// How old a logout token may be, in seconds.
const LOGOUT_AGE: u64 = 300;
/// Longest text that a request brings along.
const MAX_TEXT: usize = 8192;

/// One provider as it is known now.
#[derive(Clone, Copy)]
pub(crate) struct Party<'a> {
    pub(crate) config: &'a ProviderConfig,
    pub(crate) known: &'a Known,
    pub(crate) fetcher: &'a Fetcher,
}

/// What a sign-in is begun with.
pub(crate) struct Begin<'a> {
    pub(crate) redirect_uri: &'a str,
    pub(crate) prompt: Option<&'a str>,
    pub(crate) acr_values: &'a [String],
    pub(crate) max_age: Option<u64>,
}

/// What a sign-in ends with.
pub(crate) struct Complete<'a> {
    pub(crate) code: &'a str,
    pub(crate) iss: Option<&'a str>,
    pub(crate) verifier: &'a str,
    pub(crate) redirect_uri: &'a str,
}

impl Party<'_> {
    /// Where to send the browser, and what must come back.
    pub(crate) fn begin(&self, begin: &Begin<'_>) -> Result<Outcome, Refusal> {
        let client = self.client()?;
        let endpoint = self.endpoint("authorization_endpoint", self.known.metadata.authorization.as_ref())?;
        bounded([begin.redirect_uri, begin.prompt.unwrap_or_default()])?;
        let (state, nonce, verifier) = (random_text(), random_text(), random_text());
        let challenge = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
        let scope = self.scopes().join(" ");
        let (acr, max_age) = (begin.acr_values.join(" "), begin.max_age.map(|age| age.to_string()));
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", &client.id),
            ("redirect_uri", begin.redirect_uri),
            ("scope", &scope),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        parameters.extend(begin.prompt.map(|prompt| ("prompt", prompt)));
        parameters.extend((!acr.is_empty()).then_some(("acr_values", acr.as_str())));
        parameters.extend(max_age.as_deref().map(|age| ("max_age", age)));
        let url = endpoint.with_query(&parameters);
        Ok(Outcome::Begun { url, state, nonce, verifier: Secret::new(verifier) })
    }

    /// Exchanges the code of a callback, and says who signed in.
    pub(crate) async fn complete(&self, complete: &Complete<'_>, now: u64) -> Result<Exchanged, Refusal> {
        let metadata = &self.known.metadata;
        bounded([complete.code, complete.verifier, complete.redirect_uri])?;
        match complete.iss {
            Some(iss) if iss != metadata.issuer => return Err(mix_up("names another provider")),
            None if metadata.says_issuer => {
                return Err(mix_up("does not name its provider, which says that it does"));
            }
            _ => {}
        }
        let reply = self
            .token_call(
                &[
                    ("grant_type", "authorization_code"),
                    ("code", complete.code),
                    ("redirect_uri", complete.redirect_uri),
                    ("code_verifier", complete.verifier),
                ],
                now,
            )
            .await?;
        let tokens = Tokens::read(&reply)?;
        if tokens.id_token.is_none() {
            return Err(Refusal::new(
                RefusalCode::NotBelieved,
                "the token endpoint gave no ID token: is the client allowed the scope `openid`?",
            ));
        }
        Ok(Exchanged { tokens, subject: None })
    }

    /// Asks whether a user still is one.
    pub(crate) async fn refresh(
        &self,
        refresh_token: &Secret<String>,
        subject: &str,
        now: u64,
    ) -> Result<Exchanged, Refusal> {
        bounded([subject])?;
        let parameters =
            [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose().as_str())];
        let mut tokens = Tokens::read(&self.token_call(&parameters, now).await?)?;
        // A provider that does not rotate says nothing; the present one stays.
        if tokens.refresh_token.is_none() {
            tokens.refresh_token = Some(refresh_token.clone());
        }
        Ok(Exchanged { tokens, subject: Some(subject.to_owned()) })
    }

    /// What the tokens of an exchange say, with `asked` for the rest of what was asked for.
    pub(crate) fn judge(
        &self,
        exchanged: &Exchanged,
        asked: &Asked<'_>,
        now: u64,
    ) -> Result<SignedIn, IdTokenError> {
        let tokens = &exchanged.tokens;
        let access_expires = tokens.expires_in.map(|seconds| now.saturating_add(seconds));
        let mut signed_in = SignedIn {
            subject: exchanged.subject.clone().unwrap_or_default(),
            claims: Map::new(),
            id_token: tokens.id_token.clone(),
            refresh_token: tokens.refresh_token.clone(),
            sid: None,
            expires: access_expires.unwrap_or(now),
            access_expires,
            scopes: tokens.scopes(&self.scopes()),
        };
        if let (Some(id_token), Some(client)) = (&tokens.id_token, &self.config.client) {
            let profile =
                Profile::id_token(&self.known.metadata.issuer, &client.id).with_algorithms(self.algorithms());
            let asked = Asked {
                access_token: Some(tokens.access_token.expose()),
                subject: exchanged.subject.as_deref(),
                ..*asked
            };
            let verified = verify(id_token.expose(), self.known, &profile, &asked, now)?;
            verified.subject().unwrap_or_default().clone_into(&mut signed_in.subject);
            signed_in.sid = verified.text("sid").map(str::to_owned);
            signed_in.expires = verified.expires_at();
            signed_in.claims = verified.claims().clone();
        }
        Ok(signed_in)
    }

    /// Asks what an opaque token is.
    pub(crate) async fn introspect(
        &self,
        token: &str,
        now: u64,
    ) -> Result<Result<Introspected, IntrospectionError>, Refusal> {
        let metadata = &self.known.metadata;
        if !self.config.opaque {
            let reason = format!("the fence does not say `opaque: introspect` for `{}`", self.config.name);
            return Err(Refusal::new(RefusalCode::NotSupported, reason));
        }
        bounded([token])?;
        let endpoint = self.endpoint("introspection_endpoint", metadata.introspection.as_ref())?;
        // What metadata leaves out is what holds at the token endpoint.
        let methods = metadata.introspection_methods.as_deref().or(metadata.token_methods.as_deref());
        let parameters = [("token", token), ("token_type_hint", "access_token")];
        let client = self.client()?;
        let mut call = signed_call(client, methods, &metadata.issuer, now, &parameters)?;
        call.accept = metadata.signs_introspection.then_some(SIGNED);
        let reply = self.fetcher.call(endpoint, call).await.map_err(unavailable)?;
        if reply.status != StatusCode::OK {
            return Err(refused("introspection endpoint", &reply));
        }
        let read = |body: &[u8]| read_introspection(body, &metadata.issuer, &self.config.audiences, now);
        if reply.media_type != SIGNED {
            return Ok(read(&reply.body));
        }
        let (keys, algorithms) = (&*self.known.keys, self.algorithms());
        let signed = Signed { keys, algorithms, issuer: &metadata.issuer, client: &client.id };
        Ok(signed.open(&reply.body, now).and_then(|body| read(&body)))
    }

    /// Where to send a browser to be signed out.
    pub(crate) fn end_session(
        &self,
        hint: Option<&str>,
        afterwards: Option<&str>,
        state: Option<&str>,
    ) -> Result<Outcome, Refusal> {
        let endpoint = self.endpoint("end_session_endpoint", self.known.metadata.end_session.as_ref())?;
        bounded([afterwards.unwrap_or_default(), state.unwrap_or_default()])?;
        let mut parameters = vec![("client_id", self.client()?.id.as_str())];
        parameters.extend(hint.map(|hint| ("id_token_hint", hint)));
        parameters.extend(afterwards.map(|uri| ("post_logout_redirect_uri", uri)));
        parameters.extend(state.map(|state| ("state", state)));
        Ok(Outcome::EndSession { url: endpoint.with_query(&parameters) })
    }

    /// Verifies a logout token.
    pub(crate) fn logout(&self, token: &str, now: u64) -> Result<VerifiedToken, LogoutError> {
        let client = self.client()?;
        let profile = Profile::logout_token(&self.known.metadata.issuer, &client.id)
            .with_plain_type()
            .with_algorithms(self.algorithms())
            .with_max_age(LOGOUT_AGE);
        Ok(profile.verify(token, &self.known.keys, now)?)
    }

    /// Until when a logout token could be believed again.
    pub(crate) fn logout_until(token: &VerifiedToken, now: u64) -> u64 {
        token.issued_at().unwrap_or(now).saturating_add(LOGOUT_AGE).saturating_add(2 * SKEW)
    }

    async fn token_call(&self, parameters: &[(&str, &str)], now: u64) -> Result<Reply, Refusal> {
        let metadata = &self.known.metadata;
        let endpoint = self.endpoint("token_endpoint", metadata.token.as_ref())?;
        let methods = metadata.token_methods.as_deref();
        let call = signed_call(self.client()?, methods, &metadata.issuer, now, parameters)?;
        self.fetcher.call(endpoint, call).await.map_err(unavailable)
    }

    fn client(&self) -> Result<&ClientConfig, Refusal> {
        self.config.client.as_ref().ok_or_else(|| {
            let reason = format!("provider `{}` has no `client` in the fence", self.config.name);
            Refusal::new(RefusalCode::NotSupported, reason)
        })
    }

    fn endpoint<'e>(&self, name: &str, endpoint: Option<&'e Endpoint>) -> Result<&'e Endpoint, Refusal> {
        endpoint.ok_or_else(|| {
            let reason = format!("provider `{}` has no `{name}` in its metadata", self.config.name);
            Refusal::new(RefusalCode::NotSupported, reason)
        })
    }

    fn scopes(&self) -> Vec<String> {
        let mut scopes = self.config.scopes.clone();
        if !scopes.iter().any(|scope| scope == "openid") {
            scopes.insert(0, "openid".to_owned());
        }
        scopes
    }

    fn algorithms(&self) -> Algorithms {
        self.config.algorithms.iter().filter_map(|name| Algorithm::from_name(name)).collect()
    }
}

/// What a token endpoint gave; not judged yet.
pub(crate) struct Exchanged {
    tokens: Tokens,
    /// Whom it must be about.
    subject: Option<String>,
}

/// Why a logout token is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogoutError {
    #[error("the logout token is not believed: {0}")]
    Token(#[from] ringfence_token::TokenError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

pub(crate) fn unavailable(e: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Unavailable, e.to_string())
}

fn mix_up(what: &str) -> Refusal {
    let reason =
        format!("the callback {what}: somebody may have swapped providers, so the code was not sent");
    Refusal::new(RefusalCode::NotBelieved, reason)
}

fn bounded<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<(), Refusal> {
    match texts.into_iter().all(|text| text.len() <= MAX_TEXT) {
        true => Ok(()),
        false => Err(Refusal::new(
            RefusalCode::Malformed,
            format!("a part of the request is longer than {MAX_TEXT} bytes"),
        )),
    }
}
