//! What an opaque token is (RFC 7662): the provider's answer, plain or signed (RFC 9701), and how long it is kept.

use std::collections::HashMap;

use ringfence_token::{Algorithms, KeySet, MAX_SKEW, SKEW, verify_payload};
use serde_json::{Map, Value};

use crate::answer::Object;
use crate::protocol::Introspected;

/// Media type of a signed answer.
pub(crate) const SIGNED: &str = "application/token-introspection+jwt";
/// How long an answer is kept, in seconds: how late a revocation at the provider may be noticed.
pub const KEEP: u64 = 15;
/// How long it is kept that a token is nothing.
const KEEP_NOTHING: u64 = 5;
/// Most answers that are kept.
const MAX_KEPT: usize = 10_000;
/// Most members of an answer.
const MAX_MEMBERS: usize = 128;

/// Why an answer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntrospectionError {
    /// It is for somebody else.
    #[error("the token is for another audience: the provider must name one of `audiences` in `aud`")]
    Audience,
    /// Another provider made it.
    #[error("the provider says that another issuer made the token")]
    Issuer,
    /// It is no access token.
    #[error("the provider says that it is another kind of token than one that gives access")]
    Kind,
    /// Not JSON of the right shape.
    #[error("the provider's answer on a token is malformed")]
    Malformed,
    /// Not signed as it should be, or for somebody else.
    #[error("the provider's signed answer on a token is not believed: {0}")]
    Signature(String),
}

/// Reads an answer of the provider with this issuer. A token counts as active only if it names one of `audiences`.
///
/// # Errors
/// [`IntrospectionError`].
pub fn read_introspection(
    body: &[u8],
    issuer: &str,
    audiences: &[String],
    now: u64,
) -> Result<Introspected, IntrospectionError> {
    let Object(claims) = serde_json::from_slice(body).map_err(|_| IntrospectionError::Malformed)?;
    let nothing = Introspected { active: false, claims: Map::new(), until: now.saturating_add(KEEP_NOTHING) };
    match claims.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Ok(nothing),
        _ => return Err(IntrospectionError::Malformed),
    }
    if claims.len() > MAX_MEMBERS {
        return Err(IntrospectionError::Malformed);
    }
    let time = |name| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(IntrospectionError::Malformed),
    };
    let ends = time("exp")?.unwrap_or(u64::MAX);
    if ends <= now || time("nbf")?.is_some_and(|start| start > now.saturating_add(SKEW)) {
        return Ok(nothing);
    }
    if claims.get("iss").is_some_and(|iss| iss.as_str() != Some(issuer)) {
        return Err(IntrospectionError::Issuer);
    }
    let ours = |audience: &Value| audience.as_str().is_some_and(|a| audiences.iter().any(|ours| ours == a));
    let for_us = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().any(ours),
        Some(one) => ours(one),
        None => false,
    };
    if !for_us {
        return Err(IntrospectionError::Audience);
    }
    check_kind(&claims)?;
    for name in ["sub", "client_id", "username", "scope", "acr", "sid"] {
        if claims.get(name).is_some_and(|value| !value.is_string()) {
            return Err(IntrospectionError::Malformed);
        }
    }
    Ok(Introspected { active: true, claims, until: ends.min(now.saturating_add(KEEP)) })
}

/// A provider answers for refresh tokens too, and says what a token is bound to. One that is bound (`cnf`, RFC 8705 and RFC 9449) is for
/// whoever asked to hold to it; one that says that it is without saying to what is held to nothing, so it is none.
fn check_kind(claims: &Map<String, Value>) -> Result<(), IntrospectionError> {
    let bound = match claims.get("cnf") {
        None | Some(Value::Null) => None,
        Some(Value::Object(cnf)) if !cnf.is_empty() => Some(cnf),
        Some(_) => return Err(IntrospectionError::Malformed),
    };
    let word = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.to_ascii_lowercase())),
        Some(_) => Err(IntrospectionError::Malformed),
    };
    match word("token_type")?.as_deref() {
        None | Some("bearer" | "access_token") => {}
        Some("dpop") if bound.is_some_and(|cnf| cnf.get("jkt").is_some_and(Value::is_string)) => {}
        Some(_) => return Err(IntrospectionError::Kind),
    }
    // What widespread providers say besides.
    for name in ["typ", "token_use"] {
        if word(name)?.is_some_and(|text| text.contains("refresh") || text == "id" || text == "offline") {
            return Err(IntrospectionError::Kind);
        }
    }
    Ok(())
}

/// Whose signed answer is believed.
pub(crate) struct Signed<'a> {
    pub(crate) keys: &'a KeySet,
    pub(crate) algorithms: Algorithms,
    pub(crate) issuer: &'a str,
    pub(crate) client: &'a str,
}

