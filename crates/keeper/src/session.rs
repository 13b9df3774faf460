//! Sessions of people who signed in: the keeper verifies what the provider said, so that nobody else can sign anybody in.

use ringfence_keys::{Secret, random, to_hex};
use ringfence_model::Login;
use ringfence_snapshot::{Identity, mapping_of};
use ringfence_token::{Origin, SessionSpec, VerifiedToken};
use serde_json::Value;

use crate::credential::{Judge, denied};
use crate::policy::KnownProvider;
use crate::protocol::{OpenSession, Refusal, RefusalCode, RenewSession, SessionToken};

/// How old an ID token may be that a session is made of, in seconds: one that was kept is not a sign-in.
const FRESH: u64 = 600;

/// A session for whoever the ID token is of.
pub(crate) fn open(judge: &Judge<'_>, request: OpenSession) -> Result<SessionToken, Refusal> {
    let provider = judge.current.provider(&request.provider)?;
    let login = login(provider)?;
    let token = id_token(judge, provider, request.id_token.expose())?;
    if request.nonce.is_empty() || !token.has_nonce(&request.nonce) {
        return Err(denied("the ID token was not made for this sign-in: its nonce is another"));
    }
    let mut identity = Identity::of_claims(&provider.declared, token.claims()).map_err(denied)?;
    identity.scopes = request.scopes;
    let life = login.absolute.as_secs().min(Login::MAX.as_secs()).max(1);
    let id = to_hex(&random::<16>());
    let mapping = mapping_of(&provider.declared);
    sign(judge, id, identity, &mapping, &Origin::of_token(&token), judge.now + life)
}

/// The same session with what the provider says now.
pub(crate) fn renew(judge: &Judge<'_>, request: RenewSession) -> Result<SessionToken, Refusal> {
    let (session, mut identity) = judge.session(request.session.expose())?;
    let mut origin = Origin::of_token(&session).without_session();
    if let Some(id_token) = request.id_token {
        let provider = judge.current.provider(&identity.provider)?;
        login(provider)?;
        let token = self::id_token(judge, provider, id_token.expose())?;
        let renewed = Identity::of_claims(&provider.declared, token.claims()).map_err(denied)?;
        let fresh = Origin::of_token(&token);
        if renewed.id != identity.id || fresh.subject() != origin.subject() {
            return Err(denied("the newer ID token is of another user than the session"));
        }
        origin = fresh.or(&origin);
        let before = std::mem::replace(&mut identity, renewed);
        identity.scopes = before.scopes;
        identity.acr = identity.acr.or(before.acr);
        identity.auth_time = identity.auth_time.or(before.auth_time);
    }
    let id = session.token_id().unwrap_or_default().to_owned();
    // A session of another mapping is none any more.
    let mapping = session.mapping().unwrap_or_default();
    sign(judge, id, identity, mapping, &origin, session.expires_at())
}

fn login(provider: &KnownProvider) -> Result<&Login, Refusal> {
    provider.declared.login.as_ref().filter(|_| provider.login.is_some()).ok_or_else(|| {
        let reason = format!("the fence does not have people sign in at {}", provider.declared.name);
        Refusal::new(RefusalCode::NotAllowed, reason)
    })
}

fn id_token(judge: &Judge<'_>, provider: &KnownProvider, token: &str) -> Result<VerifiedToken, Refusal> {
    let profile = provider.login.clone().ok_or_else(|| denied("nobody signs in there"))?.with_max_age(FRESH);
    let verified = profile.verify(token, &*judge.keys_of(provider)?, judge.now).map_err(denied)?;
    judge.revocations.check(&verified).map_err(denied)?;
    Ok(verified)
}

fn sign(
    judge: &Judge<'_>,
    id: String,
    identity: Identity,
    mapping: &str,
    origin: &Origin,
    expires_at: u64,
) -> Result<SessionToken, Refusal> {
    if expires_at <= judge.now {
        return Err(denied("the session is over"));
    }
    identity.check().map_err(denied)?;
    let Ok(Value::Object(said)) = serde_json::to_value(&identity) else {
        return Err(Refusal::internal("an identity is an object"));
    };
    let spec = SessionSpec {
        trust_domain: judge.current.trust_domain(),
        id: &id,
        subject: &identity.id,
        identity: said,
        mapping,
        origin,
        issued_at: judge.now,
        expires_at,
    };
    let signers = &judge.state.signers;
    let input = spec.signing_input(signers.txn.algorithm().into(), &signers.txn_id).map_err(denied)?;
    let signature = signers.txn.sign(input.as_bytes()).map_err(Refusal::internal)?;
    let token = input.seal(&signature).map_err(denied)?;
    Ok(SessionToken { token: Secret::new(token), id, identity, expires_at })
}
