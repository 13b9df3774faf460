//! Signing out: by the user, and by the provider's word (OpenID Connect RP-Initiated Logout 1.0, Back-Channel Logout 1.0).

use ringfence_keys::Secret;
use ringfence_oidc::session::Cookies;
use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Told as Answer};
use ringfence_token::MAX_TOKEN;

use super::form::Form;
use super::{At, Page, Reply, Shown, Told, same_origin};
use crate::access::present;
use crate::deny::Deny;
use crate::front::Front;
use crate::h1::Kind;
use crate::upload::{self, Gone};

/// Largest form with a logout token.
const MAX_FORM: usize = 2 * MAX_TOKEN;

/// Ends the sessions that the browser has here. If there are several, the provider of the first is where it is sent.
pub(super) async fn sign_out(at: &At<'_>) -> Reply {
    if let Err(why) = same_origin(at.ctx.peer, at.view) {
        return at.fail(Page::CrossSite, None, "session.cross_site", why);
    }
    let worker = at.ctx.worker;
    let (mut cleared, mut onward, mut user, mut trouble) = (Vec::new(), None, None, None);
    for (place, provider) in at.table.providers().iter().enumerate() {
        if provider.declared().login.is_none() {
            continue;
        }
        cleared.push(Cookies::clear_session(&provider.name));
        let Some((session, token, identity)) = present(at.ctx, at.view, &at.table, place) else { continue };
        let id = token.token_id().unwrap_or_default().to_owned();
        worker.sessions.end(&id, session.expires);
        let ask = Ask::SignOut { session: session.token, back: at.address("logged-out") };
        match at.ask(ask).await {
            Ok(Answer::SignedOut { url }) => onward = onward.or(url),
            Ok(_) => trouble = Some("control gave another answer".to_owned()),
            Err(no) => trouble = Some(no.reason),
        }
        user = user.or_else(|| Some(((*identity).clone(), id)));
    }
    let reply = match (&trouble, onward) {
        (_, Some(url)) => Reply::redirect(url),
        (None, None) => Reply::redirect(at.address("logged-out")),
        (Some(_), None) => Reply::shown(&Shown::page(Page::SignedOutHere), None, at.id),
    };
    let deny = trouble.map(|reason| {
        Deny::failure(reply.status, "signin.signout", format!("signed out of this browser only: {reason}"))
    });
    // What services keep in the browser by their scripts is theirs; pages that it holds were for whoever was signed in.
    let reply = Reply { told: Told { user, deny }, ..reply }.field("clear-site-data", "\"cache\"");
    cleared.into_iter().fold(reply, Reply::cookie)
}

/// Takes a provider's word that a session is over.
pub(super) async fn backchannel(at: &At<'_>, front: &mut Front<'_>, name: &str) -> Result<Reply, Gone> {
    let refuse = |status, reason: String| {
        Deny::new(status, "signin", "signin.backchannel", format!("{name}: {reason}"))
    };
    let media_type = at.view.known(Kind::ContentType).unwrap_or_default();
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !media_type.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        return Ok(Reply::problem(refuse(400, "the logout token comes in a form".into()), at.id));
    }
    let body = match upload::read(at.ctx, at.view, front, MAX_FORM, refuse).await? {
        Ok(body) => body,
        Err(deny) => return Ok(Reply::problem(deny, at.id)),
    };
    let form = Form::parse(&body).ok();
    let token = form.as_ref().and_then(|form| form.one("logout_token").ok()?);
    let Some(token) = token.filter(|token| (1..=MAX_TOKEN).contains(&token.len())) else {
        return Ok(Reply::problem(refuse(400, "the form has not one `logout_token`".into()), at.id));
    };
    let ask = Ask::LoggedOut { provider: name.to_owned(), token: Secret::new(token.to_owned()) };
    let deny = match at.ask(ask).await {
        Ok(Answer::LoggedOut) => {
            let fields = vec![("cache-control", "no-store".to_owned())];
            return Ok(Reply { status: 200, fields, body: String::new(), told: Told::default() });
        }
        Ok(_) => refuse(503, "control gave another answer".into()),
        Err(NoAnswer { code: NoAnswerCode::Denied | NoAnswerCode::Malformed, reason }) => refuse(400, reason),
        Err(NoAnswer { reason, .. }) => refuse(503, reason),
    };
    let body = r#"{"error":"invalid_request"}"#.to_owned();
    let reply = Reply::problem(deny, at.id);
    if reply.status != 400 {
        return Ok(reply);
    }
    let fields =
        vec![("cache-control", "no-store".to_owned()), ("content-type", "application/json".to_owned())];
    Ok(Reply { fields, body, ..reply })
}
