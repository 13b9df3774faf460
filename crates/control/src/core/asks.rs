//! Questions of proxies on behalf of requests, and of operators about sessions: bounded, and never answered in control's loop.

use axum::http::StatusCode;
use ringfence_keeper::protocol::DataPurpose;
use ringfence_keys::Secret;
use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Shown, ToProxy, Told};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Core, internal, now, unavailable};
use crate::api::Answer;
use crate::mint::{Minter, may_mint};
use crate::signin::{Ground, SignIns};

/// Most sessions that one answer lists.
const PAGE: usize = 1000;
/// Cookies are sealed under another key each day; no session outlives the day after.
const COOKIE_DAY: u64 = 24 * 3600;

/// A question about sessions.
#[derive(Clone, Debug)]
pub(crate) enum AskSessions {
    List { after: String },
    End(String),
}

impl Core {
    /// Answers a question of a node.
    pub(super) fn ask(&self, node: &str, request: u64, ask: Ask) {
        let Some(sender) = self.nodes.sender(node) else { return };
        let Some(place) = self.nodes.place(node) else {
            let reason = "the node asks for more than any honest one does: a question was dropped";
            return self.entity("session", node, 2, false, reason);
        };
        let (ground, signins, minter) = (self.ground(), self.signins.clone(), self.minter.clone());
        let mintable = match (&ask, &self.current) {
            (Ask::Mint(mint), Some((snapshot, _))) => may_mint(node, snapshot, mint),
            (Ask::Mint(_), None) => Err(NoAnswer::new(NoAnswerCode::Unavailable, "no fence is in force yet")),
            (Ask::Introspect { .. }, _) => Ok(()),
            // People sign in at a gateway, and sessions are shown nowhere else.
            (_, Some((snapshot, _))) if !snapshot.gateway_at(node) => {
                Err(NoAnswer::new(NoAnswerCode::Denied, "this host has no gateway"))
            }
            _ => Ok(()),
        };
        tokio::spawn(async move {
            let outcome = match (ground, ask, mintable) {
                _ if !place.is_free() => Err(NoAnswer::new(NoAnswerCode::Busy, "too much is under way")),
                (None, ..) => Err(NoAnswer::new(NoAnswerCode::Unavailable, "the keeper is not there yet")),
                (_, _, Err(refusal)) => Err(refusal),
                (Some(ground), Ask::Mint(mint), _) => {
                    // What a provider said before control was started anew is not known any more.
                    if let Shown::Opaque { provider, token } = &mint.shown
                        && !minter.introspected().knows(provider, token.expose(), now())
                    {
                        let _ = introspect(&signins, &minter, &ground, provider.clone(), token.clone()).await;
                    }
                    minter.mint(ground.ca.keeper(), *mint).await
                }
                (Some(ground), Ask::Introspect { provider, token }, _) => {
                    introspect(&signins, &minter, &ground, provider, token).await
                }
                (Some(ground), ask, _) => signins.answer(&ground, ask).await,
            };
            let _ = sender.send(&ToProxy::Answer { request, outcome }).await;
            drop(place);
        });
    }

    /// Answers a question of an operator.
    pub(super) fn ask_sessions(&self, ask: AskSessions, answer: oneshot::Sender<Answer>) {
        let (ground, signins) = (self.ground(), self.signins.clone());
        tokio::spawn(async move {
            let asked = async {
                match ask {
                    AskSessions::List { after } => {
                        let listed = signins.sessions().list(&after, PAGE, now()).await;
                        let (sessions, more) = listed.map_err(internal)?;
                        let next = sessions.last().filter(|_| more).map(|(id, _)| id.clone());
                        let shown = sessions.iter().map(|(id, session)| {
                            json!({
                                "id": id, "provider": session.provider, "user": session.user,
                                "since": session.since, "refreshed": session.refreshed,
                                "expires_at": session.expires_at,
                            })
                        });
                        Ok(json!({ "sessions": shown.collect::<Vec<_>>(), "next": next }))
                    }
                    AskSessions::End(id) => {
                        let ground = ground.ok_or_else(|| unavailable("the keeper is not there yet"))?;
                        let known = signins.sessions().find(&id, now()).await.map_err(internal)?;
                        if known.is_none() {
                            let why =
                                format!("there is no session `{id}`: `ringfence session list` shows all");
                            return Err((StatusCode::NOT_FOUND, why));
                        }
                        let ended = signins.end(&ground, &id, "operator", "by the operator").await;
                        ended.map_err(unavailable)?;
                        Ok(json!({ "ended": id }))
                    }
                }
            };
            let _ = answer.send(asked.await);
        });
    }

    fn ground(&self) -> Option<Ground> {
        Some(Ground { providers: self.providers.clone(), ca: self.ca().ok()? })
    }

    /// A keeper was introduced: what it holds of others only as long as it lives is told again.
    pub(super) async fn acquaint_keeper(&self) {
        self.spread_cookie_keys().await;
        for keys in self.nodes.keys() {
            self.tell_keeper(keys);
        }
    }

    /// The keeper verifies credentials itself, by the keys that providers have now.
    pub(super) fn tell_keeper(&self, keys: ringfence_snapshot::node::ProviderKeys) {
        let (Ok(ca), emitter) = (self.ca(), self.emitter.clone()) else { return };
        tokio::spawn(async move {
            let name = keys.provider.clone();
            if let Err(e) = ca.keeper().provider_keys(keys).await {
                let message = format!("the keeper does not take its keys: {e}");
                let entity = ringfence_event::Entity {
                    entity: "provider",
                    name: &name,
                    uid: None,
                    activity: 3,
                    granted: false,
                    message: &message,
                };
                emitter.emit(&ringfence_event::Event::new(ringfence_event::Kind::Entity(entity)));
            }
        });
    }

    /// Forgets sessions that are over, and gives proxies the keys for cookies of today. Yesterday's still open, and tomorrow's are known
    /// in time everywhere.
    pub(crate) async fn maintain_sessions(&self) {
        self.spread_cookie_keys().await;
        if let Err(e) = self.signins.sessions().sweep(now()).await {
            self.entity("session", "sweep", 4, false, &e.to_string());
        }
    }

    async fn spread_cookie_keys(&self) {
        let Ok(ca) = self.ca() else { return };
        let Ok(today) = u32::try_from(now() / COOKIE_DAY) else { return };
        if self.nodes.cookie_day() == Some(today) {
            return;
        }
        let mut keys = Vec::with_capacity(3);
        for number in [today, today.saturating_sub(1), today.saturating_add(1)] {
            match ca.keeper().data_key(DataPurpose::Cookies { number }).await {
                Ok(key) => keys.push((number, key)),
                // The next keeper, or the next minute, tries again.
                Err(e) => return self.entity("session", "cookies", 3, false, &e.to_string()),
            }
        }
        self.nodes.publish_cookie_keys(keys);
    }
}

/// Has a provider asked about a token, and notes what it says for whoever mints for it.
async fn introspect(
    signins: &SignIns,
    minter: &Minter,
    ground: &Ground,
    provider: String,
    token: Secret<String>,
) -> Result<Told, NoAnswer> {
    let (name, shown) = (provider.clone(), token.clone());
    let told = signins.answer(ground, Ask::Introspect { provider, token }).await?;
    minter.introspected().note(&name, shown.expose(), &told, now());
    Ok(told)
}
