//! On whose behalf a transaction token is: what the keeper writes into its context, and what sidecars read there.

use ringfence_token::{IDENTITY, Kind, VerifiedToken};
use serde_json::{Map, Value};

use crate::identity::{Identity, IdentityError, IdentityKind};

impl Identity {
    /// The context (`tctx`) of a transaction token for it. What else belongs there is added by whoever signs.
    #[must_use]
    pub fn to_context(&self) -> Map<String, Value> {
        let identity = serde_json::to_value(self).unwrap_or_default();
        Map::from_iter([(IDENTITY.to_owned(), identity)])
    }

    /// Whom a verified transaction token is for. A service acts for itself without one, so none is for a service.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of_transaction(token: &VerifiedToken) -> Result<Self, IdentityError> {
        let said = token.context().filter(|_| token.kind() == Kind::TxnToken);
        let said = said.and_then(|context| context.get(IDENTITY)).ok_or(IdentityError::Nameless)?;
        let identity: Self = serde::Deserialize::deserialize(said).map_err(|_| IdentityError::Nameless)?;
        if identity.kind == IdentityKind::Service || identity.provider.is_empty() {
            return Err(IdentityError::Nameless);
        }
        identity.check()?;
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use ringfence_keys::{Algorithm, SigningKey};
    use ringfence_spiffe::TrustDomain;
    use ringfence_token::{KeySet, Profile, TokenError, TxnSpec};
    use serde_json::json;

    use super::*;

    /// What a sidecar makes of a token with this context.
    fn read(context: Map<String, Value>) -> Result<Identity, IdentityError> {
        let domain = TrustDomain::new("clinic.example").unwrap();
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
        let spec = TxnSpec {
            trust_domain: &domain,
            transaction: "t",
            subject: "ada",
            scope: "",
            workload: "spiffe://clinic.example/gateway/clinic",
            context,
            request: Map::new(),
            origin: None,
            issued_at: 1_800_000_000,
            expires_at: 1_800_000_120,
        };
        let sign = |input: &[u8]| key.sign(input).map_err(TokenError::from);
        let token = spec.sign(key.algorithm().into(), "k", sign).unwrap();
        let keys = KeySet::from_keys([("k".to_owned(), key.verifying_key().clone())]);
        let verified = Profile::txn_token(&domain).verify(&token, &keys, 1_800_000_001).unwrap();
        Identity::of_transaction(&verified)
    }

    #[test]
    fn whom_the_keeper_writes_is_whom_a_sidecar_reads() {
        let ada = Identity {
            kind: IdentityKind::User,
            provider: "staff".into(),
            id: "ada \u{1f600} \"lovelace\"".into(),
            client: Some("portal".into()),
            groups: vec!["nurse".into(), "ward/3".into()],
            scopes: vec!["read".into()],
            acr: Some("phr".into()),
            auth_time: Some(5),
        };
        assert_eq!(read(ada.to_context()), Ok(ada));
        let lab = Identity::client("api_key", "lab", Vec::new());
        assert_eq!(read(lab.to_context()), Ok(lab));
    }

    #[test]
    fn a_context_that_names_nobody_a_service_or_too_much_is_nobody_s() {
        let context = |value: Value| value.as_object().unwrap().clone();
        for (bad, error) in [
            (json!({}), IdentityError::Nameless),
            (json!({ IDENTITY: "ada" }), IdentityError::Nameless),
            (json!({ IDENTITY: { "kind": "user", "id": "ada" } }), IdentityError::Nameless),
            (json!({ IDENTITY: { "kind": "root", "provider": "s", "id": "a" } }), IdentityError::Nameless),
            (json!({ IDENTITY: { "kind": "user", "provider": "s", "id": "a\nb" } }), IdentityError::Nameless),
            (
                json!({ IDENTITY: { "kind": "user", "provider": "s", "id": "a", "groups": ["x".repeat(257)] } }),
                IdentityError::TooMuch,
            ),
        ] {
            assert_eq!(read(context(bad.clone())), Err(error), "{bad}");
        }
        assert_eq!(read(Identity::service("billing").to_context()), Err(IdentityError::Nameless));
    }
}
