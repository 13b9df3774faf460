//! What tokens must be to be believed, by what the fence says of their provider: one construction for gateway and keeper.
//!
//! If each had one of its own, the keeper might sign for a token that the gateway would refuse.

use ringfence_model::{Binding as Bound, Provider, TokenAlgorithm};
use ringfence_token::{Algorithm, Algorithms, Binding, Kind, Profile, VerifiedToken};

use crate::identity::{Identity, IdentityError, IdentityKind};

/// What access tokens of `provider` must be.
#[must_use]
pub fn profile_of(provider: &Provider) -> Profile {
    let binding = match provider.bound {
        Bound::Any => Binding::Any,
        Bound::Dpop => Binding::Dpop,
        Bound::Mtls => Binding::Mtls,
    };
    Profile::access_token(&provider.issuer, &provider.audiences)
        .with_algorithms(algorithms(provider))
        .with_binding(binding)
        .with_plain_type()
}

/// What ID tokens of `provider` must be; none unless the fence says who we are there.
#[must_use]
pub fn login_profile_of(provider: &Provider) -> Option<Profile> {
    let client = provider.client.as_ref()?;
    Some(Profile::id_token(&provider.issuer, &client.id).with_algorithms(algorithms(provider)))
}

fn algorithms(provider: &Provider) -> Algorithms {
    let one = |algorithm: &TokenAlgorithm| match algorithm {
        TokenAlgorithm::EdDsa => Algorithm::EdDsa,
        TokenAlgorithm::Es256 => Algorithm::Es256,
        TokenAlgorithm::Rs256 => Algorithm::Rs256,
        TokenAlgorithm::Ps256 => Algorithm::Ps256,
    };
    provider.algorithms.iter().map(one).collect()
}

impl Identity {
    /// Whose a verified session token is.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of_session(token: &VerifiedToken) -> Result<Self, IdentityError> {
        let said = token.told_identity().filter(|_| token.kind() == Kind::Session);
        let said = said.ok_or(IdentityError::Nameless)?;
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
    use ringfence_model::Fence;

    use super::*;

    #[test]
    fn a_profile_is_what_the_fence_says_of_the_provider() {
        let text = "
fence: t
trust_domain: t.example
providers:
  staff:
    issuer: https://id.example
    audiences: [clinic]
    algorithms: [ES256]
    bound: dpop
    client: { id: portal }
  plain: { issuer: https://other.example }
services: { a: {} }
";
        let fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        let (staff, plain) = (fence.provider("staff").unwrap(), fence.provider("plain").unwrap());
        let profile = profile_of(staff);
        assert_eq!((profile.kind(), profile.binding()), (Kind::AccessToken, Binding::Dpop));
        assert_eq!(profile.issuer(), Some("https://id.example"));
        assert_eq!(profile_of(plain).binding(), Binding::Any);
        assert_eq!(login_profile_of(staff).unwrap().kind(), Kind::IdToken);
        assert!(login_profile_of(plain).is_none(), "nobody signs in where we are nobody");
    }
}
