//! Control's one loop: every change of state passes through here, one at a time.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use ringfence_ca::Ca;
use ringfence_channel::Sender;
use ringfence_event::{Emitter, Entity, Event, Kind};
use ringfence_keeper::protocol::Step;
use ringfence_model::Fence;
use ringfence_snapshot::node::{FromProxy, Issued, Subject, ToProxy};
use ringfence_snapshot::{Addresses, Header, SignedSnapshot, Snapshot, compile};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::ControlError;
use crate::api::{Answer, Ask, Mint, Question, Rotate, RotateWhat};
use crate::nodes::{NodeNews, Nodes, may_hold};
use crate::state::State;
use crate::supervisor::{Applied, Command, FromControl, Report, ToControl};

/// Seconds that a snapshot is valid, and seconds that enforcement points may run from it without hearing from control.
const SNAPSHOT_LIFE: u64 = 24 * 3600;
const LEASE: u64 = 3600;
/// A new revision is made this often even if nothing changed, so that the lease never runs out while control lives.
pub(crate) const REFRESH: Duration = Duration::from_secs(LEASE / 6);
/// Life of certificates that proxies ask for, in seconds.
const SVID_LIFE: u64 = 3600;
const SERVING_LIFE: u64 = 7 * 24 * 3600;

/// Everything that control knows.
pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) ca: Ca,
    pub(crate) nodes: Nodes,
    pub(crate) supervisor: Sender<FromControl>,
    pub(crate) emitter: Emitter,
    pub(crate) lives: Lives,
    pub(crate) fence: Option<Fence>,
    pub(crate) current: Option<(Snapshot, SignedSnapshot)>,
    pub(crate) report: Report,
    pub(crate) workloads: HashMap<String, tokio::task::JoinHandle<()>>,
    pub(crate) offered: Vec<(String, String)>,
}

/// Lives of certificates in seconds; a test shortens them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lives {
    pub(crate) svid: u64,
    pub(crate) serving: u64,
}

impl Default for Lives {
    fn default() -> Self {
        Self { svid: SVID_LIFE, serving: SERVING_LIFE }
    }
}

impl Core {
    /// A message of the supervisor.
    pub(crate) async fn supervisor(&mut self, message: ToControl, fds: Vec<OwnedFd>) -> Result<(), ControlError> {
        let mut fds = fds.into_iter();
        match (message, fds.next()) {
            (ToControl::Keeper, Some(fd)) => {
                self.ca.connect(fd.into())?;
                if let Some(fence) = self.fence.take() {
                    self.fence = Some(fence);
                    self.refresh().await;
                } else if !self.offered.is_empty() {
                    let files = std::mem::take(&mut self.offered);
                    self.fence(files).await?;
                }
            }
            (ToControl::Proxy { node }, Some(fd)) => {
                self.nodes.connect(&node, fd.into())?;
                if let (Some(sender), Some((_, signed))) = (self.nodes.sender(&node), &self.current) {
                    let _ = sender.send(&ToProxy::Snapshot(signed.clone()), &[]).await;
                }
            }
            (ToControl::Workload { service, netns }, Some(fd)) => self.workload(service, netns, fd),
            (ToControl::WorkloadGone { service }, _) => {
                if let Some(task) = self.workloads.remove(&service) {
                    task.abort();
                }
            }
            (ToControl::Fence { files }, _) => {
                if self.ca.connected() {
                    self.fence(files).await?;
                } else {
                    // The keeper comes in a moment.
                    self.offered = files;
                }
            }
            (ToControl::Report(report), _) => self.report = report,
            (ToControl::Start { .. }, _) => return Err(ControlError::Protocol("started twice")),
            (ToControl::Keeper | ToControl::Proxy { .. } | ToControl::Workload { .. }, None) => {
                return Err(ControlError::Protocol("a descriptor is missing"));
            }
        }
        Ok(())
    }

    /// Takes a fence if it is valid; otherwise the one before stays.
    async fn fence(&mut self, files: Vec<(String, String)>) -> Result<(), ControlError> {
        let outcome = match Fence::parse(files) {
            Err(diagnostics) => Err(diagnostics.to_string()),
            Ok(fence) => match self.put_in_force(&fence).await {
                Ok(applied) => {
                    self.fence = Some(fence);
                    Ok(applied)
                }
                Err(e) => Err(e.to_string()),
            },
        };
        if let Err(reason) = &outcome {
            self.entity("fence", "refused", 3, false, reason);
        }
        self.supervisor.send(&FromControl::Fence(outcome), &[]).await?;
        Ok(())
    }

