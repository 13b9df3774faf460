//! What a thread knows of providers and their tokens: keys, what was verified, what was revoked.

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringfence_model::Provider;
use ringfence_snapshot::{Identity, IdentityError, profile_of};
use ringfence_token::{Check, KeySet, Possession, Profile, TokenError, VerifiedToken, Verifier};
use tokio::sync::Notify;

use super::RouteAccess;
use super::refused::Refused;
use crate::revoked::Revoked;
use crate::table::Table;
use crate::worker::unix_now;

/// Tokens that a thread remembers.
const REMEMBERED: usize = 16_384;
/// How long requests wait for a key that is not there yet, and how long after that none waits again.
const WAIT_MS: u64 = 2_000;
const PAUSE_MS: u64 = 30_000;
/// How long a provider is not asked for again.
const ASK_MS: u64 = 1_000;

/// A provider as requests are judged by it.
#[derive(Debug)]
pub(crate) struct TableProvider {
    pub(crate) name: Arc<str>,
    profile: Profile,
    declared: Provider,
}

/// The keys of one provider.
#[derive(Clone, Debug)]
pub(crate) struct ProviderKeys {
    pub(crate) provider: Arc<str>,
    /// Whose keys they are: a provider may be declared anew with another issuer.
    pub(crate) issuer: String,
    pub(crate) keys: Arc<KeySet>,
    /// Unix time in seconds from which they are not believed any more.
    pub(crate) until: u64,
}

/// What a thread knows of tokens.
pub(crate) struct Tokens {
    verifier: RefCell<Verifier>,
    keys: RefCell<HashMap<Arc<str>, ProviderKeys>>,
    /// None until it is known.
    revoked: RefCell<Option<Arc<Revoked>>>,
    /// Who the tokens are of that were verified, by their digest; for the providers in force.
    identities: RefCell<HashMap<[u8; 32], Arc<Identity>>>,
    pub(super) arrived: Notify,
    /// When each provider was last asked for, by the worker's clock.
    asked: RefCell<HashMap<Arc<str>, u64>>,
    /// When requests last began to wait for a key of each provider, by the worker's clock.
    waiting: RefCell<HashMap<Arc<str>, u64>>,
}

impl TableProvider {
    pub(crate) fn new(provider: &Provider) -> Self {
        let profile = profile_of(provider);
        Self { name: provider.name.as_str().into(), profile, declared: provider.clone() }
    }

    /// What the fence says of it.
    pub(crate) fn declared(&self) -> &Provider {
        &self.declared
    }

    /// Whether a token that was believed, as one of this provider, is for us as it is declared.
    pub(super) fn takes(&self, token: &VerifiedToken) -> bool {
        let ours = |audience: &str| self.declared.audiences.iter().any(|a| a == audience);
        self.profile.issuer() == token.issuer() && token.audiences().any(ours)
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            verifier: RefCell::new(Verifier::new(REMEMBERED)),
            keys: RefCell::default(),
            revoked: RefCell::default(),
            arrived: Notify::new(),
            identities: RefCell::default(),
            asked: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    /// Takes keys in place of those that the provider had.
    pub(crate) fn set_keys(&self, keys: ProviderKeys) {
        self.keys.borrow_mut().insert(keys.provider.clone(), keys);
        self.arrived.notify_waiters();
    }

    /// Takes what was revoked in place of what was before.
    pub(crate) fn set_revoked(&self, revoked: Arc<Revoked>) {
        *self.revoked.borrow_mut() = Some(revoked);
    }

    /// What was revoked; none while that is not known, and then nobody is to be let in by anything.
    pub(crate) fn revoked(&self) -> Ref<'_, Option<Arc<Revoked>>> {
        self.revoked.borrow()
    }

