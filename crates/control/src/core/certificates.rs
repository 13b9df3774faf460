//! Who gets certificates: nodes, and services over the Workload API.

use std::os::fd::OwnedFd;

use ringfence_ca::workload::{WorkloadEvent, WorkloadListener};
use ringfence_ca::{Ca, IssuedSvid};
use ringfence_event::{Entity, Event, Kind};
use ringfence_keeper::protocol::X509Request;
use ringfence_keys::Secret;
use ringfence_snapshot::Der;
use ringfence_snapshot::node::{Issued, Subject, ToProxy};

use super::Core;
use crate::ControlError;
use crate::nodes::may_hold;
use crate::revocations::SVID_BACKDATE;

/// Most audiences of a JWT-SVID, and the longest in bytes.
const MAX_AUDIENCES: usize = 64;
const MAX_AUDIENCE: usize = 2048;

impl Core {
    /// Has a certificate signed for a proxy that may have it.
    pub(super) fn sign(&self, node: &str, request: u64, subject: Subject, spki: Der, proof: Der) {
        let Some(sender) = self.nodes.sender(node) else { return };
        let Some(turn) = self.nodes.turn(node, &subject, &spki, &proof) else {
            let reason = "the node asks for more than any honest one does: a request was dropped";
            return self.entity("certificate", node, 1, false, reason);
        };
        let allowed = match &self.current {
            Some((snapshot, _)) => may_hold(snapshot, node, &subject),
            None => Err("no fence is in force yet".into()),
        };
        let name = match &subject {
            Subject::Svid(id) => id.clone(),
            Subject::Serving(hosts) => hosts.join(","),
        };
        let seat = self.nodes.seat(node);
        let (ca, lives, emitter) = (self.ca().ok(), self.lives, self.emitter.clone());
        tokio::spawn(async move {
            let outcome = match (allowed, ca, subject) {
                (Err(reason), ..) => Err(reason),
                (Ok(()), None, _) => Err("the keeper is not there yet".into()),
                (Ok(()), Some(ca), Subject::Svid(id)) => {
                    let request = X509Request { id, spki, proof, ttl: lives.svid_life };
                    ca.issue(request).await.map_err(|e| e.to_string())
                }
                (Ok(()), Some(ca), Subject::Serving(hosts)) => {
                    ca.issue_serving(hosts, spki, proof).await.map_err(|e| e.to_string())
                }
            };
            // A host that was removed meanwhile gets nothing any more: the store says so in the same transaction.
            let outcome = match (outcome, seat) {
                (Ok(svid), Some(seat)) => {
                    seat.issue(Vec::new()).await.map(|_| svid).map_err(|e| e.to_string())
                }
                (outcome, _) => outcome,
            };
            let (granted, message) = match &outcome {
                Ok(_) => (true, "issued to the node"),
                Err(reason) => (false, reason.as_str()),
            };
            let uid = outcome.as_ref().ok().map(|svid| svid.serial.as_str());
            let entity = Entity { entity: "certificate", name: &name, uid, activity: 1, granted, message };
            emitter.emit(&Event::new(Kind::Entity(entity)));
            let outcome =
                outcome.map(|svid: IssuedSvid| Issued { chain: svid.chain, not_after: svid.not_after });
            let _ = sender.send(&ToProxy::Signed { request, outcome }).await;
            drop(turn);
        });
    }