    /// Compiles, has it signed, stores it, and only then publishes it.
    async fn put_in_force(&mut self, fence: &Fence) -> Result<Applied, ControlError> {
        let bundle = self.ca.bundle().await?;
        let now = now();
        let mut addresses = self.state.addresses().await?;
        let floor = self.ca.keeper()?.status().await?.signed;
        let (epoch, revision) = self.state.next_revision(floor).await?;
        let header =
            Header { epoch, revision, issued_at: now, expires_at: now + SNAPSHOT_LIFE, lease: LEASE, bundle };
        let snapshot = compile(fence, &mut addresses, header)?;
        let bytes = serde_json::to_string(&snapshot).map_err(ControlError::Encode)?;
        let signed = self.ca.keeper()?.sign_snapshot(bytes).await?;
        self.state.store_snapshot(&addresses, &signed, (epoch, revision)).await?;
        let pem: String = snapshot.bundle.serving.iter().map(|der| pem("CERTIFICATE", &der.0)).collect();
        self.supervisor.send(&FromControl::Trust(pem), &[]).await?;
        self.entity("snapshot", &revision.to_string(), 1, true, "signed and in force");
        self.nodes.publish(&signed);
        let applied = applied(&snapshot, &addresses);
        self.ca.follow(&snapshot);
        self.current = Some((snapshot, signed));
        Ok(applied)
    }

    /// The same fence in a new revision: the lease, the bundle or the keeper is new.
    pub(crate) async fn refresh(&mut self) {
        let Some(fence) = self.fence.take() else { return };
        if let Err(e) = self.put_in_force(&fence).await {
            // The one in force lasts for another while; the next tick tries again.
            self.entity("snapshot", "refresh", 3, false, &e.to_string());
        }
        self.fence = Some(fence);
    }

    /// A message of a proxy.
    pub(crate) fn proxy(&mut self, (node, connection, message): NodeNews) {
        if !self.nodes.is_current(&node, connection) {
            return;
        }
        let Some(message) = message else { return self.nodes.disconnect(&node) };
        let Some(FromProxy::Sign { request, subject, spki, proof }) = self.nodes.note(&node, message) else { return };
        let Some(sender) = self.nodes.sender(&node) else { return };
        let allowed = match &self.current {
            Some((snapshot, _)) => may_hold(snapshot, &node, &subject),
            None => Err("no fence is in force yet".into()),
        };
        let name = match &subject {
            Subject::Svid(id) => id.clone(),
            Subject::Serving(hosts) => hosts.join(","),
        };
        if let Err(reason) = &allowed {
            self.entity("certificate", &name, 1, false, reason);
        }
        let (ca, lives, emitter) = (self.ca.clone(), self.lives, self.emitter.clone());
        tokio::spawn(async move {
            let outcome = match (allowed, subject) {
                (Err(reason), _) => Err(reason),
                (Ok(()), Subject::Svid(id)) => ca.issue(id, spki, proof, lives.svid).await.map_err(|e| e.to_string()),
                (Ok(()), Subject::Serving(hosts)) => {
                    ca.issue_serving(hosts, spki, proof, lives.serving).await.map_err(|e| e.to_string())
                }
            };
            let outcome = outcome.map(|leaf| {
                emitter.emit(&Event::new(Kind::Entity(Entity {
                    entity: "certificate",
                    name: &name,
                    uid: Some(&leaf.serial),
                    activity: 1,
                    granted: true,
                    message: "issued",
                })));
                Issued { chain: leaf.chain, not_after: leaf.not_after }
            });
            let _ = sender.send(&ToProxy::Signed { request, outcome }, &[]).await;
        });
    }

    /// A question over the control socket. What takes long is answered later.
    pub(crate) async fn question(&mut self, (ask, answer): Question) {
        if let Ask::Mint(mint) = ask {
            return self.mint(mint, answer);
        }
        let _ = answer.send(self.answer(ask).await);
    }

