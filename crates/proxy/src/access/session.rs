//! Somebody who signed in by a browser: opened from the cookie and verified here, without asking anybody.
//!
//! What is asked of control now and then is whether the provider still knows the user. That a provider does not answer ends no session
//! before its time; that it says no ends it at once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringfence_event::{Entity, Event, Kind as EventKind};
use ringfence_keys::digest::sha256;
use ringfence_keys::to_hex;
use ringfence_oidc::session::{Cookies, NoSession, Session};
use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Told};
use ringfence_snapshot::{Identity, mapping_of};
use ringfence_token::{TokenError, VerifiedToken};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Evidence, Principal, RouteAccess};
use crate::deny::Deny;
use crate::h1::Kind;
use crate::handle::Ctx;
use crate::shared::Shared;
use crate::signin::{self, Page, Shown};
use crate::table::{Table, TableRef};
use crate::view::HeadView;
use crate::worker::{Worker, unix_now};

/// Sessions that a thread remembers something of.
const REMEMBERED: usize = 16_384;
/// Refreshes that a thread has under way.
const MAX_FLIGHTS: usize = 128;
/// Questions for sign-ins that a thread has under way: whoever asks for them has shown nothing yet, and all else that is asked of control
/// goes the same way.
const MAX_ASKING: usize = 64;
/// How long a request waits for the refresh of its session before it goes on with what it has.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a session is not refreshed again when that failed, in seconds.
const LATER: u64 = 30;
/// How long what a refresh gave serves requests that still carry the cookie of before, in seconds.
const OVERLAP: u64 = 120;

/// A token, by its digest, and the place of the provider in the table whose session it was found to be.
type Believed = ([u8; 32], usize);

/// What a thread knows of sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    identities: RefCell<HashMap<Believed, Arc<Identity>>>,
    flights: RefCell<HashMap<String, Rc<Notify>>>,
    news: RefCell<HashMap<String, News>>,
    /// Questions for sign-ins and the like that are under way.
    asking: Cell<usize>,
}

/// What a refresh gave.
struct News {
    what: What,
    until: u64,
}

enum What {
    /// It goes on as this.
    Fresh { session: ringfence_keys::Secret<String>, refresh_at: u64 },
    /// It goes on as it is; nobody could be asked.
    Later,
    /// The provider says that it is over.
    Ended,
}

/// A session that a request showed.
#[derive(Clone, Debug)]
pub(crate) struct ShownSession {
    pub(crate) token: Arc<VerifiedToken>,
    session: Session,
    /// What names it without being it.
    name: String,
    /// The `Set-Cookie` that lets it go on.
    renewal: Option<String>,
}

impl ShownSession {
    /// What names it in events.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The token that the keeper signed.
    pub(crate) fn text(&self) -> &ringfence_keys::Secret<String> {
        &self.session.token
    }

    /// What the answer sets, so that the session goes on.
    pub(crate) fn renewal(&self) -> Option<&str> {
        self.renewal.as_deref()
    }
}

/// Why a session token lets nobody in.
pub(crate) enum Unbelieved {
    Token(TokenError),
    /// It names nobody, or somebody of another provider.
    Identity(String),
    /// It is not known yet what was revoked.
    Unready,
}

impl Unbelieved {
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Self::Token(TokenError::Revoked(_)) => "session.revoked",
            Self::Token(TokenError::Expired | TokenError::TooOld) => "session.over",
            Self::Token(_) | Self::Identity(_) => "session.token",
            Self::Unready => "revocations.unready",
        }
    }

    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Token(error) => format!("the session's {error}"),
            Self::Identity(reason) => reason.clone(),
            Self::Unready => "it is not known yet what was revoked, and control has not told".into(),
        }
    }

    /// Whether the same token may be believed in a moment: what it is judged by has not arrived.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Unready | Self::Token(TokenError::UnknownKey))
    }
}

/// The values of a request's `Cookie` fields: HTTP/2 may split them.
pub(crate) fn cookies<'v>(view: HeadView<'v>) -> impl Iterator<Item = &'v [u8]> {
    let any = view.known(Kind::Cookie).is_some();
    let fields = any.then(|| view.fields()).into_iter().flatten();
    fields.filter(|(name, _)| name.eq_ignore_ascii_case(b"cookie")).map(|(_, value)| value)
}

