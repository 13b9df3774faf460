//! What control is asked and told: certificates, questions of threads, and what happened.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringfence_channel::Sender;
use ringfence_snapshot::node::{FromProxy, Handshakes, Issued, MAX_API_KEYS, Stats};
use ringfence_tls::HandshakeSnapshot;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::Node;
use crate::access::Uses;
use crate::asks::{Asked, Open};
use crate::identity::Arrived;
use crate::stats;
use crate::worker::unix_now;

/// How often due certificates are looked for.
const RENEW: Duration = Duration::from_millis(100);
/// How often control is told what happened.
const STATS: Duration = Duration::from_secs(1);
/// How often it is looked at what services have not said again.
const LEASES: Duration = Duration::from_secs(1);
/// How often control is told which API keys were used.
const USES: Duration = Duration::from_secs(20);

impl Node {
    /// The channel to control, if there is one.
    fn upward(&self) -> Option<Sender<FromProxy>> {
        self.control.borrow().as_ref().map(|(sender, _)| sender.clone())
    }

    /// Passes on which API keys were used.
    pub(super) async fn uses(self: Rc<Self>) {
        let mut uses = Uses::default();
        loop {
            tokio::time::sleep(USES).await;
            let sender = self.upward();
            let Some(sender) = sender else { continue };
            for used in uses.fresh(&self.shared.api_keys, unix_now()).chunks(MAX_API_KEYS) {
                let _ = sender.send(&FromProxy::Used(used.to_vec()), &[]).await;
            }
        }
    }

    /// Passes on which keys are missing.
    pub(super) async fn want_keys(self: Rc<Self>, mut wanted: mpsc::Receiver<Arc<str>>) {
        while let Some(provider) = wanted.recv().await {
            let sender = self.upward();
            if let Some(sender) = sender {
                let _ = sender.send(&FromProxy::WantKeys { provider: provider.to_string() }, &[]).await;
            }
        }
    }

    /// Passes on what threads ask.
    pub(super) async fn asks(self: Rc<Self>, mut asked: mpsc::Receiver<Asked>) {
        while let Some(asked) = asked.recv().await {
            let sender = self.upward();
            let Some(sender) = sender else {
                Open::refuse(asked);
                continue;
            };
            let entered = self.open.borrow_mut().enter(asked);
            let Some((request, ask)) = entered else { continue };
            if sender.send(&FromProxy::Ask { request, ask }, &[]).await.is_err() {
                self.open.borrow_mut().answered(request, Err(Open::gone()));
            }
        }
    }

    pub(super) fn certificate(&self, request: u64, outcome: Result<Issued, String>) {
        let Some((name, arrived)) = self.renewer.borrow_mut().answered(request, outcome) else { return };
        match arrived {
            // It was issued in the second of the revocation; the one after will not have been.
            Ok(Arrived::Identity(identity)) if self.shared.mesh.is_revoked(&identity) => {
                self.renewer.borrow_mut().again(&name);
                self.entity("certificate", &name, 1, false, "it was revoked before it came");
            }
            Ok(Arrived::Identity(identity)) => {
                self.shared.mesh.put_identity(identity);
                self.shared.identities.notify_waiters();
                self.entity("certificate", &name, 3, true, "in use");
            }
            Ok(Arrived::Serving(certificate)) => {
                *self.serving.borrow_mut() = Some(certificate);
                self.choose_certificate();
                self.entity("certificate", &name, 3, true, "in use at the gateway");
            }
            Err(reason) => self.entity("certificate", &name, 1, false, &reason),
        }
    }

    pub(super) fn ask(&self) {
        let Some((sender, _)) = &*self.control.borrow() else { return };
        let questions = self.renewer.borrow_mut().due();
        if !questions.is_empty() {
            let sender = sender.clone();
            spawn_local(async move {
                for question in questions {
                    if sender.send(&question, &[]).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    pub(super) async fn renew(self: Rc<Self>) {
        loop {
            tokio::time::sleep(RENEW).await;
            self.ask();
        }
    }

    /// What services say of themselves ends when they do not say it again.
    pub(super) async fn leases(self: Rc<Self>) {
        loop {
            tokio::time::sleep(LEASES).await;
            self.shared.registry.tick(self.shared.registry_ms());
        }
    }

    pub(super) async fn report(self: Rc<Self>) {
        loop {
            tokio::time::sleep(STATS).await;
            let sender = self.upward();
            if let Some(sender) = sender {
                let _ = sender.send(&FromProxy::Stats(self.stats()), &[]).await;
            }
        }
    }

    fn stats(&self) -> Stats {
        let shards = self.shared.shards();
        let (revision, stale) = match &*self.table.borrow() {
            Some(table) => (table.snapshot.revision, unix_now() >= table.fresh_until),
            None => (0, true),
        };
        let (outside, inside) =
            (self.shared.gateway_metrics.snapshot(), self.shared.mesh.metrics().snapshot());
        let groups = inside
            .groups
            .iter()
            .zip(outside.groups)
            .map(|((group, a), (_, b))| (group.as_str().to_owned(), a + b));
        let faulty = self.table.borrow().as_ref().map_or_else(Vec::new, |table| table.faulty());
        let breakers = self.shared.breakers.stats();
        Stats {
            revision,
            stale,
            connections: shards.iter().map(|s| s.open_connections()).sum(),
            events: (self.writer.stats().written(), self.writer.stats().dropped()),
            groups: groups.filter(|(_, n)| *n > 0).collect(),
            handshakes: vec![handshakes("gateway", &outside), handshakes("mesh", &inside)],
            refusals: stats::refusals(&shards),
            edges: self.shared.with_interner(|interner| stats::sum(&shards, interner, &breakers, &faulty)),
            certificates: self.renewer.borrow().certificates(),
        }
    }
}

fn handshakes(listener: &str, counted: &HandshakeSnapshot) -> Handshakes {
    let groups = counted.groups.iter().filter(|(_, n)| *n > 0);
    Handshakes {
        listener: listener.to_owned(),
        groups: groups.map(|(group, n)| (group.as_str().to_owned(), *n)).collect(),
        versions: (counted.tls12, counted.tls13),
        failed: counted.failed,
    }
}