impl Signed<'_> {
    /// What a signed answer says, as a plain one would. An answer on another token or to another client cannot be put in its place:
    /// the connection is this client's own, and the answer names it.
    pub(crate) fn open(&self, body: &[u8], now: u64) -> Result<Vec<u8>, IntrospectionError> {
        let refused = |why: &str| IntrospectionError::Signature(why.to_owned());
        let token = std::str::from_utf8(body).map_err(|_| IntrospectionError::Malformed)?;
        let (header, payload) = verify_payload(token.trim_ascii(), self.keys)
            .map_err(|e| IntrospectionError::Signature(e.to_string()))?;
        if !self.algorithms.contains(header.algorithm) {
            return Err(refused("its algorithm is not accepted"));
        }
        let typ = header.token_type.unwrap_or_default().to_ascii_lowercase();
        if typ.strip_prefix("application/").unwrap_or(&typ) != "token-introspection+jwt" {
            return Err(refused("it is a token of another kind"));
        }
        let Object(mut claims) =
            serde_json::from_slice(&payload).map_err(|_| IntrospectionError::Malformed)?;
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer) {
            return Err(IntrospectionError::Issuer);
        }
        let for_us = match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(|aud| aud.as_str() == Some(self.client)),
            aud => aud.and_then(Value::as_str) == Some(self.client),
        };
        if !for_us {
            return Err(refused("it is for another client"));
        }
        let made = claims.get("iat").and_then(Value::as_u64).ok_or(IntrospectionError::Malformed)?;
        if made.abs_diff(now) > MAX_SKEW {
            return Err(refused("it was not made now: compare the clocks"));
        }
        match claims.remove("token_introspection") {
            Some(answer @ Value::Object(_)) => Ok(answer.to_string().into_bytes()),
            _ => Err(IntrospectionError::Malformed),
        }
    }
}

/// Answers by the digest of their token.
#[derive(Default)]
pub(crate) struct Cache(HashMap<[u8; 32], Result<Introspected, (IntrospectionError, u64)>>);

impl Cache {
    pub(crate) fn find(
        &self,
        digest: &[u8; 32],
        now: u64,
    ) -> Option<Result<Introspected, IntrospectionError>> {
        let kept = self.0.get(digest)?;
        (now < ends(kept)).then(|| kept.clone().map_err(|(error, _)| error))
    }

    pub(crate) fn keep(
        &mut self,
        digest: [u8; 32],
        answer: Result<Introspected, IntrospectionError>,
        now: u64,
    ) {
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|_, kept| now < ends(kept));
        }
        // Whoever sends that many tokens within seconds is asked for again sooner.
        if self.0.len() >= MAX_KEPT
            && let Some(any) = self.0.keys().next().copied()
        {
            self.0.remove(&any);
        }
        self.0.insert(digest, answer.map_err(|error| (error, now.saturating_add(KEEP_NOTHING))));
    }
}