/// What names a session in events: enough to find it, nothing to use.
pub(crate) fn name_of(id: &str) -> String {
    to_hex(&sha256(id.as_bytes())[..8])
}

impl Sessions {
    /// Forgets what depends on the table.
    pub(crate) fn follow(&self) {
        self.identities.borrow_mut().clear();
    }

    /// Asks on behalf of somebody who need not be known.
    pub(crate) async fn ask(&self, shared: &Shared, ask: Ask) -> Result<Told, NoAnswer> {
        if self.asking.get() >= MAX_ASKING {
            return Err(NoAnswer::new(NoAnswerCode::Busy, "too many sign-ins are under way"));
        }
        let _one = Asking::new(&self.asking);
        shared.asks.ask(ask).await
    }

    /// It is over here at once, whatever its cookie says; elsewhere as soon as the revocation arrives.
    pub(crate) fn end(&self, id: &str, until: u64) {
        self.learn(id.to_owned(), News { what: What::Ended, until });
    }

    fn learn(&self, id: String, news: News) {
        let (mut all, now) = (self.news.borrow_mut(), unix_now());
        if all.len() >= REMEMBERED {
            all.retain(|_, news| now < news.until);
        }
        // That a session is over is not forgotten for something that only saves a question.
        if all.len() < REMEMBERED || matches!(news.what, What::Ended) {
            all.insert(id, news);
        }
    }

    fn is_ended(&self, id: &str, now: u64) -> bool {
        let news = self.news.borrow();
        news.get(id).is_some_and(|news| matches!(news.what, What::Ended) && now < news.until)
    }

    /// Whether a session token is believed as one of the provider at this place of the table, and whose it is.
    pub(crate) fn believe(
        &self,
        worker: &Worker,
        table: &Table,
        place: usize,
        token: &str,
    ) -> Result<(Arc<VerifiedToken>, Arc<Identity>), Unbelieved> {
        let token =
            worker.tokens.session(token, table).ok_or(Unbelieved::Unready)?.map_err(Unbelieved::Token)?;
        if token.token_id().is_some_and(|id| self.is_ended(id, unix_now())) {
            return Err(Unbelieved::Token(TokenError::Revoked("it was signed out")));
        }
        let mut known = self.identities.borrow_mut();
        if let Some(identity) = known.get(&(*token.digest(), place)) {
            return Ok((token, identity.clone()));
        }
        let wrong = |reason: &str| Unbelieved::Identity(reason.to_owned());
        let provider = table.providers()[place].declared();
        let identity = Identity::of_session(&token).map_err(|e| Unbelieved::Identity(e.to_string()))?;
        if identity.provider != provider.name {
            return Err(wrong("the session is of another provider"));
        }
        // A provider that was declared anew under the same name is another one.
        let origin = |name| token.claims().get("origin")?.get(name)?.as_str();
        let client = provider.client.as_ref().map(|client| client.id.as_str());
        if origin("iss") != Some(&provider.issuer) || origin("client_id").is_some_and(|id| Some(id) != client)
        {
            return Err(wrong("the session is of the provider that had this name before"));
        }
        if token.mapping() != Some(&mapping_of(provider)) {
            return Err(wrong("the session was made by another mapping of the provider's claims (`claims`)"));
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let identity = Arc::new(identity);
        known.insert((*token.digest(), place), identity.clone());
        Ok((token, identity))
    }
}

/// Counts a question while somebody waits for its answer.
struct Asking<'a>(&'a Cell<usize>);

impl<'a> Asking<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A session of the provider at this place of the table that the request shows.
fn open(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &Table,
    place: usize,
) -> Result<Result<Session, NoSession>, Deny> {
    let provider = table.providers()[place].declared();
    let Some(keys) = ctx.worker.shared.cookie_keys() else {
        let reason = "control has not told yet what sessions are sealed with";
        return Err(Deny::new(503, "authenticate", "session.unready", reason));
    };
    let Some(login) = &provider.login else { return Ok(Err(NoSession::Absent)) };
    let now = unix_now();
    let session = Cookies::new(keys).session(cookies(view), &provider.name, now);
    let session = session.map(|session| session.within_idle(login.idle.as_secs()));
    Ok(session.and_then(|session| if session.is_live(now) { Ok(session) } else { Err(NoSession::Over) }))
}

