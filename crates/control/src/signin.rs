//! Sign-ins and what becomes of them: the federation process speaks with the provider, the keeper signs, and here is who may ask.
//!
//! Everything runs beside control's loop, in tasks that are bounded per node: a provider that is slow holds up nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence_ca::Ca;
use ringfence_event::{Emitter, Entity, Event, Kind};
use ringfence_keeper::ClientError;
use ringfence_keeper::protocol::{
    DataPurpose, OpenSession, RefusalCode as KeeperCode, RenewSession, SessionToken,
};
use ringfence_keys::{Secret, VerifyingKey};
use ringfence_model::{Login, Provider};
use ringfence_oidc::protocol::{Outcome, Refusal, RefusalCode, SignedIn, ToFederation};
use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Told};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{KeySet, Profile};
use tokio::sync::OnceCell;

use crate::asker::Asker;
use crate::core::now;
use crate::nodes::cut;
use crate::revocations::{Revocations, Target};
use crate::sessions::{Session, Sessions, SessionsError, Tokens};

/// A session that was refreshed is not refreshed again for so many seconds: two requests of one browser come at once, and the
/// second would show a refresh token that is spent.
const FRESH: u64 = 20;
/// No session is refreshed more often than this, in seconds, and how much sooner than it must.
const MIN_REFRESH: u64 = 60;
const EARLY: u64 = 15;
/// Most sessions of one user: whoever signs in by a program must not take the room of all.
const MAX_OF_USER: usize = 200;
/// Most sessions of which it is remembered that they were just refreshed.
const MAX_TURNS: usize = 10_000;

/// By what a question is answered.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// The providers of the fence in force.
    pub(crate) providers: Arc<Vec<Provider>>,
    /// The keeper and its keys.
    pub(crate) ca: Ca,
}

/// Who answers. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SignIns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    asker: Asker,
    sessions: Sessions,
    revocations: Revocations,
    emitter: Emitter,
    /// Seals what providers gave.
    key: OnceCell<Secret<[u8; 32]>>,
    /// Refreshes that are under way or were a moment ago, by session.
    turns: Mutex<HashMap<String, Turn>>,
    /// The longest life of an access token that each issuer gave, in seconds.
    lives: Mutex<HashMap<String, u64>>,
}

/// The turn to refresh a session, and what came of the last.
type Turn = Arc<tokio::sync::Mutex<Option<(u64, Told)>>>;

