//! On whose behalf a transaction token is: what the keeper writes into its context, and what sidecars read there.

use ringfence_model::Credential;
use ringfence_token::{IDENTITY, Kind, VerifiedToken};
use serde_json::{Map, Value};

use crate::identity::{Identity, IdentityError, IdentityKind};

/// Member of the context that says what was shown, in the words of `accept`.
const CREDENTIAL: &str = "cred";

/// What whoever a verified transaction token is for showed to the gateway.
///
/// # Errors
/// [`IdentityError::Nameless`] when it does not say.
pub fn credential_of(token: &VerifiedToken) -> Result<Credential, IdentityError> {
    let said = token.context().filter(|_| token.kind() == Kind::TxnToken);
    let said = said.and_then(|context| context.get(CREDENTIAL)).ok_or(IdentityError::Nameless)?;
    serde::Deserialize::deserialize(said).map_err(|_| IdentityError::Nameless)
}

impl Identity {
    /// The context (`tctx`) of a transaction token for it, which showed this. What else belongs there is added by whoever signs.
    #[must_use]
    pub fn to_context(&self, shown: &Credential) -> Map<String, Value> {
        let identity = serde_json::to_value(self).unwrap_or_default();
        let shown = serde_json::to_value(shown).unwrap_or_default();
        Map::from_iter([(IDENTITY.to_owned(), identity), (CREDENTIAL.to_owned(), shown)])
    }

    /// Whom a verified transaction token is for. A service acts for itself without one, so none is for a service.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of_transaction(token: &VerifiedToken) -> Result<Self, IdentityError> {
        let said = token.context().filter(|_| token.kind() == Kind::TxnToken);
        let said = said.and_then(|context| context.get(IDENTITY)).ok_or(IdentityError::Nameless)?;
        let identity: Self = serde::Deserialize::deserialize(said).map_err(|_| IdentityError::Nameless)?;
        // Whoever vouches for the name is whoever gave the credential.
        let vouched = credential_of(token)?.vouched_by() == identity.provider;
        if identity.kind == IdentityKind::Service || identity.provider.is_empty() || !vouched {
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
    fn read(context: Map<String, Value>) -> Result<(Identity, Credential), IdentityError> {
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
        Ok((Identity::of_transaction(&verified)?, credential_of(&verified)?))
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
            claims: [("tenant".to_owned(), "north".to_owned())].into(),
        };
        let staff = || "staff".to_owned();
        for shown in [Credential::Token(staff()), Credential::Login(staff())] {
            assert_eq!(read(ada.to_context(&shown)), Ok((ada.clone(), shown)));
        }
        let partners = Credential::Certificate("ca/partners.pem".into());
        for (provider, shown) in [("api_key", Credential::ApiKey), ("certificate:partners", partners)] {
            let lab = Identity::client(provider, "lab", Vec::new());
            assert_eq!(read(lab.to_context(&shown)), Ok((lab, shown)));
        }
    }

    #[test]
    fn nobody_is_named_by_another_credential_than_was_shown() {
        let file = |file: &str| Credential::Certificate(file.into());
        for (provider, shown) in [
            ("staff", Credential::Token("partners".into())),
            ("staff", Credential::ApiKey),
            ("api_key", Credential::Login("staff".into())),
            ("certificate", file("ca/partners.pem")),
            ("certificate:partners", file("ca/others.pem")),
            ("certificate:partners", Credential::ApiKey),
        ] {
            let context = Identity::client(provider, "lab", Vec::new()).to_context(&shown);
            assert_eq!(read(context), Err(IdentityError::Nameless), "{provider} by {shown}");
        }
        let mut context = Identity::client("api_key", "lab", Vec::new()).to_context(&Credential::ApiKey);
        for said in
            [json!("password"), json!({ "token": 5 }), json!({ "token": "a", "login": "b" }), json!(null)]
        {
            context.insert(CREDENTIAL.into(), said.clone());
            assert_eq!(read(context.clone()), Err(IdentityError::Nameless), "{said}");
        }
        context.remove(CREDENTIAL);
        assert_eq!(read(context), Err(IdentityError::Nameless));
    }

    #[test]
    fn a_context_that_names_nobody_a_service_or_too_much_is_nobody_s() {
        let context = |mut value: Value| {
            let members = value.as_object_mut().unwrap();
            members.insert(CREDENTIAL.into(), json!({ "token": "s" }));
            members.clone()
        };
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
        let billing = Identity::service("billing").to_context(&Credential::ApiKey);
        assert_eq!(read(billing), Err(IdentityError::Nameless));
    }
}