/// The live session of the provider at this place that the request shows, if it shows one; nothing is renewed by that.
pub(crate) fn present(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &Table,
    place: usize,
) -> Option<(Session, Arc<VerifiedToken>, Arc<Identity>)> {
    let session = open(ctx, view, table, place).ok()?.ok()?;
    let sessions = &ctx.worker.sessions;
    let (token, identity) = sessions.believe(ctx.worker, table, place, session.token.expose()).ok()?;
    Some((session, token, identity))
}

/// Lets in whoever signed in at one of the providers that the route accepts, or says where to sign in.
pub(super) async fn authenticate(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &TableRef,
    access: &RouteAccess,
) -> Result<Principal, Deny> {
    let mut rule = "session.none";
    let mut reason = NoSession::Absent.to_string();
    for login in &access.logins {
        if !signin::is_secure(ctx.peer, view) {
            rule = "session.plain";
            reason = "sessions need TLS at the gateway, but for hosts that are this machine itself".into();
            break;
        }
        let session = match open(ctx, view, table, login.place).map_err(|d| d.position(access.position()))? {
            Ok(session) => session,
            Err(NoSession::Absent) => continue,
            Err(no) => {
                rule = match no {
                    NoSession::Over => "session.over",
                    _ => "session.cookie",
                };
                reason = no.to_string();
                continue;
            }
        };
        match admit(ctx, table, login.place, session).await {
            Ok((identity, shown)) => {
                from_here(ctx, view).map_err(|deny| deny.position(access.position()))?;
                let evidence = Evidence::Session(Box::new(shown));
                return Ok(Principal { table: table.clone(), identity, evidence });
            }
            // Signing in again would not help.
            Err(unbelieved @ Unbelieved::Unready) => {
                let deny = Deny::new(503, "authenticate", unbelieved.rule(), unbelieved.reason());
                return Err(deny.position(access.position()));
            }
            Err(unbelieved) => (rule, reason) = (unbelieved.rule(), unbelieved.reason()),
        }
    }
    let deny = Deny::new(401, "authenticate", rule, reason).position(access.position());
    if rule != "session.plain"
        && signin::is_navigation(view)
        && let Some(login) = access.logins.first()
    {
        return Err(deny.shown(Shown::redirect(signin::login_path(&login.name, view, &[]))));
    }
    Err(deny.challenge(access.challenge(&table.snapshot.fence, "")))
}

/// What changes something must come from a page of the same origin: a browser adds the session to what any page has it send.
fn from_here(ctx: &Ctx<'_>, view: HeadView<'_>) -> Result<(), Deny> {
    if matches!(view.method(), "GET" | "HEAD" | "OPTIONS") && view.known(Kind::Upgrade).is_none() {
        return Ok(());
    }
    signin::same_origin(ctx.peer, view)
        .map_err(|why| Deny::new(403, "authenticate", "session.cross_site", why.to_string()))
}

/// Asks for a better sign-in when the one that there is does not do; once.
pub(super) fn step_up(view: HeadView<'_>, shown: &ShownSession, access: &RouteAccess, deny: Deny) -> Deny {
    let wanted = &access.require.acr;
    if !signin::is_navigation(view) {
        return deny;
    }
    if shown.session.asked == *wanted {
        return deny.shown(Shown::page(Page::NotEnough));
    }
    deny.shown(Shown::redirect(signin::login_path(&shown.session.provider, view, wanted)))
}

