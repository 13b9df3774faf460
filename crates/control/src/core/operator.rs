//! What is asked over the control socket.

use axum::http::StatusCode;
use ringfence_keeper::protocol::{AuthorityStatus, Stage, Step, X509Request};
use ringfence_keys::{Algorithm, SigningKey, possession};
use ringfence_snapshot::Der;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::enforce::applied;
use super::{Core, data, internal, now, unavailable};
use crate::api::{Answer, Ask, Mint, Question, Rotate, RotateWhat};
use crate::keys::{AskKeys, Done};
use crate::refusal::Refusal;
use crate::revocations::{AskRevocations, Target};
use crate::supervisor::{Command, FromControl};

/// Longest life of an SVID that an operator may ask for, in seconds.
const MINT_LIFE: u64 = 24 * 3600;
/// Longest life of an SVID of a fenced service that an operator may ask for, in seconds: drills let it expire.
const DRILL_LIFE: u64 = 5;

impl Core {
    /// A question over the control socket. What takes long is answered later.
    pub(crate) async fn question(&mut self, (ask, answer): Question) {
        let ask = match ask {
            Ask::Mint(mint) => return self.mint(mint, answer),
            Ask::Sessions(ask) => return self.ask_sessions(ask, answer),
            Ask::Metrics(format) => return self.tell_metrics(format, answer),
            Ask::Store => {
                let about = self.state.about();
                tokio::spawn(async move { answer.send(Ok(about.await)) });
                return;
            }
            ask => ask,
        };
        let _ = answer.send(self.answer(ask).await);
    }

