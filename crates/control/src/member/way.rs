//! The way to control: an SVID that holds, and a connection.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringfence_join::JoinToken;
use ringfence_keeper::control_id;
use ringfence_keys::{Keyring, Secret, SigningKey, possession};
use ringfence_snapshot::Der;
use ringfence_spiffe::{BundleSet, SpiffeId, TrustDomain};
use ringfence_tls::Mesh;
use ringfence_wire::{CallError, Callee, ComeBackAsk, JoinAsk, Known, Welcome, come_back_subject};

use super::kept::Kept;
use crate::core::now;
use crate::hosts::own_identity;

/// Why there is no way to control now.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoWay {
    /// Another attempt may help.
    #[error("{0}")]
    Later(String),
    /// The operator has to do something.
    #[error("{0}")]
    Refused(String),
}

/// All that it takes to come to control.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) folder: PathBuf,
    pub(super) kept: Kept,
    key: SigningKey,
    token: Option<JoinToken>,
    /// Which of control's addresses is tried next.
    next: usize,
}

impl Way {
    pub(super) fn new(folder: &Path, keyring: &Keyring, token: Option<JoinToken>) -> Result<Self, String> {
        let kept = Kept::read(folder).map_err(|e| format!("what this host keeps of its membership: {e}"))?;
        let (kept, key) = match (kept, &token) {
            (Some(kept), Some(token)) if kept.host != token.host() => {
                return Err(format!(
                    "this data directory is of host `{}`, and the join token is for `{}`: use another --data",
                    kept.host,
                    token.host()
                ));
            }
            (Some(kept), Some(token)) if !kept.belongs() => {
                let key = kept.key(keyring)?;
                let controls = token.controls().to_vec();
                (Kept { trust_domain: token.trust_domain().as_str().to_owned(), controls, ..kept }, key)
            }
            (Some(kept), _) => {
                let key = kept.key(keyring)?;
                (kept, key)
            }
            (None, Some(token)) => Kept::new(token, keyring)?,
            (None, None) => {
                return Err("this host has not joined: on the control host make a token with `ringfence host token NAME`, and give it here with --join FILE".into());
            }
        };
        kept.write(folder).map_err(|e| format!("cannot keep this host's key: {e}"))?;
        Ok(Self { folder: folder.to_owned(), kept, key, token, next: 0 })
    }

    /// A connection to control on which both ends are known. Gets an SVID first, if this host has none that holds for long.
    pub(super) async fn connect(&mut self) -> Result<Known, NoWay> {
        let Some(&at) = self.kept.controls.get(self.next % self.kept.controls.len().max(1)) else {
            return Err(NoWay::Refused("it is not known where control is: join again".into()));
        };
        let outcome = self.connect_to(at).await;
        if outcome.is_err() {
            self.next += 1;
        }
        outcome
    }

    /// When the SVID is to be renewed, Unix time in seconds: at half of what is left of it, as it was got.
    pub(super) fn renew_at(&self) -> u64 {
        self.kept.not_after.saturating_sub(super::HALF_LIFE)
    }

    /// The next connection begins with a new SVID.
    pub(super) fn renew(&mut self) {
        self.kept.not_after = 0;
    }

    async fn connect_to(&mut self, at: SocketAddr) -> Result<Known, NoWay> {
        if !self.kept.belongs() || now() >= self.renew_at() {
            self.svid(at).await?;
        }
        let later = |e: &dyn std::fmt::Display| NoWay::Later(e.to_string());
        let trust_domain = TrustDomain::new(&self.kept.trust_domain).map_err(|e| later(&e))?;
        let own = SpiffeId::node(&trust_domain, &self.kept.host).map_err(|e| later(&e))?;
        let control = control_id(&trust_domain, &self.kept.fence).map_err(|e| later(&e))?;
        let bundle = Arc::new(self.kept.bundle().map_err(NoWay::Later)?);
        let mesh = Mesh::new(BundleSet::new(1, [bundle]));
        mesh.put_identity(
            own_identity(own.clone(), &self.key, self.kept.chain.clone()).map_err(NoWay::Later)?,
        );
        Callee(at).connect(&mesh, &own, &control).await.map_err(|e| later(&e))
    }

