//! What control tells besides snapshots: keys of providers, API keys, and what was revoked. It counts on every thread, and what must outlive
//! this process goes to disk.

use std::sync::Arc;

use ringfence_event::{LifecycleActivity, Severity};
use ringfence_snapshot::node::{ApiKeys, ProviderKeys as Told, Revocations};
use ringfence_tls::Identity;
use ringfence_token::KeySet;

use super::Node;
use crate::access::ProviderKeys;
use crate::revoked::Known;
use crate::worker::{Command, unix_now};

/// Longest that the keys of a provider are believed, whoever says for how long, in seconds.
const MAX_KEYS_LIFE: u64 = 48 * 3600;

impl Node {
    /// Has every thread believe the keys of a provider. A set that cannot be read changes nothing.
    pub(super) async fn believe(&self, told: Told) {
        if !self.use_keys(&told).await {
            return;
        }
        let mut all = self.keys.borrow_mut();
        // Providers that are declared no more are forgotten when another is told.
        let declared = self.table.borrow().as_ref().map(|table| table.snapshot.clone());
        all.retain(|name, _| declared.iter().flat_map(|s| &s.providers).any(|p| p.name == *name));
        self.sets.borrow_mut().retain(|name, _| all.contains_key(name) || *name == told.provider);
        all.insert(told.provider.clone(), told);
        if let Err(e) = self.disk.keep_keys(all.values()) {
            let message = format!("the keys of providers could not be kept: {e}");
            self.tell("proxy", LifecycleActivity::Update, &message, Severity::Medium);
        }
    }

    /// Believes what the disk remembers, as long as it may be: a provider need not answer for a node to start.
    pub(super) async fn last_keys(&self) {
        match self.disk.keys() {
            Ok(kept) => {
                for told in kept.into_iter().filter(|told| self.declares(told)) {
                    if self.use_keys(&told).await {
                        self.keys.borrow_mut().insert(told.provider.clone(), told);
                    }
                }
            }
            Err(e) => {
                self.entity("provider", "-", 2, false, &format!("the keys that were kept are not used: {e}"));
            }
        }
    }

    /// Whether these are keys of a provider that there is.
    fn declares(&self, told: &Told) -> bool {
        let table = self.table.borrow();
        let providers = table.iter().flat_map(|table| &table.snapshot.providers);
        providers.into_iter().any(|p| p.name == told.provider && p.issuer == told.issuer)
    }

    async fn use_keys(&self, told: &Told) -> bool {
        let known = self.sets.borrow().get(&told.provider).filter(|(jwks, _)| *jwks == told.jwks).cloned();
        let set = match known {
            // Asked again, a provider mostly says the same: then what threads remember of tokens still holds.
            Some((_, set)) => set,
            None => match KeySet::from_json(told.jwks.as_bytes()) {
                Ok(set) => Arc::new(set),
                Err(e) => {
                    self.entity("provider", &told.provider, 3, false, &e.to_string());
                    return false;
                }
            },
        };
        self.sets.borrow_mut().insert(told.provider.clone(), (told.jwks.clone(), set.clone()));
        let keys = ProviderKeys {
            provider: told.provider.as_str().into(),
            issuer: told.issuer.clone(),
            keys: set,
            // A file says so as well, which is not signed.
            until: told.until.min(unix_now() + MAX_KEYS_LIFE),
        };
        self.broadcast(|| Command::Keys(keys.clone())).await;
        self.entity("provider", &told.provider, 3, true, "keys in use");
        true
    }

    /// Takes what is told of API keys; none of it goes to disk.
    pub(super) async fn api_keys(&self, told: ApiKeys) {
        let changes = matches!(told, ApiKeys::Changed(_) | ApiKeys::Part { last: true, .. });
        let taken = self.shared.api_keys.take(told);
        if changes {
            self.broadcast(|| Command::Judge).await;
        }
        match taken {
            Ok(None) => {}
            Ok(Some(count)) => {
                self.entity("api_key", "all", 3, true, &format!("{count} API keys are known"));
            }
            Err(reason) => self.entity("api_key", "all", 3, false, &reason),
        }
    }

    /// Believes no more what the disk says was revoked, before anything else: control may not be there to say it again.
    pub(super) async fn last_revocations(&self) {
        let kept = match self.disk.revocations() {
            Ok(None) => return,
            Ok(Some(kept)) => Known::kept(kept, unix_now()),
            Err(e) => Err(e.to_string()),
        };
        match kept {
            Ok(known) => {
                *self.revoked.borrow_mut() = known;
                self.revoke().await;
            }
            Err(reason) => {
                let message = format!(
                    "what was revoked is not known, so no credential and no SVID counts until control tells: {reason}"
                );
                self.entity("revocation", "kept", 2, false, &message);
            }
        }
    }

    /// Takes what control says was revoked: it counts first, and goes to disk then.
    pub(super) async fn revocations(&self, told: Revocations) {
        let taken = self.revoked.borrow_mut().take(told);
        match taken {
            Ok(false) => {}
            Ok(true) => {
                self.revoke().await;
                let kept = self.disk.keep_revocations(self.revoked.borrow().entries());
                if let Err(e) = kept {
                    let message = format!("what was revoked could not be kept: {e}");
                    self.tell("proxy", LifecycleActivity::Update, &message, Severity::High);
                }
                let count = self.revoked.borrow().len();
                self.entity("revocation", "all", 3, true, &format!("{count} revocations count"));
            }
            Err(reason) => {
                let message = format!("control told revocations that make no sense: {reason}");
                self.entity("revocation", "all", 3, false, &message);
            }
        }
    }

    /// What is known to be revoked counts on every thread, and for both ends of the mesh.
    async fn revoke(&self) {
        let Some(revoked) = self.revoked.borrow_mut().compiled(unix_now()) else { return };
        let revoked = Arc::new(revoked);
        self.shared.mesh.set_revoked(revoked.svids.clone());
        // Nobody is shown one of ours that nobody believes; who wants to call waits for the next.
        let gone = self.renewer.borrow_mut().renew_if(|id| {
            let revoked = |identity: Identity| identity.is_revoked(&revoked.svids);
            self.shared.mesh.identity(id).is_some_and(revoked)
        });
        for id in gone {
            self.shared.mesh.remove_identity(&id);
        }
        self.ask();
        self.broadcast(|| Command::Revoked(revoked.clone())).await;
    }
}
