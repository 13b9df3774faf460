//! From a fence as it was read to a signed snapshot that is in force.

use std::collections::HashSet;

use ringfence_model::Fence;
use ringfence_oidc::protocol::EntitiesConfig;
use ringfence_snapshot::{Bundle, Content, Header, Policies, Snapshot, compile};

use super::{Core, LEASE, SNAPSHOT_LIFE, now};
use crate::ControlError;
use crate::beside::understood;
use crate::pem::pem;
use crate::policies::judged;
use crate::supervisor::{Applied, Beside, FromControl};

/// A fence as it was read.
pub(crate) struct Offer {
    pub(crate) files: Vec<(String, String)>,
    /// Its policies, or why there are none.
    pub(crate) policies: Result<Option<Policies>, String>,
    /// What else lies beside it, or why that cannot be read.
    pub(crate) beside: Result<Beside, String>,
    /// Rules and descriptions, or why they cannot be read.
    pub(crate) content: Result<Vec<Content>, String>,
}

impl Core {
    /// Takes a fence if it is valid; otherwise the one before stays.
    pub(super) async fn fence(&mut self, offer: Offer) -> Result<(), ControlError> {
        match self.with_data(offer).await? {
            Some((offer, server)) => self.answer_offer(offer, server).await.map(drop),
            None => Ok(()),
        }
    }

    /// Takes a fence that has all it needs; whether it was taken. `server` has its entity data.
    pub(super) async fn answer_offer(
        &mut self,
        offer: Offer,
        server: Option<EntitiesConfig>,
    ) -> Result<bool, ControlError> {
        let outcome = self.take(offer).await;
        self.contents.settle();
        let taken = outcome.is_ok();
        match &outcome {
            Ok(_) => self.server = server,
            Err(reason) => self.entity("fence", "refused", 3, false, reason),
        }
        self.federation.ask_for_entities(self.server.clone());
        self.supervisor.send(&FromControl::Fence(outcome), &[]).await?;
        Ok(taken)
    }

    async fn take(&mut self, offer: Offer) -> Result<Applied, String> {
        let Offer { files, policies, beside, content } = offer;
        let fence = Fence::parse(files).map_err(|diagnostics| diagnostics.to_string())?;
        let policies = judged(&fence, policies)?;
        let beside = understood(&fence, beside)?;
        let content = self.contents.judged(&fence, content)?;
        let before = (
            std::mem::replace(&mut self.authorities, beside.authorities),
            self.contents.put_in_force(content),
        );
        let applied = match self.put_in_force(&fence, policies.as_ref()).await {
            Ok(applied) => applied,
            Err(e) => {
                self.authorities = before.0;
                self.contents.put_in_force(before.1);
                return Err(e.to_string());
            }
        };
        self.nodes.keep_keys(|provider| fence.provider(provider).is_some());
        self.federation.follow(&fence, &beside.providers);
        self.providers = fence.providers.clone().into();
        (self.fence, self.policies) = (Some(fence), policies);
        Ok(applied)
    }

    /// Compiles, has it signed, stores it, and only then publishes it.
    pub(super) async fn put_in_force(
        &mut self,
        fence: &Fence,
        policies: Option<&Policies>,
    ) -> Result<Applied, ControlError> {
        let ca = self.ca()?;
        let bundle = Bundle::clone(&ca.bundle().borrow());
        let now = now();
        let mut addresses = self.state.addresses().await?;
        let floor = ca.show().await?.signed;
        let (epoch, revision) = self.state.next_revision(floor).await?;
        let header =
            Header { epoch, revision, issued_at: now, expires_at: now + SNAPSHOT_LIFE, lease: LEASE, bundle };
        let mut snapshot = compile(fence, &mut addresses, header)?;
        snapshot.policies = policies.cloned();
        snapshot.authorities.clone_from(&self.authorities);
        snapshot.content = self.contents.in_force().to_vec();
        let bytes = serde_json::to_string(&snapshot).map_err(ControlError::Encode)?;
        let signed = ca.sign_snapshot(bytes).await?;
        self.state.store_snapshot(&addresses, &signed, (epoch, revision)).await?;
        let pem: String = snapshot.bundle.serving.iter().map(|der| pem("CERTIFICATE", &der.0)).collect();
        self.federation.set_gateway_authority(&pem);
        self.supervisor.send(&FromControl::Trust(pem), &[]).await?;
        self.entity("snapshot", &revision.to_string(), 1, true, "signed and in force");
        // Whoever the fence names no more is told no more.
        for host in self.nodes.joined() {
            if snapshot.host(&host).is_none_or(|host| host.control.is_some()) {
                self.nodes.disconnect(&host);
                self.entity("host", &host, 4, true, "is not in the fence any more: it is told nothing");
            }
        }
        self.nodes.publish(&signed, self.contents.parcel(), gateways(&snapshot));
        self.joined.follow(&snapshot);
        let applied = applied(&snapshot);
        self.current = Some((snapshot, signed));
        self.joined.start(&ca)?;
        Ok(applied)
    }

    /// The same fence in a new revision: the lease, the bundle or the keeper is new.
    pub(crate) async fn refresh(&mut self) {
        let Some(fence) = self.fence.take() else { return };
        let policies = self.policies.take();
        if let Err(e) = self.put_in_force(&fence, policies.as_ref()).await {
            // The one in force lasts for another while; the next tick tries again.
            self.entity("snapshot", "refresh", 3, false, &e.to_string());
        }
        (self.fence, self.policies) = (Some(fence), policies);
    }
}

/// The hosts with a gateway; none where there is one machine.
fn gateways(snapshot: &Snapshot) -> Option<HashSet<String>> {
    let names = snapshot.hosts.iter().map(|host| host.name.clone());
    (!snapshot.hosts.is_empty()).then(|| names.filter(|name| snapshot.gateway_at(name)).collect())
}

/// What the supervisor is told of a snapshot in force.
pub(crate) fn applied(snapshot: &Snapshot) -> Applied {
    let egress = snapshot.services.iter().flat_map(|s| &s.egress);
    let mut hosts: Vec<(String, u16)> = egress.map(|e| (e.rule.host.clone(), e.address)).collect();
    hosts.sort();
    hosts.dedup();
    Applied {
        revision: snapshot.revision,
        services: snapshot.services.iter().map(|s| (s.name.clone(), s.address)).collect(),
        egress: hosts,
    }
}
