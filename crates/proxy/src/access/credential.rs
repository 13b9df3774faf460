//! What a request shows.

use super::RouteAccess;
use super::certificate::ClientCertificate;
use crate::deny::Deny;
use crate::h1::Kind;
use crate::table::Table;
use crate::view::HeadView;

/// The field that API keys come in.
pub(crate) const API_KEY: &str = "x-api-key";

/// How a token is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RFC 6750, section 2.1.
    Bearer,
    /// RFC 9449, section 7.1.
    Dpop,
}

/// What a request shows, not looked at yet.
pub(super) enum Shown<'v> {
    /// A token; by the scheme `DPoP` with its proof.
    Token(&'v str, Option<&'v str>),
    Key(&'v str),
    Certificate(&'v ClientCertificate),
}

/// The one credential of a request: a token, an API key in the same place, as `ApiKey KEY` or in `X-API-Key`, or else the certificate
/// of its connection. Two in its head are refused, whatever they are: what one part of a system looks at, another may overlook.
pub(super) fn shown<'v>(
    view: HeadView<'v>,
    table: &Table,
    access: &RouteAccess,
    certificate: Option<&'v ClientCertificate>,
) -> Result<Shown<'v>, Deny> {
    let fence = &table.snapshot.fence;
    let refuse = |rule, reason: &str, error: &str| access.refuse(fence, rule, reason, error);
    let malformed = |reason: &str| refuse("credential.malformed", reason, ", error=\"invalid_request\"");
    // On a route for certificates alone this field is the service's own business.
    let authorization = view.known(Kind::Authorization).filter(|_| !access.is_for_certificates_alone());
    let field = if access.api_key { view.field(API_KEY) } else { None };
    if let Some(field) = field {
        let same = |name: &[u8]| name.eq_ignore_ascii_case(API_KEY.as_bytes());
        if authorization.is_some() || view.fields().filter(|(name, _)| same(name)).count() > 1 {
            let reason = "more than one credential was shown";
            let deny = refuse("credential.several", reason, ", error=\"invalid_request\"");
            return Err(Deny { status: 400, ..deny });
        }
        return match std::str::from_utf8(field) {
            Ok(key) => Ok(Shown::Key(key)),
            Err(_) => Err(malformed("`X-API-Key` is no API key")),
        };
    }
    let Some(value) = authorization else {
        return match certificate {
            Some(certificate) if !access.authorities.is_empty() => Ok(Shown::Certificate(certificate)),
            _ => Err(refuse("credential.none", "the route demands a credential, and none was shown", "")),
        };
    };
    let wrong = || {
        malformed(
            "`Authorization` is neither `Bearer TOKEN`, `DPoP TOKEN` nor another that the route accepts",
        )
    };
    let value = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (scheme, credential) = value.split_once(' ').ok_or_else(wrong)?;
    let credential = credential.trim_start_matches(' ');
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    // No token of a provider begins so: in base64url it would be no JSON object.
    let key = scheme.eq_ignore_ascii_case("apikey") || bearer && credential.starts_with("rf_");
    if access.api_key && key {
        Ok(Shown::Key(credential))
    } else if bearer && !access.providers.is_empty() {
        Ok(Shown::Token(credential, None))
    } else if scheme.eq_ignore_ascii_case("dpop") && !access.providers.is_empty() {
        let proof = view.known(Kind::Dpop).and_then(|proof| std::str::from_utf8(proof).ok());
        let missing = || {
            let reason = "the scheme is `DPoP`, and there is no proof in the field `DPoP`";
            let error = ", error=\"invalid_dpop_proof\"";
            access.refuse_token(fence, "proof.missing", reason, error, Scheme::Dpop)
        };
        Ok(Shown::Token(credential, Some(proof.ok_or_else(missing)?)))
    } else {
        Err(wrong())
    }
}