    /// Has a JWT-SVID signed for a caller of the Workload API on a host that joined.
    pub(super) fn sign_jwt(&self, node: &str, request: u64, id: String, audiences: Vec<String>) {
        let (Some(sender), Some(seat)) = (self.nodes.sender(node), self.nodes.seat(node)) else { return };
        let none = Der(Vec::new());
        let subject = Subject::Svid(id);
        let long = audiences.len() > MAX_AUDIENCES || audiences.iter().any(|a| a.len() > MAX_AUDIENCE);
        let Some(turn) = self.nodes.turn(node, &subject, &none, &none).filter(|_| !long) else {
            let reason = "the host asks for more than any honest one does: a request was dropped";
            return self.entity("certificate", node, 1, false, reason);
        };
        let allowed = match &self.current {
            Some((snapshot, _)) => may_hold(snapshot, node, &subject),
            None => Err("no fence is in force yet".into()),
        };
        let Subject::Svid(id) = subject else { return };
        let (ca, emitter) = (self.ca().ok(), self.emitter.clone());
        tokio::spawn(async move {
            let outcome = match (allowed, ca) {
                (Err(reason), _) => Err(reason),
                (Ok(()), None) => Err("the keeper is not there yet".into()),
                (Ok(()), Some(ca)) => match ca.sign_jwt(&id, audiences).await {
                    Ok(signed) => seat.issue(Vec::new()).await.map(|_| signed).map_err(|e| e.to_string()),
                    Err(e) => Err(e.to_string()),
                },
            };
            let (granted, message) = match &outcome {
                Ok(_) => (true, "a JWT-SVID for the Workload API of the host"),
                Err(reason) => (false, reason.as_str()),
            };
            let entity =
                Entity { entity: "certificate", name: &id, uid: None, activity: 1, granted, message };
            emitter.emit(&Event::new(Kind::Entity(entity)));
            let outcome = outcome.map(|(token, ends_at)| (Secret::new(token), ends_at));
            let _ = sender.send(&ToProxy::SignedJwt { request, outcome }).await;
            drop(turn);
        });
    }

    /// Tells the CA which identities were revoked; whether that was news to it.
    pub(crate) async fn tell_ca(&self) -> Result<bool, ringfence_store::StoreError> {
        let Ok(ca) = self.ca() else { return Ok(false) };
        // Revocations are by the beginning of certificates, which is before they are issued.
        let issued = |(id, begun): (String, u64)| (id, begun.saturating_add(SVID_BACKDATE));
        let svids = self.revocations.svids().await?;
        self.joined.set_revoked(svids.iter().cloned());
        Ok(ca.set_revoked(svids.into_iter().map(issued)))
    }

    /// Something happened on a Workload API socket.
    pub(crate) fn workload_event(&self, event: &WorkloadEvent) {
        workload_event(event, |entity, name, activity, granted, message| {
            self.entity(entity, name, activity, granted, message);
        });
    }

    pub(super) fn workload(&mut self, service: String, netns: u64, fd: OwnedFd) {
        let Some(authority) = &self.ca else {
            self.waiting.retain(|(name, ..)| *name != service);
            return self.waiting.push((service, netns, fd));
        };
        let listener = WorkloadListener { service: service.clone(), listener: fd.into(), netns_inode: netns };
        match authority.workload.serve(listener) {
            Ok(serving) => drop(self.workloads.insert(service, serving)),
            Err(e) => self.entity("workload", &service, 1, false, &e.to_string()),
        }
    }

    pub(crate) fn ca(&self) -> Result<Ca, ControlError> {
        self.ca.as_ref().map(|authority| authority.ca.clone()).ok_or(ControlError::NoKeeper)
    }
}

/// Says what happened on a Workload API socket.
pub(crate) fn workload_event(event: &WorkloadEvent, entity: impl FnOnce(&str, &str, u8, bool, &str)) {
    match event {
        WorkloadEvent::Attested { service, workload, digest } => {
            let digest = digest.as_deref().unwrap_or("unreadable");
            let message = format!(
                "attested: pid {}, uid {}, program {} (sha256 {digest}), cgroup {}",
                workload.pid, workload.uid, workload.program, workload.cgroup
            );
            entity("workload", service, 2, true, &message);
        }
        WorkloadEvent::Refused { service, pid, uid, reason } => {
            entity("workload", service, 2, false, &format!("pid {pid}, uid {uid} got nothing: {reason}"));
        }
        WorkloadEvent::Issued { service, kind, serial, .. } => {
            let message = format!("{kind} over the Workload API, serial {serial}");
            entity("certificate", service, 1, true, &message);
        }
        _ => {}
    }
}