impl SignIns {
    pub(crate) fn new(asker: Asker, sessions: Sessions, revocations: Revocations, emitter: Emitter) -> Self {
        let (key, turns, lives) = (OnceCell::new(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { asker, sessions, revocations, emitter, key, turns, lives }))
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Answers a question of a proxy, if it is one of those.
    pub(crate) async fn answer(&self, ground: &Ground, ask: Ask) -> Result<Told, NoAnswer> {
        match ask {
            Ask::Begin { provider, redirect_uri, prompt, acr_values, max_age } => {
                let (known, _) = ground.login(&provider)?;
                let begin = |request| ToFederation::Begin {
                    request,
                    provider,
                    redirect_uri,
                    prompt,
                    acr_values,
                    max_age,
                };
                match self.0.asker.ask(&known.name, begin).await.map_err(refused)? {
                    Outcome::Begun { url, state, nonce, verifier } => {
                        Ok(Told::Begun { url, state, nonce, verifier })
                    }
                    _ => Err(confused()),
                }
            }
            Ask::Complete { .. } => self.complete(ground, ask).await,
            Ask::Refresh { session } => self.refresh(ground, session).await,
            Ask::SignOut { session, back } => self.sign_out(ground, &session, back).await,
            Ask::LoggedOut { provider, token } => self.logged_out(ground, &provider, &token).await,
            Ask::Introspect { provider, token } => self.introspect(ground, provider, token).await,
            Ask::Mint(_) => Err(NoAnswer::new(NoAnswerCode::Malformed, "that is no question about sign-ins")),
        }
    }

    async fn complete(&self, ground: &Ground, ask: Ask) -> Result<Told, NoAnswer> {
        let Ask::Complete { provider: name, code, iss, verifier, nonce, redirect_uri, acr_values, max_age } =
            ask
        else {
            return Err(confused());
        };
        let (provider, client) = ground.login(&name)?;
        let expected = nonce.clone();
        let complete = |request| ToFederation::Complete {
            request,
            provider: name,
            code,
            iss,
            verifier,
            nonce: expected,
            redirect_uri,
            max_age,
            acr_values,
        };
        let signed = self.0.asker.ask(&provider.name, complete).await.map_err(refused).and_then(signed_in);
        let opened = match signed {
            Ok(signed) => self.open(ground, provider, client, nonce, signed).await,
            Err(why) => Err(why),
        };
        if let Err(why) = &opened {
            self.event(&provider.name, None, 1, false, &format!("a sign-in was refused: {}", why.reason));
        }
        opened
    }

    /// Has the session of somebody who signed in signed, and keeps what it takes to refresh and end it.
    async fn open(
        &self,
        ground: &Ground,
        provider: &Provider,
        client: &str,
        nonce: String,
        signed: SignedIn,
    ) -> Result<Told, NoAnswer> {
        let missing = || NoAnswer::new(NoAnswerCode::Denied, "the provider gave no ID token");
        let id_token = signed.id_token.clone().ok_or_else(missing)?;
        let scopes = signed.scopes.clone();
        let request = OpenSession { provider: provider.name.clone(), id_token, nonce, scopes };
        let token = ground.ca.keeper().open_session(request).await.map_err(unsigned)?;
        let now = now();
        let session = Session {
            provider: provider.name.clone(),
            issuer: provider.issuer.clone(),
            client: client.to_owned(),
            subject: signed.subject.clone(),
            user: token.identity.id.clone(),
            sid: signed.sid.clone(),
            since: now,
            refreshed: now,
            expires_at: token.expires_at,
        };
        let older = self.0.sessions.beyond(&provider.issuer, &signed.subject, MAX_OF_USER - 1).await;
        for id in older.map_err(unkept)? {
            let why = format!("its user has more than {MAX_OF_USER}");
            self.end(ground, &id, "control", &why).await?;
        }
        self.keep("sign-in", ground, &token.id, session, &signed).await?;
        let message = format!("{} of {} signed in", token.identity.id, provider.name);
        self.event(&token.identity.id, Some(&token.id), 1, true, &message);
        Ok(told(token, &signed, now))
    }

    async fn refresh(&self, ground: &Ground, shown: Secret<String>) -> Result<Told, NoAnswer> {
        let id = ground.session(&shown)?;
        let turn = self.turn(&id);
        let mut last = turn.lock().await;
        if let Some((_, told)) = last.as_ref().filter(|(at, _)| now() < at.saturating_add(FRESH)) {
            return Ok(told.clone());
        }
        // Whoever asks may go away; what the provider gave then must be kept all the same, since the token before it is spent.
        let (this, ground) = (self.clone(), ground.clone());
        let refreshed = tokio::spawn(async move { this.refresh_now(&ground, &id, shown).await });
        let told = refreshed.await.unwrap_or_else(|_| Err(confused()))?;
        *last = Some((now(), told.clone()));
        Ok(told)
    }

    async fn refresh_now(&self, ground: &Ground, id: &str, shown: Secret<String>) -> Result<Told, NoAnswer> {
        let over = || NoAnswer::new(NoAnswerCode::Denied, "the session has ended");
        let now = now();
        let session = self.0.sessions.find(id, now).await.map_err(unkept)?.ok_or_else(over)?;
        // Another issuer under the same name knows nothing of it.
        let (provider, client) = ground.login(&session.provider)?;
        if provider.issuer != session.issuer || client != session.client {
            self.end(ground, id, "control", "its provider was declared anew").await?;
            return Err(over());
        }
        let tokens = self.0.sessions.tokens(id, self.key(ground).await?).await.map_err(unkept)?;
        let Some(refresh_token) = tokens.refresh.clone() else {
            let request = RenewSession { session: shown, id_token: None };
            let token = ground.ca.keeper().renew_session(request).await.map_err(unsigned)?;
            return Ok(Told::SignedIn { session: token.token, refresh_at: 0 });
        };
        let (name, subject) = (session.provider.clone(), session.subject.clone());
        let refresh = |request| ToFederation::Refresh { request, provider: name, refresh_token, subject };
        let mut signed = match self.0.asker.ask(&provider.name, refresh).await {
            Ok(outcome) => signed_in(outcome)?,
            Err(Refusal { code: RefusalCode::Denied, reason }) => {
                let why = format!("its provider does not vouch for the user any more: {reason}");
                self.end(ground, id, &format!("provider {}", session.provider), &why).await?;
                return Err(over());
            }
            // It cannot be asked, or is not believed: the session goes on until its end.
            Err(why) => {
                let message = format!("its provider could not be asked: {}", why.reason);
                self.event(&session.user, Some(id), 3, false, &message);
                return Err(NoAnswer::new(NoAnswerCode::Unavailable, why.reason));
            }
        };
        let id_token = signed.id_token.clone();
        signed.id_token = signed.id_token.or(tokens.id);
        let sid = signed.sid.clone().or_else(|| session.sid.clone());
        let session = Session { sid, refreshed: now, ..session };
        self.keep("session refresh", ground, id, session, &signed).await?;
        let request = RenewSession { session: shown, id_token };
        let token = ground.ca.keeper().renew_session(request).await.map_err(unsigned)?;
        Ok(told(token, &signed, now))
    }

    async fn sign_out(
        &self,
        ground: &Ground,
        shown: &Secret<String>,
        back: String,
    ) -> Result<Told, NoAnswer> {
        let id = ground.session(shown)?;
        let session = self.0.sessions.find(&id, now()).await.map_err(unkept)?;
        let tokens = self.0.sessions.tokens(&id, self.key(ground).await?).await.map_err(unkept)?;
        // First the end here: the provider may not answer.
        self.end(ground, &id, "user", "signed out").await?;
        let Some(session) = session else { return Ok(Told::SignedOut { url: None }) };
        let current = ground.login(&session.provider).is_ok_and(|(p, _)| p.issuer == session.issuer);
        if !current {
            return Ok(Told::SignedOut { url: None });
        }
        let name = session.provider.clone();
        let end = |request| ToFederation::EndSession {
            request,
            provider: name,
            id_token_hint: tokens.id,
            post_logout_redirect_uri: Some(back),
            state: None,
        };
        let url = match self.0.asker.ask(&session.provider, end).await {
            Ok(Outcome::EndSession { url }) => Some(url),
            _ => None,
        };
        Ok(Told::SignedOut { url })
    }

    /// The provider says that a session ended.
    async fn logged_out(
        &self,
        ground: &Ground,
        provider: &str,
        token: &Secret<String>,
    ) -> Result<Told, NoAnswer> {
        let (provider, _) = ground.login(provider)?;
        let token = token.expose().clone();
        let name = provider.name.clone();
        let ask = |request| ToFederation::LogoutToken { request, provider: name, token };
        let (sid, subject) = match self.0.asker.ask(&provider.name, ask).await {
            Ok(Outcome::LoggedOut { sid, subject }) => (sid, subject),
            Ok(_) => return Err(confused()),
            Err(why) => {
                let message = format!("a logout token was refused: {}", why.reason);
                self.event(&provider.name, None, 4, false, &message);
                return Err(refused(why));
            }
        };
        let by = format!("provider {}", provider.name);
        if let Some(sid) = &sid {
            // Also what we do not keep: a sign-in that is under way, or what else the provider issued within that session.
            let life = self.longest(provider);
            let target = Target::provider_session(&provider.name, &provider.issuer, sid, life);
            self.revoke(target, &by, "signed out at the provider").await?;
        }
        let found = self.0.sessions.of_provider(&provider.issuer, sid.as_deref(), subject.as_deref());
        for id in found.await.map_err(unkept)? {
            self.end(ground, &id, &by, "signed out at the provider").await?;
        }
        Ok(Told::LoggedOut)
    }

    async fn introspect(
        &self,
        ground: &Ground,
        provider: String,
        token: Secret<String>,
    ) -> Result<Told, NoAnswer> {
        let known = ground
            .provider(&provider)
            .filter(|provider| provider.introspect)
            .ok_or_else(|| NoAnswer::new(NoAnswerCode::Malformed, "that provider is not asked for tokens"))?;
        let ask = |request| ToFederation::Introspect { request, provider, token };
        match self.0.asker.ask(&known.name, ask).await.map_err(refused)? {
            Outcome::Introspected(said) => {
                Ok(Told::Introspected { active: said.active, claims: said.claims, until: said.until })
            }
            _ => Err(confused()),
        }
    }

    /// Ends a session everywhere: first where it would be believed, then here.
    pub(crate) async fn end(
        &self,
        ground: &Ground,
        id: &str,
        actor: &str,
        why: &str,
    ) -> Result<Option<Session>, NoAnswer> {
        let (target, now) = (Target::session(ground.ca.trust_domain(), id), now());
        let known = self.0.sessions.find(id, now).await.map_err(unkept)?;
        let target = match known {
            Some(session) => target.ending(session.expires_at, now),
            None => target,
        };
        let revoked = self.revoke(target, actor, why).await;
        // Where there is no room for that, it is at least refreshed no more.
        let session = self.0.sessions.forget(actor, "session end", id).await.map_err(unkept)?;
        revoked?;
        let user = session.as_ref().map_or("-", |session| session.user.as_str());
        self.event(user, Some(id), 4, true, &format!("the session ended: {why}"));
        Ok(session)
    }

    async fn revoke(&self, target: Target, by: &str, why: &str) -> Result<(), NoAnswer> {
        // A provider's words may be among them.
        let clean = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(120).collect() };
        let revoked = self.0.revocations.revoke(target, &clean(by), &clean(why), now()).await;
        revoked.map(drop).map_err(|refusal| NoAnswer::new(NoAnswerCode::Unavailable, refusal.1))
    }

