//! `/.ringfence/` at the gateway: where browsers sign in and out. No path below it ever reaches a service.
//!
//! The gateway only leads the browser and seals cookies: the federation process speaks with the provider, and the keeper signs who
//! somebody is. What comes back from a provider is bound to the browser that was sent there, by a sealed cookie of its own.

mod form;
mod login;
mod logout;
mod page;
mod place;

use std::borrow::Cow;

use ringfence_event::{Call, Event, EventId, Kind as EventKind, User};
use ringfence_snapshot::Identity;
use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Told as Answer};

pub(crate) use self::page::Page;
pub(crate) use self::place::{is_navigation, is_secure, login_path, same_origin};
use crate::access::name_of;
use crate::deny::{Deny, PROBLEM_TYPE, problem};
use crate::front::Front;
use crate::handle::{Ctx, Next, finish};
use crate::headers::trace_of;
use crate::limits::{self, Limited};
use crate::note::Notes;
use crate::peer::in_force;
use crate::responses::Preflight;
use crate::table::TableRef;
use crate::upload::Gone;
use crate::view::HeadView;

/// What everything here lies below.
const ROOT: &str = "/.ringfence";

/// Whether a path is not for services.
pub(crate) fn is_ours(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a browser is shown instead of a problem document.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Redirect(Box<str>),
    Page(Page),
    Preflight(Preflight),
}

impl Shown {
    pub(crate) fn redirect(to: String) -> Self {
        Self::Redirect(to.into())
    }

    pub(crate) const fn page(page: Page) -> Self {
        Self::Page(page)
    }

    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::Redirect(_) => 303,
            Self::Page(page) => page.status(),
            Self::Preflight(_) => 204,
        }
    }

    /// Puts it as the answer.
    pub(crate) fn put(&self, front: &mut Front<'_>, id: EventId) -> Result<(), crate::body::Broken> {
        if let Self::Preflight(Preflight(fields)) = self {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            return front.put_own(204, &fields, String::new());
        }
        Reply::shown(self, None, id).put(front)
    }
}

/// An answer.
struct Reply {
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: String,
    told: Told,
}

/// What the operator is told.
#[derive(Default)]
struct Told {
    /// Whom it was about, with what names the session.
    user: Option<(Identity, String)>,
    deny: Option<Deny>,
}

impl Reply {
    fn shown(shown: &Shown, provider: Option<&str>, id: EventId) -> Self {
        let mut fields =
            vec![("cache-control", "no-store".to_owned()), ("x-content-type-options", "nosniff".to_owned())];
        let body = match shown {
            Shown::Redirect(to) => {
                fields.push(("location", to.clone().into()));
                fields.push(("referrer-policy", "no-referrer".to_owned()));
                String::new()
            }
            Shown::Preflight(_) => String::new(),
            Shown::Page(page) => {
                fields.push(("content-type", "text/html; charset=utf-8".to_owned()));
                fields.push(("content-security-policy", page.policy()));
                // The page that signs out must be able to say where its form comes from.
                fields.push(("referrer-policy", "same-origin".to_owned()));
                fields.push(("x-frame-options", "DENY".to_owned()));
                fields.push(("cross-origin-opener-policy", "same-origin".to_owned()));
                page.html(provider, id)
            }
        };
        Self { status: shown.status(), fields, body, told: Told::default() }
    }

    fn redirect(to: String) -> Self {
        Self::shown(&Shown::redirect(to), None, EventId::new())
    }

    /// A problem document, for what is no page.
    fn problem(deny: Deny, id: EventId) -> Self {
        let fields =
            vec![("cache-control", "no-store".to_owned()), ("content-type", PROBLEM_TYPE.to_owned())];
        let more = deny.told.iter().flat_map(|told| &told.fields).cloned();
        let fields = fields.into_iter().chain(more).collect();
        let body = problem(deny.status, id);
        Self { status: deny.status, fields, body, told: Told { user: None, deny: Some(deny) } }
    }

    fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn cookie(self, set: impl Into<String>) -> Self {
        self.field("set-cookie", set)
    }

    fn put(&self, front: &mut Front<'_>) -> Result<(), crate::body::Broken> {
        let fields: Vec<_> = self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        front.put_own(self.status, &fields, self.body.clone())
    }
}

/// A request to one of the places here.
struct At<'a> {
    ctx: &'a Ctx<'a>,
    view: HeadView<'a>,
    table: TableRef,
    id: EventId,
}

impl At<'_> {
    /// A page that says what went wrong, and the rule and reason for the operator.
    fn fail(
        &self,
        page: Page,
        provider: Option<&str>,
        rule: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Reply {
        let deny = Deny::new(page.status(), "signin", rule, reason);
        let deny = deny.position(provider.and_then(|name| self.provider(name)).map(|at| self.position(at)));
        Reply {
            told: Told { user: None, deny: Some(deny) },
            ..Reply::shown(&Shown::page(page), provider, self.id)
        }
    }

    /// The same for what nobody answered.
    fn unanswered(&self, provider: &str, no: &NoAnswer) -> Reply {
        let (page, rule) = match no.code {
            NoAnswerCode::Denied => (Page::Refused, "signin.denied"),
            NoAnswerCode::Malformed => (Page::Malformed, "signin.malformed"),
            NoAnswerCode::Busy => (Page::Unavailable, "signin.busy"),
            NoAnswerCode::Unavailable => (Page::Unavailable, "signin.unavailable"),
        };
        self.fail(page, Some(provider), rule, no.reason.clone())
    }

    /// The same for what was answered with something else.
    fn strange(&self, provider: &str) -> Reply {
        self.fail(Page::Unavailable, Some(provider), "signin.unavailable", "control gave another answer")
    }

    /// What control says.
    async fn ask(&self, ask: Ask) -> Result<Answer, NoAnswer> {
        let worker = self.ctx.worker;
        worker.sessions.ask(&worker.shared, ask).await
    }

    /// The place in the table of a provider where people sign in.
    fn provider(&self, name: &str) -> Option<usize> {
        let known = |p: &crate::access::TableProvider| &*p.name == name && p.declared().login.is_some();
        self.table.providers().iter().position(known)
    }

    fn position(&self, provider: usize) -> String {
        self.table.providers()[provider].declared().position.to_string()
    }

    fn authority(&self) -> String {
        place::authority(self.ctx.peer, self.view)
    }

    /// An address of ours, as browsers and providers see it.
    fn address(&self, path: &str) -> String {
        format!("{}{ROOT}/{path}", place::origin(self.ctx.peer, self.view))
    }
}

