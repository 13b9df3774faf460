//! What endpoints of a provider answer.

use http::StatusCode;
use ringfence_keys::Secret;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::fetch::Reply;
use crate::id_token::printable;
use crate::protocol::{Refusal, RefusalCode};

/// Longest access or refresh token.
const MAX_TOKEN: usize = 16 * 1024;
/// Most scopes that are looked at.
const MAX_SCOPES: usize = 128;

/// Answer of a token endpoint (RFC 6749, 5.1). A member that is there twice makes it malformed.
#[derive(Deserialize)]
pub(crate) struct Tokens {
    pub(crate) access_token: Secret<String>,
    token_type: String,
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) expires_in: Option<u64>,
    pub(crate) refresh_token: Option<Secret<String>>,
    #[serde(default)]
    scope: Option<String>,
    pub(crate) id_token: Option<Secret<String>>,
}

impl Tokens {
    pub(crate) fn read(reply: &Reply) -> Result<Self, Refusal> {
        if reply.status != StatusCode::OK {
            return Err(refused("token endpoint", reply));
        }
        let not = |why: String| {
            Refusal::new(RefusalCode::NotBelieved, format!("the token endpoint's answer {why}"))
        };
        // serde_json shows no content in its messages but for single characters.
        let tokens: Self = serde_json::from_slice(&reply.body)
            .map_err(|e| not(format!("is malformed (line {}, column {})", e.line(), e.column())))?;
        if !tokens.token_type.eq_ignore_ascii_case("bearer")
            && !tokens.token_type.eq_ignore_ascii_case("dpop")
        {
            return Err(not("has an unknown token type".into()));
        }
        let long = |token: &Secret<String>| token.expose().is_empty() || token.expose().len() > MAX_TOKEN;
        if long(&tokens.access_token) || tokens.refresh_token.as_ref().is_some_and(long) {
            return Err(not("holds a token that is empty or too long".into()));
        }
        Ok(tokens)
    }

    /// The scopes that were granted: those that were asked for, unless the provider says otherwise (RFC 6749, 5.1).
    pub(crate) fn scopes(&self, asked: &[String]) -> Vec<String> {
        match &self.scope {
            None => asked.to_vec(),
            Some(scope) => {
                scope.split(' ').filter(|s| !s.is_empty()).take(MAX_SCOPES).map(str::to_owned).collect()
            }
        }
    }
}

/// A number of seconds; some providers write it as text.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Option::<Value>::deserialize(deserializer)? {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    })
}

/// An OAuth error (RFC 6749, 5.2).
#[derive(Deserialize)]
struct Failure {
    error: String,
    error_description: Option<String>,
}

/// What to make of an answer that is no success.
pub(crate) fn refused(whose: &str, reply: &Reply) -> Refusal {
    let status = reply.status.as_u16();
    if !reply.status.is_client_error() || reply.status == StatusCode::TOO_MANY_REQUESTS {
        return Refusal::new(RefusalCode::Unavailable, format!("the {whose} answered with status {status}"));
    }
    let failure = serde_json::from_slice::<Failure>(&reply.body);
    // It is we who are not known there: that says nothing about whom it was asked.
    let ours = failure.as_ref().is_ok_and(|f| matches!(&*f.error, "invalid_client" | "unauthorized_client"));
    let text = match failure {
        Ok(Failure { error, error_description: Some(more) }) => {
            format!("{} ({})", printable(&error, 60), printable(&more, 200))
        }
        Ok(Failure { error, error_description: None }) => printable(&error, 60),
        Err(_) => "it did not say why".to_owned(),
    };
    let code = if ours { RefusalCode::Unavailable } else { RefusalCode::Denied };
    Refusal::new(code, format!("the {whose} refused with status {status}: {text}"))
}

/// A JSON object without a member that is there twice (at the top, where everything lies that is looked at).
pub(crate) struct Object(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member is there twice"));
                    }
                }
                Ok(Object(map))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            media_type: "application/json".into(),
            etag: None,
            body: body.to_owned().into(),
        }
    }

    #[test]
    fn tokens_are_read_strictly() {
        let good =
            r#"{"access_token":"a","token_type":"Bearer","expires_in":"60","scope":"openid  x","z":{}}"#;
        let tokens = Tokens::read(&reply(200, good)).ok().unwrap();
        assert_eq!(
            (tokens.expires_in, tokens.scopes(&[])),
            (Some(60), vec!["openid".to_owned(), "x".to_owned()])
        );
        for bad in [
            "",
            "[]",
            r#"{"access_token":"a"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a","access_token":"b","token_type":"Bearer"}"#,
            r#"{"access_token":1,"token_type":"Bearer"}"#,
        ] {
            assert_eq!(Tokens::read(&reply(200, bad)).err().unwrap().code, RefusalCode::NotBelieved, "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_told_without_control_characters_and_at_bounded_length() {
        let body =
            format!(r#"{{"error":"invalid_grant","error_description":"\u001b[31mno{}"}}"#, "x".repeat(999));
        let refusal = Tokens::read(&reply(400, &body)).err().unwrap();
        assert_eq!(refusal.code, RefusalCode::Denied);
        assert!(
            refusal.reason.contains("invalid_grant ([31mnoxx") && refusal.reason.len() < 400,
            "{refusal}"
        );
        for status in [500, 503, 429, 204] {
            assert_eq!(Tokens::read(&reply(status, "")).err().unwrap().code, RefusalCode::Unavailable);
        }
    }
}