    async fn keep(
        &self,
        action: &str,
        ground: &Ground,
        id: &str,
        session: Session,
        signed: &SignedIn,
    ) -> Result<(), NoAnswer> {
        if let Some(ends) = signed.access_expires {
            let mut lives = self.0.lives.lock().unwrap_or_else(PoisonError::into_inner);
            let longest = lives.entry(session.issuer.clone()).or_default();
            *longest = ends.saturating_sub(session.refreshed).max(*longest);
        }
        let tokens = Tokens { refresh: signed.refresh_token.clone(), id: signed.id_token.clone() };
        let key = self.key(ground).await?;
        self.0.sessions.keep(action, id, session, &tokens, key).await.map_err(|e| match e {
            SessionsError::Full => NoAnswer::new(NoAnswerCode::Busy, e.to_string()),
            e => unavailable(e),
        })
    }

    /// How long something may live that names a session at this provider: a session here, or an access token, as long as those do that were
    /// seen. After a restart none was seen yet.
    fn longest(&self, provider: &Provider) -> u64 {
        let lives = self.0.lives.lock().unwrap_or_else(PoisonError::into_inner);
        let absolute = provider.login.as_ref().map_or(Duration::ZERO, |login| login.absolute);
        let here = absolute.max(Login::default().absolute).as_secs();
        lives.get(&provider.issuer).map_or(here, |seen| here.max(*seen))
    }

