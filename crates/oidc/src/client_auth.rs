//! How we prove to a provider who we are.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use ringfence_keys::SigningKey;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::endpoint::{escape, form};
use crate::fetch::Call;
use crate::protocol::{ClientConfig, Credential, Refusal, RefusalCode};

/// Life of an assertion in seconds.
const ASSERTION_LIFE: u64 = 60;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A post of `parameters` in the name of `client`. `methods` is what the provider says it takes; `audience` is its issuer.
pub(crate) fn signed_call(
    client: &ClientConfig,
    methods: Option<&[String]>,
    audience: &str,
    now: u64,
    parameters: &[(&str, &str)],
) -> Result<Call, Refusal> {
    // What metadata leaves out is `client_secret_basic`.
    let takes = |method: &str| {
        methods.map_or(method == "client_secret_basic", |methods| methods.iter().any(|m| m == method))
    };
    let mut parameters = parameters.to_vec();
    let mut authorization = None;
    let assertion;
    match &client.credential {
        Credential::Public => parameters.push(("client_id", &client.id)),
        Credential::Secret(secret) if takes("client_secret_basic") => {
            authorization = Some(basic(&client.id, secret.expose())?);
        }
        Credential::Secret(secret) if takes("client_secret_post") => {
            parameters.extend([("client_id", client.id.as_str()), ("client_secret", secret.expose())]);
        }
        Credential::Key { algorithm, key_id, pkcs8 } if methods.is_none() || takes("private_key_jwt") => {
            let broken = |e: &dyn std::error::Error| {
                Refusal::new(
                    RefusalCode::Malformed,
                    format!("the key of client `{}` is not usable: {e}", client.id),
                )
            };
            let key = SigningKey::from_pkcs8(*algorithm, pkcs8).map_err(|e| broken(&e))?;
            let claims = json!({
                "iss": client.id, "sub": client.id, "aud": audience, "jti": random_text(),
                "iat": now, "exp": now + ASSERTION_LIFE,
            });
            let Value::Object(claims) = claims else { unreachable!("an object was just written") };
            assertion = Zeroizing::new(ringfence_token::sign(&key, key_id, &claims).map_err(|e| broken(&e))?);
            parameters.extend([
                ("client_id", client.id.as_str()),
                ("client_assertion_type", ASSERTION_TYPE),
                ("client_assertion", assertion.as_str()),
            ]);
        }
        Credential::Secret(_) | Credential::Key { .. } => {
            let reason = format!(
                "the provider does not take what client `{}` proves itself with; it takes: {}",
                client.id,
                methods.unwrap_or_default().join(", ")
            );
            return Err(Refusal::new(RefusalCode::NotSupported, reason));
        }
    }
    Ok(Call { form: Some(form(&parameters)), authorization, ..Call::default() })
}

/// RFC 6749, 2.3.1: both parts are form-encoded first.
fn basic(id: &str, secret: &str) -> Result<HeaderValue, Refusal> {
    let mut pair = Zeroizing::new(String::new());
    escape(id, &mut pair);
    pair.push(':');
    escape(secret, &mut pair);
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    HeaderValue::from_str(&text)
        .map_err(|_| Refusal::new(RefusalCode::Malformed, "the client secret cannot be sent in a header"))
}

/// 256 random bits as text.
pub(crate) fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(ringfence_keys::random::<32>())
}

#[cfg(test)]
mod tests {
    use ringfence_keys::{Algorithm, Secret};

    use super::*;

    fn client(credential: Credential) -> ClientConfig {
        ClientConfig { id: "clinic gateway".into(), credential }
    }

    fn call(credential: Credential, methods: Option<&[&str]>) -> Result<Call, Refusal> {
        let methods: Option<Vec<String>> = methods.map(|m| m.iter().map(|m| (*m).to_owned()).collect());
        signed_call(
            &client(credential),
            methods.as_deref(),
            "https://id.example",
            1_800_000_000,
            &[("a", "b")],
        )
    }

    #[test]
    fn a_secret_goes_where_the_provider_wants_it() {
        let secret = || Credential::Secret(Secret::new("p:ss".to_owned()));
        for methods in [None, Some(&["client_secret_post", "client_secret_basic"][..])] {
            let call = call(secret(), methods).unwrap();
            assert_eq!(call.form.as_deref(), Some("a=b"));
            let expected = format!("Basic {}", STANDARD.encode("clinic%20gateway:p%3Ass"));
            assert_eq!(call.authorization.unwrap(), expected.as_str());
        }
        let posted = call(secret(), Some(&["client_secret_post"])).unwrap();
        assert_eq!(posted.form.as_deref(), Some("a=b&client_id=clinic%20gateway&client_secret=p%3Ass"));
        assert!(posted.authorization.is_none());
        let refused = call(secret(), Some(&["tls_client_auth"])).err().unwrap();
        assert!(refused.reason.contains("tls_client_auth"), "{refused}");
    }

    #[test]
    fn a_key_proves_itself_without_being_sent() {
        let key = SigningKey::generate(Algorithm::P256).unwrap();
        let pkcs8 = key.to_pkcs8().unwrap();
        let credential = Credential::Key { algorithm: Algorithm::P256, key_id: "k1".into(), pkcs8 };
        let form = call(credential, Some(&["private_key_jwt"])).unwrap().form.unwrap();
        let assertion = form.split("client_assertion=").nth(1).unwrap();
        let keys = ringfence_token::KeySet::from_keys([("k1".to_owned(), key.verifying_key().clone())]);
        let (_, payload) = ringfence_token::verify_payload(assertion, &keys).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(
            (&claims["aud"], &claims["sub"]),
            (&"https://id.example".into(), &"clinic gateway".into())
        );
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), ASSERTION_LIFE);
    }

    #[test]
    fn nothing_random_repeats() {
        assert_ne!(random_text(), random_text());
        assert_eq!(random_text().len(), 43);
    }
}