/// Answers a request to one of the places here.
pub(crate) async fn serve(ctx: &Ctx<'_>, view: HeadView<'_>, front: &mut Front<'_>) -> Next<'static> {
    let started = ctx.worker.touch();
    ctx.live.set_busy(true);
    let (mut limited, notes) = (Limited::default(), Notes::default());
    let answered = match limits::gateway(ctx, &mut limited, &notes) {
        Ok(()) => answer(ctx, view, front).await,
        Err(deny) => {
            let id = EventId::new();
            Ok((id, Reply::problem(deny, id)))
        }
    };
    let next = match answered {
        Ok((id, reply)) => {
            let next = finish(ctx, front, |front| reply.put(front)).await;
            tell(ctx, view, &reply, ctx.worker.touch().saturating_sub(started), id);
            next
        }
        Err(Gone) => Next::Close,
    };
    ctx.live.set_busy(false);
    next
}

async fn answer(ctx: &Ctx<'_>, view: HeadView<'_>, front: &mut Front<'_>) -> Result<(EventId, Reply), Gone> {
    let id = EventId::new();
    let table = match in_force(ctx.worker) {
        Ok(table) => table,
        Err(deny) => return Ok((id, Reply::problem(deny, id))),
    };
    let at = At { ctx, view, table, id };
    let method = view.method();
    let path = view.path().strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    let (place, provider) = path.split_once('/').map_or((path, None), |(place, name)| (place, Some(name)));
    let known = provider.map(|name| at.provider(name));
    let served =
        at.table.serves(view.host()) && at.table.providers().iter().any(|p| p.declared().login.is_some());
    let methods = match (place, known) {
        ("login" | "callback", Some(Some(_))) => "GET",
        ("logout", None) => "GET, POST",
        ("logged-out", None) => "GET",
        ("backchannel", Some(Some(_))) => "POST",
        _ => "",
    };
    if methods.is_empty() || !served {
        let reason = format!("there is nothing at {ROOT}/{path} of this host");
        return Ok((id, at.fail(Page::Nothing, None, "signin.path", reason)));
    }
    if !methods.split(", ").any(|known| known == method) {
        let deny = Deny::new(405, "signin", "signin.method", format!("{ROOT}/{path} takes {methods}"));
        return Ok((id, Reply::problem(deny, id).field("allow", methods)));
    }
    if matches!(place, "login" | "callback" | "backchannel")
        && let Err(deny) = limits::sign_in(ctx, &at.table.limit, place == "backchannel")
    {
        return Ok((id, Reply::problem(deny, id)));
    }
    if place == "backchannel" {
        return Ok((id, logout::backchannel(&at, front, provider.unwrap_or_default()).await?));
    }
    if !is_secure(ctx.peer, view) {
        let reason = "sign-ins need TLS at the gateway, but for hosts that are this machine itself";
        return Ok((id, at.fail(Page::Insecure, provider, "session.plain", reason)));
    }
    let reply = match (place, provider, known.flatten()) {
        ("login", Some(name), Some(place)) => login::begin(&at, name, place).await,
        ("callback", Some(name), Some(place)) => login::callback(&at, name, place).await,
        ("logout", ..) if method == "GET" => Reply::shown(&Shown::page(Page::SignOut), None, id),
        ("logout", ..) => logout::sign_out(&at).await,
        _ => Reply::shown(&Shown::page(Page::SignedOut), None, id),
    };
    Ok((id, reply))
}

fn tell(ctx: &Ctx<'_>, view: HeadView<'_>, reply: &Reply, duration_us: u64, id: EventId) {
    let peer = ctx.peer;
    let user = reply.told.user.as_ref().map(|(who, session)| (who, name_of(session)));
    let call = Call {
        caller: &peer.caller,
        caller_id: None,
        user: user.as_ref().map(|(who, session)| User {
            name: &who.id,
            domain: &who.provider,
            credential: Some(session),
            ..User::default()
        }),
        source: Some(peer.source.ip()),
        callee: "-",
        point: peer.point(),
        method: view.method().as_bytes(),
        path: view.path().as_bytes(),
        status: reply.status,
        duration_us,
        cut: false,
        observed: None,
        findings: &[],
        shape: "",
        verdict: reply.told.deny.as_ref().map_or(ringfence_event::Verdict::Allowed, Deny::verdict),
    };
    let event = Event::new(EventKind::Call(call)).in_trace(trace_of(view)).revision(ctx.worker.revision());
    ctx.worker.events.emit(&event.with_id(id));
    if let Some(deny) = &reply.told.deny {
        crate::handle::count_refusal(ctx.worker, peer, &"-".into(), deny, duration_us);
    }
}