    /// Gets an SVID: by the key that this host joined with, else by its token.
    async fn svid(&mut self, at: SocketAddr) -> Result<(), NoWay> {
        if self.kept.belongs() {
            match self.ask(at, false).await {
                Err(CallError::Refused) if self.token.is_some() => {}
                outcome => return self.settle(outcome),
            }
        }
        match self.ask(at, true).await {
            // It may be that an earlier attempt did it, and the answer was lost.
            Err(CallError::Refused) => {
                let outcome = self.ask(at, false).await;
                self.settle(outcome)
            }
            outcome => self.settle(outcome),
        }
    }

    fn settle(&mut self, outcome: Result<(Vec<Der>, String, Welcome), CallError>) -> Result<(), NoWay> {
        let (roots, fence, welcome) = outcome.map_err(|e| match e {
            CallError::Refused => NoWay::Refused(format!(
                "control refuses host `{}`: it was removed, or its join token is used or has ended; make another with `ringfence host token {}` on the control host, where `ringfence events` says why",
                self.kept.host, self.kept.host
            )),
            e @ CallError::Stranger(..) => NoWay::Refused(e.to_string()),
            e => NoWay::Later(e.to_string()),
        })?;
        // The key that signs snapshots is learnt once: a control that is another's cannot bring its own later.
        let snapshot_key = self.kept.snapshot_key.take().unwrap_or(welcome.snapshot_key);
        self.kept.snapshot_key = Some(snapshot_key);
        (self.kept.fence, self.kept.chain, self.kept.not_after) = (fence, welcome.chain, welcome.not_after);
        if self.kept.roots.is_empty() {
            self.kept.roots = roots;
        }
        self.kept.write(&self.folder).map_err(|e| NoWay::Later(format!("cannot keep this host's SVID: {e}")))
    }

    /// Asks on a new connection, after whoever answers was found to be control.
    async fn ask(&self, at: SocketAddr, join: bool) -> Result<(Vec<Der>, String, Welcome), CallError> {
        let stranger = |why: &str| CallError::Stranger(at, why.to_owned());
        let nonsense = |e: &dyn std::fmt::Display| CallError::Nonsense(e.to_string());
        let introduced = Callee(at).introduce().await?;
        let trust = introduced.trust().clone();
        let believed = if self.kept.belongs() {
            self.kept.bundle().map_err(|e| nonsense(&e))?
        } else {
            let told = introduced.bundle()?;
            let Some(token) = &self.token else { return Err(CallError::Refused) };
            if token.trust_domain() != told.trust_domain() || !token.trusts(&told) {
                return Err(stranger("it is not the one that the join token names"));
            }
            told
        };
        let trust_domain = believed.trust_domain().clone();
        let mut control = introduced.prove(&Arc::new(believed))?;
        let id = SpiffeId::node(&trust_domain, &self.kept.host).map_err(|e| nonsense(&e))?;
        let spki: Der = self.key.verifying_key().to_spki().into();
        let prove = |subject: &str| possession::prove(&self.key, subject).map_err(|e| nonsense(&e));
        let proof: Der = prove(id.as_str())?.into();
        let welcome = if join {
            let Some(token) = &self.token else { return Err(CallError::Refused) };
            let token = Secret::new(token.to_text().expose().clone());
            control.join(&JoinAsk { token, spki, proof }).await?
        } else {
            let answer = prove(&come_back_subject(id.as_str(), &trust.challenge))?.into();
            control.come_back(&ComeBackAsk { host: self.kept.host.clone(), spki, answer, proof }).await?
        };
        Ok((trust.roots, trust.fence, welcome))
    }
}