async fn admit(
    ctx: &Ctx<'_>,
    table: &Table,
    place: usize,
    session: Session,
) -> Result<(Arc<Identity>, ShownSession), Unbelieved> {
    let (worker, sessions) = (ctx.worker, &ctx.worker.sessions);
    let now = unix_now();
    let believe = |session: &Session| sessions.believe(worker, table, place, session.token.expose());
    let (token, identity) = believe(&session)?;
    let id = token.token_id().unwrap_or_default().to_owned();
    let name = name_of(&id);
    let cookies = || worker.shared.cookie_keys().map(Cookies::new);
    let set = |session: &Session| cookies()?.set_session(session, now).ok();
    if session.is_due(now) {
        sessions.refreshed(worker, &session, &id, now).await;
        if sessions.is_ended(&id, unix_now()) {
            let ended = "the provider says that the user is signed in no more";
            return Err(Unbelieved::Token(TokenError::Revoked(ended)));
        }
        let fresh = match sessions.news.borrow().get(&id) {
            Some(News { what: What::Fresh { session: token, refresh_at }, until }) if now < *until => {
                Some(Session { token: token.clone(), refresh_at: *refresh_at, ..session.clone() })
            }
            _ => None,
        };
        if let Some(fresh) = fresh {
            let (token, identity) = believe(&fresh)?;
            let fresh = Session { expires: token.expires_at(), ..fresh }.used(now);
            let renewal = set(&fresh);
            return Ok((identity, ShownSession { token, session: fresh, name, renewal }));
        }
    }
    let renewal = session.renewed(now).and_then(|renewed| set(&renewed));
    Ok((identity, ShownSession { token, session, name, renewal }))
}

impl Sessions {
    /// Waits until the session is refreshed, at most for a while. However many requests wait, the provider is asked once.
    async fn refreshed(self: &Rc<Self>, worker: &Worker, session: &Session, id: &str, now: u64) {
        if self.news.borrow().get(id).is_some_and(|news| now < news.until) {
            return;
        }
        let flight = self.flights.borrow().get(id).cloned();
        let flight = match flight {
            Some(flight) => flight,
            None if self.flights.borrow().len() >= MAX_FLIGHTS => return,
            None => {
                let flight = Rc::<Notify>::default();
                self.flights.borrow_mut().insert(id.to_owned(), flight.clone());
                // Its own task: a client that goes away takes with it neither the answer nor the place of those who wait.
                let (sessions, shared, revision) = (self.clone(), worker.shared.clone(), worker.revision());
                let (session, id) = (session.clone(), id.to_owned());
                tokio::task::spawn_local(
                    async move { sessions.refresh(&shared, &session, id, revision).await },
                );
                flight
            }
        };
        let _ = timeout(PATIENCE, flight.notified()).await;
    }

    async fn refresh(&self, shared: &Shared, session: &Session, id: String, revision: u64) {
        let told = shared.asks.ask(Ask::Refresh { session: session.token.clone() }).await;
        let now = unix_now();
        let (news, trouble) = match told {
            Ok(Told::SignedIn { session, refresh_at }) => {
                // An answer that wants another at once would be asked for with each request.
                let refresh_at = if refresh_at == 0 { 0 } else { refresh_at.max(now + LATER) };
                (News { what: What::Fresh { session, refresh_at }, until: now + OVERLAP }, None)
            }
            Ok(_) => {
                (News { what: What::Later, until: now + LATER }, Some("control gave another answer".into()))
            }
            Err(no) if matches!(no.code, NoAnswerCode::Denied | NoAnswerCode::Malformed) => {
                (News { what: What::Ended, until: session.expires }, Some(format!("ended: {}", no.reason)))
            }
            Err(no) => {
                let trouble = format!("not refreshed, and goes on within its time: {}", no.reason);
                (News { what: What::Later, until: now + LATER }, Some(trouble))
            }
        };
        if let Some(message) = trouble {
            let uid = name_of(&id);
            let entity = Entity {
                entity: "session",
                name: &session.provider,
                uid: Some(&uid),
                activity: if matches!(news.what, What::Ended) { 4 } else { 3 },
                granted: false,
                message: &message,
            };
            shared.events.emit(&Event::new(EventKind::Entity(entity)).revision(revision));
        }
        let flight = self.flights.borrow_mut().remove(&id);
        self.learn(id, news);
        if let Some(flight) = flight {
            flight.notify_waiters();
        }
    }
}
