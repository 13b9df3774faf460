//! Signing in: to the provider, and back.

use ringfence_keys::Secret;
use ringfence_oidc::session::{Cookies, Login, Session};
use ringfence_snapshot::node::{Ask, Told as Answer};

use super::form::Form;
use super::place::return_path;
use super::{At, Page, Reply, Told};
use crate::access::{cookies, present};
use crate::worker::unix_now;

/// How long a sign-in may take, in seconds.
const LIFE: u64 = 600;
/// Longest code that a provider may give.
const MAX_CODE: usize = 4096;
/// Longest state; ours are shorter.
const MAX_STATE: usize = 128;
/// Most authentication contexts that are asked for, and the longest of them.
const MAX_ACR: (usize, usize) = (8, 256);

const UNREADY: &str = "control has not told yet what cookies are sealed with";

/// Sends the browser to the provider.
pub(super) async fn begin(at: &At<'_>, name: &str, place: usize) -> Reply {
    let Ok(form) = Form::parse(at.view.query().unwrap_or_default().as_bytes()) else {
        return at.fail(Page::Malformed, Some(name), "signin.malformed", "the query is malformed");
    };
    // A place that cannot be trusted is no reason to sign nobody in.
    let return_path = return_path(form.one("to").ok().flatten().unwrap_or("/"));
    let acr_values: Vec<String> = form.all("acr").map(ToOwned::to_owned).collect();
    if acr_values.len() > MAX_ACR.0 || acr_values.iter().any(|acr| !is_word(acr)) {
        return at.fail(Page::Malformed, Some(name), "signin.malformed", "the query asks for too much");
    }
    if acr_values.is_empty() && present(at.ctx, at.view, &at.table, place).is_some() {
        return Reply::redirect(return_path.as_str().to_owned());
    }
    let shared = &at.ctx.worker.shared;
    let Some(keys) = shared.cookie_keys() else {
        return at.fail(Page::Unavailable, Some(name), "session.unready", UNREADY);
    };
    let ask = Ask::Begin {
        provider: name.to_owned(),
        redirect_uri: at.address(&format!("callback/{name}")),
        prompt: None,
        acr_values: acr_values.clone(),
        max_age: None,
    };
    let (url, state, nonce, verifier) = match at.ask(ask).await {
        Ok(Answer::Begun { url, state, nonce, verifier }) => (url, state, nonce, verifier),
        Ok(_) => return at.strange(name),
        Err(no) => return at.unanswered(name, &no),
    };
    let now = unix_now();
    let login = Login {
        provider: name.to_owned(),
        authority: at.authority(),
        state,
        nonce,
        verifier: verifier.expose().clone(),
        return_path,
        max_age: None,
        acr_values,
        expires: now + LIFE,
    };
    match Cookies::new(keys).set_login(&login, now) {
        Ok(set) => {
            let room = Cookies::clear_logins(cookies(at.view));
            room.into_iter().fold(Reply::redirect(url), Reply::cookie).cookie(set)
        }
        Err(e) => at.fail(Page::Unavailable, Some(name), "signin.too-large", e.to_string()),
    }
}

fn is_word(text: &str) -> bool {
    (1..=MAX_ACR.1).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Takes the browser back from the provider.
pub(super) async fn callback(at: &At<'_>, name: &str, place: usize) -> Reply {
    let query = Form::parse(at.view.query().unwrap_or_default().as_bytes());
    let read = query.as_ref().ok().and_then(|form| {
        let one = |name| form.one(name).ok();
        Some((one("state")??, one("code")?, one("error")?, one("iss")?))
    });
    let Some((state, code, error, iss)) = read.filter(|(state, ..)| state.len() <= MAX_STATE) else {
        let reason = "the callback's query is malformed, or lacks `state`";
        return at.fail(Page::Malformed, Some(name), "signin.malformed", reason);
    };
    let Some(jar) = at.ctx.worker.shared.cookie_keys().map(Cookies::new) else {
        return at.fail(Page::Unavailable, Some(name), "session.unready", UNREADY);
    };
    let login = jar.login(cookies(at.view), state, unix_now());
    let here = login.filter(|login| login.provider == name && login.authority == at.authority());
    let Some(login) = here else {
        let reason = "this browser did not begin the sign-in that came back, or too long ago";
        return at.fail(Page::NotBegun, Some(name), "signin.state", reason);
    };
    // Whatever comes of it: each is used once.
    let clear = Cookies::clear_login(&login.state);
    complete(at, (name, place), &jar, login, (code, error, iss)).await.cookie(clear)
}

async fn complete(
    at: &At<'_>,
    (name, place): (&str, usize),
    jar: &Cookies,
    login: Login,
    (code, error, iss): (Option<&str>, Option<&str>, Option<&str>),
) -> Reply {
    if let Some(error) = error {
        // RFC 6749, section 4.1.2.1: a word. It is for the operator, the page does not repeat it.
        let word: String = error.chars().filter(char::is_ascii_graphic).take(64).collect();
        return at.fail(Page::Refused, Some(name), "signin.refused", format!("the provider says {word}"));
    }
    let Some(code) = code.filter(|code| (1..=MAX_CODE).contains(&code.len())) else {
        return at.fail(Page::Malformed, Some(name), "signin.malformed", "the callback has no code");
    };
    let asked = login.acr_values.clone();
    let ask = Ask::Complete {
        provider: name.to_owned(),
        code: Secret::new(code.to_owned()),
        iss: iss.map(ToOwned::to_owned),
        verifier: Secret::new(login.verifier),
        nonce: login.nonce,
        redirect_uri: at.address(&format!("callback/{name}")),
        acr_values: login.acr_values,
        max_age: login.max_age,
    };
    let worker = at.ctx.worker;
    let (token, refresh_at) = match at.ask(ask).await {
        Ok(Answer::SignedIn { session, refresh_at }) => (session, refresh_at),
        Ok(_) => return at.strange(name),
        Err(no) => return at.unanswered(name, &no),
    };
    // By the same rules as each request, before the browser is sent back: what is refused there would be led here again.
    let (verified, identity) = match worker.sessions.believe(worker, &at.table, place, token.expose()) {
        Ok(believed) => believed,
        Err(unbelieved) => {
            let page = if unbelieved.may_pass() { Page::Unavailable } else { Page::Refused };
            return at.fail(page, Some(name), unbelieved.rule(), unbelieved.reason());
        }
    };
    let now = unix_now();
    let idle = at.table.providers()[place].declared().login.as_ref().map_or(0, |login| login.idle.as_secs());
    let session = Session {
        provider: name.to_owned(),
        token,
        asked,
        expires: verified.expires_at(),
        idle_ends: now,
        idle,
        refresh_at,
    };
    match jar.set_session(&session.used(now), now) {
        Ok(set) => {
            let user = Some(((*identity).clone(), verified.token_id().unwrap_or_default().to_owned()));
            let reply = Reply::redirect(login.return_path.as_str().to_owned()).cookie(set);
            Reply { told: Told { user, deny: None }, ..reply }
        }
        Err(e) => at.fail(Page::Refused, Some(name), "signin.too-large", e.to_string()),
    }
}
