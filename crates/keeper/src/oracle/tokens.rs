//! Tokens of ours, and keys for data.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ringfence_keys::{derived, digest, to_hex};
use ringfence_model::Login;
use ringfence_snapshot::node::ProviderKeys;

use super::{Oracle, REFUSED, State};
use crate::clock::now;
use crate::credential::Judge;
use crate::issue::Done;
use crate::log::Minted;
use crate::mint::mint;
use crate::protocol::{
    DataPurpose, MAX_MINT, MAX_TXN_LIFE, MintRequest, OpenSession, Refusal, RefusalCode, RenewSession, Reply,
    SessionToken, ToldRevocations,
};
use crate::session;

/// Tokens in one line of the log.
const LINE: usize = 256;

impl Oracle {
    pub(super) fn data_key(&self, purpose: DataPurpose, done: &mut Vec<Done>) -> Result<Reply, Refusal> {
        let label = purpose.label();
        let key = derived(&self.state().signers.data, &label);
        done.push(Done {
            what: "data-key",
            subject: label,
            serial: String::new(),
            key: String::new(),
            until: 0,
            revision: self.signed(),
        });
        Ok(Reply::DataKey { key })
    }

    pub(super) fn provider_keys(&self, keys: ProviderKeys) -> Result<Reply, Refusal> {
        let state = self.state();
        self.believed.set_keys(keys, state.current()?, now())?;
        // The snapshot may have changed meanwhile.
        if let Ok(current) = self.state().current() {
            self.believed.follow(current);
        }
        Ok(Reply::Done)
    }

    pub(super) fn revocations(&self, told: ToldRevocations) -> Result<Reply, Refusal> {
        self.believed.revoke(told, now()).map(|()| Reply::Done)
    }

    pub(super) fn open_session(&self, request: OpenSession, done: &mut Vec<Done>) -> Result<Reply, Refusal> {
        self.session(done, |judge| session::open(judge, request))
    }

    pub(super) fn renew_session(
        &self,
        request: RenewSession,
        done: &mut Vec<Done>,
    ) -> Result<Reply, Refusal> {
        self.session(done, |judge| session::renew(judge, request))
    }

    fn session(
        &self,
        done: &mut Vec<Done>,
        make: impl FnOnce(&Judge<'_>) -> Result<SessionToken, Refusal>,
    ) -> Result<Reply, Refusal> {
        // The key is needed for as long as a session may last.
        let state = self.remember_life(Login::MAX.as_secs(), |lives| &mut lives.txn)?;
        let (current, now) = (state.current()?, now());
        current.fresh(now)?;
        let revocations = self.believed.revocations()?;
        let (believed, revocations) = (&self.believed, revocations.list());
        let token = make(&Judge { state: &state, current, believed, revocations, now })?;
        done.push(Done {
            what: "session",
            subject: token.id.clone(),
            serial: to_hex(&digest::sha256(token.token.expose().as_bytes())),
            key: String::new(),
            until: token.expires_at,
            revision: current.revision,
        });
        Ok(Reply::Session(Box::new(token)))
    }

    /// Transaction tokens; the SHA-256 of each that was signed goes to `minted`.
    pub(super) fn mint(
        &self,
        requests: Vec<MintRequest>,
        minted: &mut Vec<String>,
    ) -> Result<Reply, Refusal> {
        if requests.len() > MAX_MINT {
            return Err(Refusal::new(RefusalCode::Malformed, format!("at most {MAX_MINT} tokens at a time")));
        }
        let state = self.remember_life(MAX_TXN_LIFE, |lives| &mut lives.txn)?;
        let (current, now) = (state.current()?, now());
        current.fresh(now)?;
        let revocations = self.believed.revocations()?;
        let (believed, revocations) = (&self.believed, revocations.list());
        let judge = Judge { state: &state, current, believed, revocations, now };
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            let result = mint(&judge, request);
            match &result {
                Ok(token) => minted.push(to_hex(&digest::sha256(token.token.expose().as_bytes()))),
                Err(_) => drop(self.counters[REFUSED].fetch_add(1, Ordering::Relaxed)),
            }
            results.push(result);
        }
        Ok(Reply::Minted { results })
    }

    /// Writes what was minted to its log.
    pub(super) fn log_minted(&self, minted: &[String]) -> std::io::Result<()> {
        if minted.is_empty() {
            return Ok(());
        }
        let revision = self.signed();
        let lines: Vec<Minted<'_>> = minted
            .chunks(LINE)
            .map(|tokens| Minted { what: "txn", count: tokens.len(), tokens, revision })
            .collect();
        self.minting.lock().unwrap_or_else(PoisonError::into_inner).append(&lines, now())
    }

    /// Makes what a new snapshot does not allow any more forgotten.
    pub(super) fn follow(&self, state: &State) {
        if let Ok(current) = state.current() {
            self.believed.follow(current);
        }
    }
}