fn ends(kept: &Result<Introspected, (IntrospectionError, u64)>) -> u64 {
    match kept {
        Ok(answer) => answer.until,
        Err((_, until)) => *until,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const ISSUER: &str = "https://id.clinic.example";

    fn read(answer: &Value) -> Result<Introspected, IntrospectionError> {
        read_introspection(answer.to_string().as_bytes(), ISSUER, &["clinic".to_owned()], NOW)
    }

    #[test]
    fn a_token_is_active_only_for_us_and_now() {
        let good =
            json!({ "active": true, "aud": ["x", "clinic"], "sub": "nora", "exp": NOW + 7, "iss": ISSUER });
        let answer = read(&good).unwrap();
        assert_eq!((answer.active, answer.until, &answer.claims["sub"]), (true, NOW + 7, &"nora".into()));
        let long = json!({ "active": true, "aud": "clinic", "exp": NOW + 9999 });
        assert_eq!(read(&long).unwrap().until, NOW + KEEP);
        for inactive in [
            json!({ "active": false, "aud": "clinic", "sub": "nora" }),
            json!({ "active": true, "aud": "clinic", "exp": NOW }),
            json!({ "active": true, "aud": "clinic", "nbf": NOW + 100 }),
        ] {
            let answer = read(&inactive).unwrap();
            assert!(!answer.active && answer.claims.is_empty(), "{inactive}");
        }
    }

    #[test]
    fn what_is_not_for_us_or_malformed_is_an_error() {
        use IntrospectionError as E;
        for (answer, error) in [
            (json!({ "active": true }), E::Audience),
            (json!({ "active": true, "aud": "clinic2" }), E::Audience),
            (json!({ "active": true, "aud": ["Clinic"] }), E::Audience),
            (json!({ "active": true, "aud": "clinic", "iss": "https://evil.example" }), E::Issuer),
            (json!({ "active": "true", "aud": "clinic" }), E::Malformed),
            (json!({ "active": 1, "aud": "clinic" }), E::Malformed),
            (json!({ "aud": "clinic" }), E::Malformed),
            (json!({ "active": true, "aud": "clinic", "exp": "soon" }), E::Malformed),
            (json!({ "active": true, "aud": "clinic", "exp": -1 }), E::Malformed),
            (json!({ "active": true, "aud": "clinic", "sub": ["a"] }), E::Malformed),
            (json!([true]), E::Malformed),
        ] {
            assert_eq!(read(&answer), Err(error), "{answer}");
        }
        let twice = br#"{"active":false,"active":true,"aud":"clinic"}"#;
        assert_eq!(read_introspection(twice, ISSUER, &["clinic".into()], NOW), Err(E::Malformed));
    }

    #[test]
    fn a_token_of_another_kind_gives_no_access_and_a_bound_one_says_to_what() {
        let with = |name: &str, value: Value| {
            let mut answer = json!({ "active": true, "aud": "clinic", "sub": "nora" });
            answer[name] = value;
            answer
        };
        let jkt = json!({ "jkt": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" });
        for good in [
            with("token_type", json!("Bearer")),
            with("token_type", json!("access_token")),
            with("cnf", jkt.clone()),
            with("typ", json!("Bearer")),
        ] {
            assert!(read(&good).unwrap().active, "{good}");
        }
        let mut bound = with("token_type", json!("DPoP"));
        assert_eq!(read(&bound), Err(IntrospectionError::Kind), "bound to nothing");
        bound["cnf"] = jkt;
        assert_eq!(read(&bound).unwrap().claims["cnf"], bound["cnf"], "whoever asked holds it to that");
        for (bad, error) in [
            (with("token_type", json!("refresh_token")), IntrospectionError::Kind),
            (with("token_type", json!("N_A")), IntrospectionError::Kind),
            (with("typ", json!("Refresh")), IntrospectionError::Kind),
            (with("token_use", json!("id")), IntrospectionError::Kind),
            (with("token_type", json!(["Bearer"])), IntrospectionError::Malformed),
            (with("cnf", json!({})), IntrospectionError::Malformed),
            (with("cnf", json!("x")), IntrospectionError::Malformed),
        ] {
            assert_eq!(read(&bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn a_signed_answer_is_of_this_provider_to_this_client_now_and_of_its_kind() {
        use ringfence_keys::{Algorithm, SigningKey};
        let key = SigningKey::generate(Algorithm::P256).unwrap();
        let keys = KeySet::from_keys([("k1".to_owned(), key.verifying_key().clone())]);
        let signed = |typ: &str, claims: Value| {
            let algorithm = ringfence_token::Algorithm::Es256;
            let claims = claims.as_object().unwrap().clone();
            let input = ringfence_token::SigningInput::new(typ, algorithm, "k1", &claims).unwrap();
            let signature = key.sign(input.as_bytes()).unwrap();
            input.seal(&signature).unwrap()
        };
        let whose =
            Signed { keys: &keys, algorithms: Algorithms::DEFAULT, issuer: ISSUER, client: "clinic-gateway" };
        let kind = "token-introspection+jwt";
        let claims = |name: &str, value: Value| {
            let mut claims = json!({
                "iss": ISSUER, "aud": "clinic-gateway", "iat": NOW, "token_introspection": { "active": true },
            });
            claims[name] = value;
            claims
        };
        let good = signed(kind, claims("x", Value::Null));
        assert_eq!(whose.open(good.as_bytes(), NOW).unwrap(), br#"{"active":true}"#);
        let at = good.len() - 20;
        let other = if &good[at..=at] == "A" { "B" } else { "A" };
        let altered = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        for bad in [
            signed("JWT", claims("x", Value::Null)),
            signed("at+jwt", claims("x", Value::Null)),
            signed(kind, claims("iss", json!("https://evil.example"))),
            signed(kind, claims("aud", json!("another"))),
            signed(kind, claims("iat", json!(NOW - 3600))),
            signed(kind, claims("iat", Value::Null)),
            signed(kind, claims("token_introspection", json!("x"))),
            altered,
            String::new(),
        ] {
            assert!(whose.open(bad.as_bytes(), NOW).is_err(), "{bad}");
        }
        let eddsa =
            Signed { algorithms: Algorithms::from_iter([ringfence_token::Algorithm::EdDsa]), ..whose };
        assert!(eddsa.open(good.as_bytes(), NOW).is_err());
    }

    #[test]
    fn the_cache_forgets_in_time_and_stays_bounded() {
        let mut cache = Cache::default();
        let answer = read(&json!({ "active": true, "aud": "clinic" }));
        cache.keep([0; 32], answer.clone(), NOW);
        assert_eq!(cache.find(&[0; 32], NOW + KEEP - 1), Some(answer.clone()));
        assert_eq!(cache.find(&[0; 32], NOW + KEEP), None);
        cache.keep([1; 32], Err(IntrospectionError::Audience), NOW);
        assert_eq!(cache.find(&[1; 32], NOW), Some(Err(IntrospectionError::Audience)));
        for number in 0..MAX_KEPT as u64 + 50 {
            let mut digest = [2; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            cache.keep(digest, answer.clone(), NOW);
        }
        assert_eq!(cache.0.len(), MAX_KEPT);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_active(bytes: Vec<u8>) {
            let answer = read_introspection(&bytes, ISSUER, &["clinic".to_owned()], NOW);
            prop_assert!(!answer.is_ok_and(|a| a.active));
        }
    }
}