    async fn key(&self, ground: &Ground) -> Result<&Secret<[u8; 32]>, NoAnswer> {
        let keeper = ground.ca.keeper();
        self.0.key.get_or_try_init(|| keeper.data_key(DataPurpose::Store)).await.map_err(unsigned)
    }

    fn turn(&self, id: &str) -> Turn {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= MAX_TURNS {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry(id.to_owned()).or_default().clone()
    }

    fn event(&self, name: &str, uid: Option<&str>, activity: u8, granted: bool, message: &str) {
        let (name, message) = (cut(name), cut(message));
        let entity = Entity { entity: "session", name: &name, uid, activity, granted, message: &message };
        self.0.emitter.emit(&Event::new(Kind::Entity(entity)));
    }
}

impl Ground {
    fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// A provider where people may sign in, and who we are there.
    fn login(&self, name: &str) -> Result<(&Provider, &str), NoAnswer> {
        let provider = self.provider(name).filter(|provider| provider.login.is_some());
        provider.and_then(|provider| Some((provider, provider.client.as_ref()?.id.as_str()))).ok_or_else(
            || NoAnswer::new(NoAnswerCode::Malformed, "the fence has no such provider where people sign in"),
        )
    }

    /// The id of the session that a token is of. The keeper's signature is looked at here too: a proxy parses what the internet sends.
    fn session(&self, shown: &Secret<String>) -> Result<String, NoAnswer> {
        let denied = |why: String| NoAnswer::new(NoAnswerCode::Denied, why);
        let domain = TrustDomain::new(self.ca.trust_domain()).map_err(|e| denied(e.to_string()))?;
        let bundle = self.ca.bundle().borrow().clone();
        let keys = bundle
            .txn
            .iter()
            .filter_map(|key| Some((key.kid.clone(), VerifyingKey::from_spki(&key.spki.0).ok()?)));
        let token = Profile::session(&domain)
            .verify(shown.expose(), &KeySet::from_keys(keys), now())
            .map_err(|e| denied(format!("the session token is not believed: {e}")))?;
        Ok(token.token_id().unwrap_or_default().to_owned())
    }
}

fn told(token: SessionToken, signed: &SignedIn, now: u64) -> Told {
    let due = signed.access_expires.unwrap_or(signed.expires).saturating_sub(EARLY).max(now + MIN_REFRESH);
    let refresh_at = if signed.refresh_token.is_some() { due } else { 0 };
    Told::SignedIn { session: token.token, refresh_at }
}

fn signed_in(outcome: Outcome) -> Result<SignedIn, NoAnswer> {
    match outcome {
        Outcome::SignedIn(signed) => Ok(*signed),
        _ => Err(confused()),
    }
}

fn confused() -> NoAnswer {
    NoAnswer::new(NoAnswerCode::Unavailable, "the answer is to something else")
}

fn unavailable(e: impl std::fmt::Display) -> NoAnswer {
    NoAnswer::new(NoAnswerCode::Unavailable, e.to_string())
}

fn unkept(e: ringfence_store::StoreError) -> NoAnswer {
    unavailable(e)
}

/// Why the federation process gave none.
fn refused(Refusal { code, reason }: Refusal) -> NoAnswer {
    let code = match code {
        RefusalCode::Busy => NoAnswerCode::Busy,
        RefusalCode::Denied | RefusalCode::NotBelieved => NoAnswerCode::Denied,
        RefusalCode::Malformed | RefusalCode::NotSupported => NoAnswerCode::Malformed,
        RefusalCode::Unavailable => NoAnswerCode::Unavailable,
    };
    NoAnswer::new(code, reason)
}

/// Why the keeper gave none.
fn unsigned(e: ClientError) -> NoAnswer {
    let code = match &e {
        ClientError::Refused(refusal) => match refusal.code {
            KeeperCode::Denied | KeeperCode::NotAllowed => NoAnswerCode::Denied,
            KeeperCode::Malformed => NoAnswerCode::Malformed,
            _ => NoAnswerCode::Unavailable,
        },
        _ => NoAnswerCode::Unavailable,
    };
    NoAnswer::new(code, e.to_string())
}

#[cfg(test)]
mod tests;