    async fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Status => Ok(self.status()),
            Ask::Stats => Ok(self.nodes.stats()),
            Ask::Fence => match &self.current {
                Some((snapshot, _)) => serde_json::to_value(applied(snapshot)).map_err(internal),
                None => Err((StatusCode::SERVICE_UNAVAILABLE, "no fence is in force yet".into())),
            },
            Ask::Ca => {
                let status = self.ca().map_err(unavailable)?.show().await.map_err(unavailable)?;
                serde_json::to_value(status).map_err(internal)
            }
            Ask::Rotate(rotate) => self.rotate(&rotate).await,
            Ask::Restart(service) => {
                let known = self.fence.as_ref().and_then(|f| f.service(&service)).is_some();
                if !known {
                    return Err((StatusCode::NOT_FOUND, format!("the fence has no service `{service}`")));
                }
                self.command(Command::Restart { service }).await
            }
            Ask::Keys(ask) => self.keys(ask).await,
            Ask::Hosts(ask) => self.hosts(ask).await,
            Ask::Revocations(ask) => self.revoke(ask).await,
            Ask::Down => self.command(Command::Down).await,
            // Taken out before.
            Ask::Mint(_) | Ask::Sessions(_) | Ask::Metrics(_) | Ask::Store => {
                Err((StatusCode::INTERNAL_SERVER_ERROR, "not here".into()))
            }
        }
    }

    /// Makes, shows and changes API keys; the event names the key's public part.
    async fn keys(&self, ask: AskKeys) -> Answer {
        let (value, done) =
            self.keys.answer(ask, now()).await.map_err(|Refusal(status, why)| (status, why))?;
        if let Some(Done { prefix, activity, message }) = done {
            self.entity("api_key", &prefix, activity, true, &message);
            if activity == 4 {
                // What was made of it goes with it.
                let revoked =
                    self.revocations.revoke(Target::api_key(&prefix), "operator", "key revoke", now());
                revoked.await.map_err(|Refusal(status, why)| (status, why))?;
            }
        }
        Ok(value)
    }

    /// Revokes, lists, and takes back.
    async fn revoke(&self, ask: AskRevocations) -> Answer {
        let refused = |Refusal(status, why)| (status, why);
        let removes = matches!(ask, AskRevocations::Remove(_));
        let value = match ask {
            AskRevocations::Revoke(revoke) => {
                let (Some(fence), Some((snapshot, _))) = (&self.fence, &self.current) else {
                    return Err((StatusCode::SERVICE_UNAVAILABLE, "no fence is in force yet".into()));
                };
                let target = revoke.target(fence, &snapshot.trust_domain, self.state.store(), now()).await;
                let target = target.map_err(refused)?;
                self.revocations.revoke(target, "operator", &revoke.why, now()).await.map_err(refused)?
            }
            ask => self.revocations.answer(ask).await.map_err(refused)?,
        };
        if self.tell_ca().await.map_err(internal)? && removes {
            // Whoever was refused asks at once.
            self.nodes.renew();
        }
        Ok(value)
    }

    async fn command(&self, command: Command) -> Answer {
        self.supervisor.send(&FromControl::Command(command), &[]).await.map_err(unavailable)?;
        Ok(json!({ "done": true }))
    }

    /// Issuing: one step. Root and keys: the next of prepare, activate, retire, each published before the following one.
    async fn rotate(&mut self, &Rotate { what, step }: &Rotate) -> Answer {
        let ca = self.ca().map_err(unavailable)?;
        let before = ca.show().await.map_err(unavailable)?;
        let next = |list: &[AuthorityStatus]| step.unwrap_or_else(|| next_step(list));
        let (name, status) = match what {
            RotateWhat::Issuing if step.is_some() => {
                return Err((StatusCode::BAD_REQUEST, "an issuing CA is rotated in one step".into()));
            }
            RotateWhat::Issuing => ("issuing", ca.rotate_issuing("operator").await),
            RotateWhat::Root => ("root", ca.rotate_root("operator", next(&before.roots)).await),
            RotateWhat::Jwt => ("jwt", ca.rotate_token("operator", next(&before.tokens)).await),
            RotateWhat::Txn => ("txn", ca.rotate_txn("operator", next(&before.txn)).await),
        };
        let status = status.map_err(|e| (StatusCode::CONFLICT, e.to_string()))?;
        self.entity(name, "rotate", 3, true, "rotated by the operator");
        self.refresh().await;
        self.nodes.renew();
        serde_json::to_value(status).map_err(internal)
    }

    fn mint(&self, mint: Mint, answer: oneshot::Sender<Answer>) {
        let Some((snapshot, _)) = &self.current else {
            let _ = answer.send(Err((StatusCode::SERVICE_UNAVAILABLE, "no fence is in force yet".into())));
            return;
        };
        let service = snapshot.service(&mint.service);
        // A fenced service's SVID leaves the Workload API only to be let run out, by a drill.
        let drill = mint.ttl <= DRILL_LIFE;
        let known = service.is_some_and(|s| drill || s.target != ringfence_snapshot::Target::Fenced);
        if !known {
            let why = match service {
                None => format!("`{}` is no service of the fence", mint.service),
                Some(_) => format!(
                    "`{}` is fenced and gets its SVIDs from the Workload API; here it gets none that lives longer than {DRILL_LIFE} s, for drills",
                    mint.service
                ),
            };
            let _ = answer.send(Err((StatusCode::FORBIDDEN, why)));
            return;
        }
        let id = format!("spiffe://{}/service/{}", snapshot.trust_domain, mint.service);
        let roots = snapshot.bundle.x509.clone();
        let why = if drill {
            "minted for a drill over the control socket"
        } else {
            "minted for the operator over the control socket"
        };
        self.entity("certificate", &id, 1, true, why);
        let ca = self.ca();
        tokio::spawn(async move {
            let minted = async {
                let ca = ca.map_err(unavailable)?;
                let key = SigningKey::generate(Algorithm::P256).map_err(internal)?;
                let request = X509Request {
                    spki: key.verifying_key().to_spki().into(),
                    proof: possession::prove(&key, &id).map_err(internal)?.into(),
                    ttl: mint.ttl.min(MINT_LIFE),
                    id: id.clone(),
                };
                let svid = ca.issue(request).await.map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
                let key = key.to_pkcs8().map_err(internal)?;
                let key = Der(key.expose().to_vec());
                Ok(
                    json!({ "id": id, "chain": svid.chain, "key": key, "roots": roots, "not_after": svid.not_after }),
                )
            };
            let _ = answer.send(minted.await);
        });
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
        let waf = self.fence.as_ref().and_then(|fence| {
            let (waf, rules) = (fence.waf.as_ref()?, self.contents.rules()?);
            Some(json!({ "mode": waf.mode, "rules": rules }))
        });
        let server = self.fence.as_ref().and_then(data::server);
        let entities = server.map(|server| self.entities.status(server));
        json!({
            "report": self.report,
            "snapshot": snapshot,
            "nodes": self.nodes.status(),
            "entities": entities,
            "waf": waf,
            "store": self.state.known(),
        })
    }
}

/// The step of a rotation that comes next.
fn next_step(roots: &[AuthorityStatus]) -> Step {
    if roots.iter().any(|r| r.stage == Stage::Prepared) {
        Step::Activate
    } else if roots.iter().any(|r| r.stage == Stage::Retiring) {
        Step::Retire { force: false }
    } else {
        Step::Prepare
    }
}