    /// Whether a session token that the keeper signed holds; none while it is not known what was revoked.
    pub(super) fn session(
        &self,
        token: &str,
        table: &Table,
    ) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        let revoked = self.revoked();
        let check = Check {
            profile: &table.txn.session,
            keys: &table.txn.keys,
            revocations: &revoked.as_ref()?.tokens,
            possession: Possession::NONE,
            now: unix_now(),
        };
        Some(self.verifier.borrow_mut().verify(token, &check))
    }

    /// Forgets the keys of providers that are not declared any more: one that comes again begins anew.
    pub(crate) fn follow(&self, table: &Table) {
        let declared = |keys: &ProviderKeys| {
            let same =
                |p: &TableProvider| p.name == keys.provider && p.profile.issuer() == Some(&keys.issuer);
            table.providers().iter().any(same)
        };
        self.keys.borrow_mut().retain(|_, keys| declared(keys));
        let known = |name: &Arc<str>| table.providers().iter().any(|p| p.name == *name);
        self.asked.borrow_mut().retain(|name, _| known(name));
        self.waiting.borrow_mut().retain(|name, _| known(name));
        // The claims that name a user may be others now.
        self.identities.borrow_mut().clear();
    }

    fn keys(&self, provider: &TableProvider, now: u64) -> Option<Arc<KeySet>> {
        let all = self.keys.borrow();
        let keys = all.get(&provider.name)?;
        (provider.profile.issuer() == Some(&keys.issuer) && now < keys.until).then(|| keys.keys.clone())
    }

    /// Whether a provider may be asked for its keys now: once a second, whoever sends what. Its answers are spaced further
    /// by whoever asks it.
    pub(super) fn may_ask(&self, provider: &Arc<str>, now_ms: u64) -> bool {
        let mut asked = self.asked.borrow_mut();
        let due = asked.get(provider).is_none_or(|at| now_ms.saturating_sub(*at) >= ASK_MS);
        if due {
            asked.insert(provider.clone(), now_ms);
        }
        due
    }

    /// Whether a request may wait for keys of one of these providers now: for a while after one began to, and then not for a longer
    /// while.
    pub(super) fn may_wait<'n>(
        &self,
        providers: impl Iterator<Item = &'n Arc<str>>,
        now_ms: u64,
    ) -> Option<Duration> {
        let mut waiting = self.waiting.borrow_mut();
        let left = providers.filter_map(|provider| {
            let since = match waiting.get(provider) {
                Some(since) if now_ms.saturating_sub(*since) < WAIT_MS + PAUSE_MS => *since,
                _ => {
                    waiting.insert(provider.clone(), now_ms);
                    now_ms
                }
            };
            (since + WAIT_MS).checked_sub(now_ms).filter(|left| *left > 0)
        });
        left.max().map(Duration::from_millis)
    }

    /// Who a verified token is of.
    pub(super) fn identity(
        &self,
        provider: &TableProvider,
        token: &VerifiedToken,
    ) -> Result<Arc<Identity>, IdentityError> {
        let mut known = self.identities.borrow_mut();
        if let Some(identity) = known.get(token.digest()) {
            return Ok(identity.clone());
        }
        let identity = Arc::new(Identity::of_claims(&provider.declared, token.claims())?);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(*token.digest(), identity.clone());
        Ok(identity)
    }
}
/// Which provider vouches for the token.
pub(super) fn judge(
    tokens: &Tokens,
    table: &Table,
    access: &RouteAccess,
    token: &str,
    possession: Possession<'_>,
) -> Result<(Arc<Identity>, Arc<VerifiedToken>), Refused> {
    let now = unix_now();
    let revoked = tokens.revoked();
    let Some(revoked) = &*revoked else { return Err(Refused::RevocationsUnknown) };
    let mut without = None;
    let keys: Vec<(usize, Arc<KeySet>)> = access
        .providers
        .iter()
        .filter_map(|&at| {
            let provider = &table.providers()[at];
            let keys = tokens.keys(provider, now);
            if keys.is_none() {
                without = Some(provider.name.clone());
            }
            Some((at, keys?))
        })
        .collect();
    let checks: Vec<Check<'_>> = keys
        .iter()
        .map(|(at, keys)| Check {
            profile: &table.providers()[*at].profile,
            keys,
            revocations: &revoked.tokens,
            possession,
            now,
        })
        .collect();
    let verified = tokens.verifier.borrow_mut().verify_any(token, &checks);
    let (which, verified) = match (verified, without) {
        // It may be of the one whose keys are missing: its client should not throw it away.
        (Err(TokenError::Issuer | TokenError::UnknownKey), Some(provider)) => {
            return Err(Refused::NoKeys(provider));
        }
        (verified, _) => verified.map_err(Refused::Token)?,
    };
    let provider = &table.providers()[keys[which].0];
    let identity = tokens.identity(provider, &verified).map_err(Refused::Identity)?;
    Ok((identity, verified))
}
