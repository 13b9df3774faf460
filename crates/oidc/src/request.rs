//! What control asks, apart from which provider it is about.

use ringfence_keys::Secret;
use ringfence_token::{TokenError, VerifiedToken};

use crate::id_token::{Asked, IdTokenError};
use crate::party::{Begin, Complete, Exchanged, LogoutError, Party};
use crate::protocol::{Outcome, Refusal, RefusalCode, ToFederation};
use crate::provider::{Provider, unix_now};

/// A request to one provider.
pub(crate) enum Request {
    Begin { redirect_uri: String, prompt: Option<String>, acr_values: Vec<String>, max_age: Option<u64> },
    Complete(Box<Completion>),
    Refresh { refresh_token: Secret<String>, subject: String },
    Introspect { token: Secret<String> },
    EndSession { hint: Option<Secret<String>>, afterwards: Option<String>, state: Option<String> },
    LogoutToken { token: String },
}

pub(crate) struct Completion {
    code: Secret<String>,
    iss: Option<String>,
    verifier: Secret<String>,
    nonce: String,
    redirect_uri: String,
    max_age: Option<u64>,
    acr_values: Vec<String>,
}

impl Request {
    /// Number, provider and rest of a message that wants an answer.
    pub(crate) fn split(message: ToFederation) -> Option<(u64, String, Self)> {
        Some(match message {
            ToFederation::Begin { request, provider, redirect_uri, prompt, acr_values, max_age } => {
                (request, provider, Self::Begin { redirect_uri, prompt, acr_values, max_age })
            }
            ToFederation::Complete {
                request,
                provider,
                code,
                iss,
                verifier,
                nonce,
                redirect_uri,
                max_age,
                acr_values,
            } => {
                let completion = Completion { code, iss, verifier, nonce, redirect_uri, max_age, acr_values };
                (request, provider, Self::Complete(Box::new(completion)))
            }
            ToFederation::Refresh { request, provider, refresh_token, subject } => {
                (request, provider, Self::Refresh { refresh_token, subject })
            }
            ToFederation::Introspect { request, provider, token } => {
                (request, provider, Self::Introspect { token })
            }
            ToFederation::EndSession {
                request,
                provider,
                id_token_hint,
                post_logout_redirect_uri,
                state,
            } => {
                let afterwards = post_logout_redirect_uri;
                (request, provider, Self::EndSession { hint: id_token_hint, afterwards, state })
            }
            ToFederation::LogoutToken { request, provider, token } => {
                (request, provider, Self::LogoutToken { token })
            }
            ToFederation::Start { .. }
            | ToFederation::Providers(_)
            | ToFederation::Entities(_)
            | ToFederation::UnknownKey { .. } => return None,
        })
    }

    pub(crate) async fn work(self, provider: &Provider) -> Result<Outcome, Refusal> {
        // Answers that are kept hold without the provider.
        if let Self::Introspect { token } = &self {
            return provider.introspect(token.expose()).await.map(Outcome::Introspected);
        }
        let known = provider.known().await?;
        let party = Party { config: &provider.config, known: &known, fetcher: &provider.fetcher };
        match self {
            Self::Begin { redirect_uri, prompt, acr_values, max_age } => party.begin(&Begin {
                redirect_uri: &redirect_uri,
                prompt: prompt.as_deref(),
                acr_values: &acr_values,
                max_age,
            }),
            Self::Complete(c) => {
                let complete = Complete {
                    code: c.code.expose(),
                    iss: c.iss.as_deref(),
                    verifier: c.verifier.expose(),
                    redirect_uri: &c.redirect_uri,
                };
                let exchanged = party.complete(&complete, unix_now()).await?;
                let asked = Asked {
                    nonce: Some(&c.nonce),
                    code: Some(c.code.expose()),
                    max_age: c.max_age,
                    acr_values: &c.acr_values,
                    ..Asked::default()
                };
                judge(provider, party, &exchanged, &asked).await
            }
            Self::Refresh { refresh_token, subject } => {
                let exchanged = party.refresh(&refresh_token, &subject, unix_now()).await?;
                judge(provider, party, &exchanged, &Asked::default()).await
            }
            Self::EndSession { hint, afterwards, state } => party.end_session(
                hint.as_ref().map(|hint| hint.expose().as_str()),
                afterwards.as_deref(),
                state.as_deref(),
            ),
            Self::LogoutToken { token } => {
                let verified = match party.logout(&token, unix_now()) {
                    Err(LogoutError::Token(TokenError::UnknownKey)) => {
                        let known = provider.known_again().await?;
                        Party { known: &known, ..party }.logout(&token, unix_now())
                    }
                    judged => judged,
                };
                logged_out(provider, &verified.map_err(LogoutError::into_refusal)?)
            }
            Self::Introspect { .. } => unreachable!("answered above"),
        }
    }
}

/// Judges what a token endpoint gave; when a key is not known yet, once more after asking for keys. The code is spent by
/// then, so this is not begun anew.
async fn judge(
    provider: &Provider,
    party: Party<'_>,
    exchanged: &Exchanged,
    asked: &Asked<'_>,
) -> Result<Outcome, Refusal> {
    let judged = match party.judge(exchanged, asked, unix_now()) {
        Err(IdTokenError::Token(TokenError::UnknownKey)) => {
            let known = provider.known_again().await?;
            Party { known: &known, ..party }.judge(exchanged, asked, unix_now())
        }
        judged => judged,
    };
    let signed_in = judged.map_err(|e| Refusal::new(RefusalCode::NotBelieved, e.to_string()))?;
    Ok(Outcome::SignedIn(Box::new(signed_in)))
}

fn logged_out(provider: &Provider, token: &VerifiedToken) -> Result<Outcome, Refusal> {
    let id = token.text("jti").unwrap_or_default();
    if !provider.is_new_logout(id, Party::logout_until(token, unix_now())) {
        return Err(Refusal::new(RefusalCode::NotBelieved, "the logout token was shown before"));
    }
    Ok(Outcome::LoggedOut {
        sid: token.text("sid").map(str::to_owned),
        subject: token.subject().map(str::to_owned),
    })
}

impl LogoutError {
    fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Token(_) => Refusal::new(RefusalCode::NotBelieved, self.to_string()),
        }
    }
}
