//! What credentials are judged by: keys of providers and revocations, as control says them, held to the current snapshot.
//!
//! Control can say wrong ones, and then have tokens of a provider forged; it cannot make the keeper believe a provider, issuer or
//! audience that the snapshot in force does not name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use ringfence_snapshot::node::ProviderKeys;
use ringfence_token::{Full, KeySet, Revocation, Revocations, Verifier};

use crate::policy::Allowed;
use crate::protocol::{MAX_KEYS_LIFE, MAX_REVOCATIONS, Refusal, RefusalCode, ToldRevocations};

/// Credentials that are remembered once they were verified.
const REMEMBERED: usize = 16_384;
/// Most revocations that can be in force.
const CAPACITY: usize = 500_000;

/// What credentials are judged by.
pub(crate) struct Believed {
    pub(crate) verifier: Mutex<Verifier>,
    keys: RwLock<HashMap<String, Keys>>,
    /// None until the whole list was said.
    revocations: RwLock<Option<Revocations>>,
    /// The list that is being said.
    telling: Mutex<Option<Revocations>>,
}

struct Keys {
    issuer: String,
    keys: Arc<KeySet>,
    until: u64,
}

impl Believed {
    pub(crate) fn new() -> Self {
        Self {
            verifier: Mutex::new(Verifier::new(REMEMBERED)),
            keys: RwLock::default(),
            revocations: RwLock::new(None),
            telling: Mutex::default(),
        }
    }

    /// Takes the keys of a provider, if the snapshot in force names it with this issuer.
    pub(crate) fn set_keys(&self, told: ProviderKeys, current: &Allowed, now: u64) -> Result<(), Refusal> {
        let ProviderKeys { provider, issuer, jwks, until } = told;
        if current.provider(&provider)?.declared.issuer != issuer {
            let reason = format!("{provider} has another issuer in the snapshot in force than {issuer:?}");
            return Err(Refusal::new(RefusalCode::NotAllowed, reason));
        }
        let parsed = KeySet::from_json(jwks.as_bytes())
            .map_err(|e| Refusal::new(RefusalCode::Malformed, format!("the keys of {provider}: {e}")))?;
        let until = until.min(now + MAX_KEYS_LIFE);
        let mut all = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // The same keys keep their generation, and with it what was verified with them.
        let keys = match all.get(&provider) {
            Some(before) if before.issuer == issuer && *before.keys == parsed => before.keys.clone(),
            _ => Arc::new(parsed),
        };
        all.insert(provider, Keys { issuer, keys, until });
        Ok(())
    }

    /// Forgets the keys of whoever `current` does not name any more.
    pub(crate) fn follow(&self, current: &Allowed) {
        let named = |name: &str, keys: &Keys| {
            current.provider(name).is_ok_and(|known| known.declared.issuer == keys.issuer)
        };
        let mut all = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, keys| named(name, keys));
    }

    pub(crate) fn keys(&self, provider: &str, issuer: &str, now: u64) -> Result<Arc<KeySet>, Refusal> {
        let all = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        match all.get(provider) {
            Some(keys) if keys.issuer == issuer && now < keys.until => Ok(keys.keys.clone()),
            _ => {
                let reason = format!("the keeper has no keys of {provider} that are believed now");
                Err(Refusal::new(RefusalCode::NotNow, reason))
            }
        }
    }

    /// Takes revocations. If they do not fit, nothing is signed for anybody until a list was said that does.
    pub(crate) fn revoke(&self, told: ToldRevocations, now: u64) -> Result<(), Refusal> {
        let (ToldRevocations::Part { entries, .. } | ToldRevocations::Added(entries)) = &told;
        if entries.len() > MAX_REVOCATIONS || !entries.iter().all(Revocation::fits) {
            let reason = format!("at most {MAX_REVOCATIONS} revocations at a time, each with a name");
            return Err(Refusal::new(RefusalCode::Malformed, reason));
        }
        let mut telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let mut force = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        let outcome = match &told {
            ToldRevocations::Part { first, last, entries } => {
                if *first {
                    *telling = Some(Revocations::new(CAPACITY));
                }
                let Some(list) = telling.as_mut() else {
                    return Err(Refusal::new(
                        RefusalCode::Malformed,
                        "a list of revocations has a first part",
                    ));
                };
                let outcome = add(list, entries);
                if *last && outcome.is_ok() {
                    *force = telling.take();
                }
                outcome
            }
            ToldRevocations::Added(entries) => {
                let both = [telling.as_mut(), force.as_mut()];
                both.into_iter().flatten().try_for_each(|list| add(list, entries))
            }
        };
        if let Some(list) = force.as_mut() {
            list.purge(now);
        }
        outcome.map_err(|full| {
            (*force, *telling) = (None, None);
            Refusal::new(RefusalCode::NotNow, full.to_string())
        })
    }

    /// What was revoked; an error until it was said, because then everything might be.
    pub(crate) fn revocations(&self) -> Result<Known<'_>, Refusal> {
        let list = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        if list.is_some() {
            return Ok(Known(list));
        }
        let reason = "control has not said yet what was revoked; nothing is signed for anybody before";
        Err(Refusal::new(RefusalCode::NotNow, reason))
    }
}

/// Revocations that were said.
pub(crate) struct Known<'a>(RwLockReadGuard<'a, Option<Revocations>>);

impl Known<'_> {
    pub(crate) fn list(&self) -> &Revocations {
        self.0.as_ref().expect("invariant: made only of a list that is there")
    }
}

fn add(list: &mut Revocations, entries: &[Revocation]) -> Result<(), Full> {
    entries.iter().try_for_each(|entry| list.add(entry))
}