    async fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Status => Ok(self.status()),
            Ask::Stats => Ok(self.nodes.stats()),
            Ask::Fence => match &self.current {
                Some((snapshot, _)) => {
                    let addresses = self.state.addresses().await.map_err(internal)?;
                    serde_json::to_value(applied(snapshot, &addresses)).map_err(internal)
                }
                None => Err((StatusCode::SERVICE_UNAVAILABLE, "no fence is in force yet".into())),
            },
            Ask::Ca => {
                let status = self.ca.keeper().map_err(unavailable)?.status().await.map_err(unavailable)?;
                serde_json::to_value(status).map_err(internal)
            }
            Ask::Rotate(Rotate { what }) => self.rotate(what).await,
            Ask::Restart(service) => {
                let known = self.fence.as_ref().and_then(|f| f.service(&service)).is_some();
                if !known {
                    return Err((StatusCode::NOT_FOUND, format!("the fence has no service `{service}`")));
                }
                self.command(Command::Restart { service }).await
            }
            Ask::Down => self.command(Command::Down).await,
            // Taken out before.
            Ask::Mint(_) => Err((StatusCode::INTERNAL_SERVER_ERROR, "not here".into())),
        }
    }

    async fn command(&self, command: Command) -> Answer {
        self.supervisor.send(&FromControl::Command(command), &[]).await.map_err(unavailable)?;
        Ok(json!({ "done": true }))
    }

    /// Issuing: one step. Root: the next of prepare, activate, retire, each published before the following one.
    async fn rotate(&mut self, what: RotateWhat) -> Answer {
        let keeper = self.ca.keeper().map_err(unavailable)?;
        let status = match what {
            RotateWhat::Issuing => keeper.rotate_issuing().await,
            RotateWhat::Root => {
                let before = keeper.status().await.map_err(unavailable)?;
                keeper.rotate_root(next_step(&before.roots)).await
            }
        };
        let status = status.map_err(|e| (StatusCode::CONFLICT, e.to_string()))?;
        self.entity(if what == RotateWhat::Root { "root" } else { "issuing" }, "rotate", 3, true, "rotated by the operator");
        self.refresh().await;
        self.nodes.renew();
        serde_json::to_value(status).map_err(internal)
    }

    fn mint(&self, mint: Mint, answer: oneshot::Sender<Answer>) {
        let Some((snapshot, _)) = &self.current else {
            let _ = answer.send(Err((StatusCode::SERVICE_UNAVAILABLE, "no fence is in force yet".into())));
            return;
        };
        let known = snapshot.service(&mint.service).is_some_and(|s| s.target != ringfence_snapshot::Target::Fenced);
        if !known {
            let why = format!(
                "`{}` is no external service of the fence; fenced services get their SVIDs from the Workload API",
                mint.service
            );
            let _ = answer.send(Err((StatusCode::FORBIDDEN, why)));
            return;
        }
        let id = format!("spiffe://{}/service/{}", snapshot.trust_domain, mint.service);
        let roots = snapshot.bundle.x509.clone();
        self.entity("certificate", &id, 1, true, "minted for the operator over the control socket");
        let ca = self.ca.clone();
        tokio::spawn(async move {
            let minted = ca.mint(id, mint.ttl).await.map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()));
            let value = minted.map(|svid| {
                json!({ "id": svid.id, "chain": svid.chain, "key": svid.key, "roots": roots, "not_after": svid.not_after })
            });
            let _ = answer.send(value);
        });
    }

    fn workload(&mut self, service: String, netns: u64, fd: OwnedFd) {
        if let Some(task) = self.workloads.remove(&service) {
            task.abort();
        }
        match self.ca.serve_workload(&service, netns, fd) {
            Ok(task) => drop(self.workloads.insert(service, task)),
            Err(e) => self.entity("workload-api", &service, 1, false, &e.to_string()),
        }
    }

    fn status(&self) -> Value {
        let snapshot = self.current.as_ref().map(|(s, _)| {
            json!({
                "trust_domain": s.trust_domain,
                "epoch": s.epoch,
                "revision": s.revision,
                "issued_at": s.issued_at,
                "expires_at": s.expires_at,
                "services": s.services.len(),
                "edges": s.services.iter().map(|s| s.calls.len()).sum::<usize>(),
            })
        });
        json!({ "report": self.report, "snapshot": snapshot, "nodes": self.nodes.status() })
    }

    fn entity(&self, entity: &str, name: &str, activity: u8, granted: bool, message: &str) {
        let revision = self.current.as_ref().map_or(0, |(s, _)| s.revision);
        let kind = Kind::Entity(Entity { entity, name, uid: None, activity, granted, message });
        self.emitter.emit(&Event::new(kind).revision(revision));
    }
}

/// The step of a root rotation that comes next.
fn next_step(roots: &[ringfence_keeper::protocol::AuthorityStatus]) -> Step {
    use ringfence_keeper::protocol::Stage;
    if roots.iter().any(|r| r.stage == Stage::Prepared) {
        Step::Activate
    } else if roots.iter().any(|r| r.stage == Stage::Retiring) {
        Step::Retire { force: false }
    } else {
        Step::Prepare
    }
}

fn applied(snapshot: &Snapshot, addresses: &Addresses) -> Applied {
    let egress = snapshot.services.iter().flat_map(|s| &s.egress);
    let mut hosts: Vec<(String, u16)> =
        egress.filter_map(|e| Some((e.rule.host.clone(), addresses.egress(&e.rule.host)?))).collect();
    hosts.sort();
    hosts.dedup();
    Applied {
        revision: snapshot.revision,
        services: snapshot.services.iter().map(|s| (s.name.clone(), s.address)).collect(),
        egress: hosts,
    }
}

/// PEM (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn internal(e: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
}

fn unavailable(e: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, e.to_string())
}

/// The receiving ends of everything that control waits for.
pub(crate) struct Inboxes {
    pub(crate) proxies: mpsc::Receiver<NodeNews>,
    pub(crate) questions: mpsc::Receiver<Question>,
}
