//! What a request shows.

use super::RouteAccess;
use crate::deny::Deny;
use crate::h1::Kind;
use crate::table::Table;
use crate::view::HeadView;

/// The field that API keys come in.
pub(crate) const API_KEY: &str = "x-api-key";

/// What a request shows, not looked at yet.
pub(super) enum Shown<'v> {
    Token(&'v str),
    Key(&'v str),
}

/// The one credential of a request: a bearer token (RFC 6750, section 2.1), or an API key in the same place, as `ApiKey KEY` or in
/// `X-API-Key`. Two are refused, whatever they are: what one part of a system looks at, another may overlook.
pub(super) fn shown<'v>(view: HeadView<'v>, table: &Table, access: &RouteAccess) -> Result<Shown<'v>, Deny> {
    let refuse = |status, rule, reason: &str, error: &str| {
        Deny::new(status, "authenticate", rule, reason)
            .position(access.position())
            .challenge(access.challenge(&table.snapshot.fence, error))
    };
    let malformed = |reason: &str| refuse(401, "credential.malformed", reason, ", error=\"invalid_request\"");
    let authorization = view.known(Kind::Authorization);
    let field = if access.api_key { view.field(API_KEY) } else { None };
    if let Some(field) = field {
        let same = |name: &[u8]| name.eq_ignore_ascii_case(API_KEY.as_bytes());
        if authorization.is_some() || view.fields().filter(|(name, _)| same(name)).count() > 1 {
            let reason = "more than one credential was shown";
            return Err(refuse(400, "credential.several", reason, ", error=\"invalid_request\""));
        }
        return match std::str::from_utf8(field) {
            Ok(key) => Ok(Shown::Key(key)),
            Err(_) => Err(malformed("`X-API-Key` is no API key")),
        };
    }
    let Some(value) = authorization else {
        let reason = "the route demands a credential, and none was shown";
        return Err(refuse(401, "credential.none", reason, ""));
    };
    let wrong = || malformed("`Authorization` is neither `Bearer TOKEN` nor another that the route accepts");
    let value = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (scheme, credential) = value.split_once(' ').ok_or_else(wrong)?;
    let credential = credential.trim_start_matches(' ');
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    // No token of a provider begins so: in base64url it would be no JSON object.
    let key = scheme.eq_ignore_ascii_case("apikey") || bearer && credential.starts_with("rf_");
    if access.api_key && key {
        Ok(Shown::Key(credential))
    } else if bearer && !access.providers.is_empty() {
        Ok(Shown::Token(credential))
    } else {
        Err(wrong())
    }
}
