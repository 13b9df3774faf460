//! Transaction tokens: for whoever's credential was verified, for the gateway, for two minutes.

use std::time::{SystemTime, UNIX_EPOCH};

use ringfence_keys::{Secret, random};
use ringfence_token::{TokenError, TxnSpec};
use serde_json::{Map, Value};

use crate::credential::{Judge, Verified, denied};
use crate::protocol::{MAX_TXN_LIFE, MintRequest, Refusal, RefusalCode, TxnToken};

/// Most members of `rctx`, and most bytes of it as JSON.
const MAX_REQUEST_MEMBERS: usize = 16;
const MAX_REQUEST: usize = 1024;

/// One transaction token.
pub(crate) fn mint(judge: &Judge<'_>, request: MintRequest) -> Result<TxnToken, Refusal> {
    let now = judge.now;
    check_request(&request.ask.request)?;
    let Verified { mut identity, shown, origin, ends_at } = judge.verify(&request)?;
    if !request.ask.scope.is_empty() {
        let asked: Vec<String> =
            request.ask.scope.split(' ').filter(|scope| !scope.is_empty()).map(ToOwned::to_owned).collect();
        if let Some(more) = asked.iter().find(|scope| !identity.scopes.contains(scope)) {
            let more: String = more.chars().take(64).collect();
            return Err(denied(format_args!("the credential has no scope {more:?}")));
        }
        identity.scopes = asked;
    }
    // A credential may be accepted a little beyond its end, because clocks differ; what is made of it then is over at once.
    let expires_at = ends_at.max(now + 1).min(now + MAX_TXN_LIFE);
    let scope = identity.scopes.join(" ");
    let signers = &judge.state.signers;
    let spec = TxnSpec {
        trust_domain: judge.current.trust_domain(),
        transaction: &transaction(),
        subject: &identity.id,
        scope: &scope,
        workload: &request.ask.workload,
        context: identity.to_context(&shown),
        request: request.ask.request,
        origin: Some(&origin),
        issued_at: now,
        expires_at,
    };
    let token = spec
        .sign(signers.txn.algorithm().into(), &signers.txn_id, |input| {
            signers.txn.sign(input).map_err(TokenError::from)
        })
        .map_err(denied)?;
    Ok(TxnToken { token: Secret::new(token), expires_at })
}

/// Where a request came from: a few short facts.
fn check_request(request: &Map<String, Value>) -> Result<(), Refusal> {
    let plain = |value: &Value| !value.is_object() && !value.is_array();
    let bytes = serde_json::to_vec(request).map_or(usize::MAX, |text| text.len());
    if request.len() <= MAX_REQUEST_MEMBERS && bytes <= MAX_REQUEST && request.values().all(plain) {
        return Ok(());
    }
    let reason = format!(
        "the context of a request has at most {MAX_REQUEST_MEMBERS} texts or numbers, {MAX_REQUEST} bytes in all"
    );
    Err(Refusal::new(RefusalCode::Malformed, reason))
}

/// A name for a transaction: a UUID that grows with time (RFC 9562, section 5.7).
fn transaction() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut bytes = random::<16>();
    bytes[..6].copy_from_slice(&(since.as_millis() as u64).to_be_bytes()[2..]);
    bytes[6] = 0x70 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let hex = ringfence_keys::to_hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_named_apart_and_in_order_of_time() {
        let first = transaction();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = transaction();
        assert!(first < second && first.len() == 36);
        assert_eq!((&first[14..15], &first[8..9]), ("7", "-"));
        assert!(matches!(&first[19..20], "8" | "9" | "a" | "b"));
    }
}
