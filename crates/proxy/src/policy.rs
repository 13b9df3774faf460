//! May they: policies judge what an edge allows, at the gateway and again where the callee is.
//!
//! The engine is built where the table is, on the control thread, and only when something in it changed. What a decision needs to
//! know of whoever asks is prepared once per credential and thread (`actors.rs`). The callee's side judges whom the transaction token
//! names, so groups and the like are the same at all sides.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use ringfence_authz::{
    Actor, Decision, Effect, Engine, PolicyRef, Principal, PrincipalKind, Request, Sources,
};
use ringfence_snapshot::Snapshot;

use crate::actors::Prepared;
use crate::delegate::chain::{Chain, MAX_CHAIN};
use crate::deny::Deny;
use crate::peer::{Authorized, Peer, Way};
use crate::table::{Edge, OUTSIDE, Sidecars, Table, Via};

/// The policies of a table.
#[derive(Debug)]
pub(crate) struct Policy {
    engine: Engine,
    /// Where the fence says that policies decide.
    position: String,
    anonymous: Actor,
    services: HashMap<String, Actor>,
}

/// Who asks.
pub(crate) enum Who<'a> {
    /// Whoever proved nothing.
    Anyone,
    /// A service that acts for itself.
    Service(&'a str),
    /// Whoever was verified, here or at the gateway.
    Prepared(Rc<Prepared>),
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// Empty for a connection.
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    pub(crate) source: Option<std::net::IpAddr>,
    /// The services on the way of a request on somebody's behalf; otherwise it is the caller alone.
    pub(crate) chain: Option<&'a Chain>,
}

/// What policies that only watch would have said.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) policies: Vec<Arc<PolicyRef>>,
    pub(crate) would_pass: bool,
}

impl Policy {
    /// The policies of a snapshot; those of the table before are used again as far as nothing in them changed.
    pub(crate) fn of(snapshot: &Snapshot, before: Option<&Table>) -> Result<Option<Arc<Self>>, String> {
        let Some(carried) = &snapshot.policies else { return Ok(None) };
        let before = before.and_then(|table| {
            Some((&table.snapshot, table.snapshot.policies.as_ref()?, table.policy.as_ref()?))
        });
        if let Some((old, policies, policy)) = before
            && policies == carried
            && old.fence == snapshot.fence
            && old.providers == snapshot.providers
            && old.services == snapshot.services
        {
            return Ok(Some(policy.clone()));
        }
        let fence = snapshot.to_fence();
        let texts = carried.files.iter().map(|file| (file.name.as_str(), file.text.as_str()));
        let entities = carried.entities.as_ref().map(|file| (file.name.as_str(), file.text.as_str()));
        let sources = Sources::of_texts(texts, entities);
        let engine = match before {
            Some((_, policies, policy)) if policies.files == carried.files => {
                policy.engine.with_entities(&fence, sources.entities.as_ref())
            }
            _ => Engine::new(&fence, &sources),
        };
        let engine = engine.map_err(|problems| format!("the policies cannot be enforced: {problems}"))?;
        let services = snapshot
            .services
            .iter()
            .map(|service| (service.name.clone(), engine.actor(&Principal::service(&service.name))));
        Ok(Some(Arc::new(Self {
            services: services.collect(),
            anonymous: engine.actor(&Principal::default()),
            position: carried.position.to_string(),
            engine,
        })))
    }

    /// What decides.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where the fence says that policies decide.
    pub(crate) fn position(&self) -> &str {
        &self.position
    }

    /// Whether the request may pass, and what policies that only watch say of it.
    pub(crate) fn judge(
        &self,
        who: &Who<'_>,
        edge: &Edge,
        question: Question<'_>,
    ) -> (Result<(), Deny>, Option<Watched>) {
        let actor = match who {
            Who::Anyone => &self.anonymous,
            Who::Prepared(prepared) => &prepared.actor,
            Who::Service(name) => match self.services.get(*name) {
                Some(actor) => actor,
                None => {
                    return (Err(self.refusal(&self.anonymous, edge, question, &Decision::default())), None);
                }
            },
        };
        let host = match question.host.strip_suffix('.').unwrap_or(question.host) {
            host if host.bytes().any(|b| b.is_ascii_uppercase()) => Cow::Owned(host.to_ascii_lowercase()),
            host => Cow::Borrowed(host),
        };
        let mut passed = [""; MAX_CHAIN];
        let direct = Some(&*edge.caller).filter(|caller| question.chain.is_none() && *caller != OUTSIDE);
        let names = question.chain.into_iter().flat_map(Chain::names).chain(direct);
        let count = passed.iter_mut().zip(names).map(|(place, name)| *place = name).count();
        let decision = self.engine.decide(
            actor,
            &Request {
                caller: &edge.caller,
                chain: &passed[..count],
                service: &edge.callee,
                method: question.method,
                path: question.path,
                host: &host,
                source: question.source,
                time: SystemTime::now(),
            },
        );
        let outcome =
            if decision.allowed { Ok(()) } else { Err(self.refusal(actor, edge, question, &decision)) };
        let watched = (!decision.observed.is_empty())
            .then_some(Watched { policies: decision.observed, would_pass: decision.if_enforced });
        (outcome, watched)
    }

    fn refusal(&self, actor: &Actor, edge: &Edge, question: Question<'_>, decision: &Decision) -> Deny {
        let (asked, principal) =
            (format!("{} {}{}", question.method, edge.callee, question.path), actor.principal());
        let who = match principal.kind {
            PrincipalKind::Anonymous => "somebody who proved nothing".to_owned(),
            PrincipalKind::User => format!("user {} of {}", principal.id, principal.provider),
            PrincipalKind::Client => format!("client {} of {}", principal.id, principal.provider),
            PrincipalKind::Service => format!("service {}", principal.id),
        };
        let asked = asked.trim_start();
        let forbids = decision.determining.iter().find(|policy| policy.effect == Effect::Forbid);
        let (rule, position, mut reason) = match forbids {
            Some(policy) => {
                let why = policy.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                let said = format!("policy {} forbids {who} {asked}{why}", policy.id);
                (Cow::Owned(policy.id.to_string()), policy.position.to_string(), said)
            }
            None => {
                let said = format!("no policy permits {who} {asked}");
                (Cow::Borrowed("policy.default"), self.position.clone(), said)
            }
        };
        for error in decision.errors.iter().take(4) {
            let message: String = error.message.chars().take(200).collect();
            reason.push_str(&format!("; {} does not count, because it failed: {message}", error.policy));
        }
        Deny::new(403, "authorize", rule, reason).position(Some(position))
    }
}

/// Whether policies are asked here: at the gateway, where the callee is, and where a callee has no side of its own.
pub(crate) fn is_asked(peer: &Peer, authorized: &Authorized) -> bool {
    match peer.way {
        Way::Gateway | Way::Inbound { .. } => true,
        Way::Outbound { .. } => !is_told(&authorized.next),
    }
}

/// Whether the other end is ours, and judges too.
pub(crate) fn is_told(edge: &Edge) -> bool {
    matches!(edge.via, Via::Mesh { at: Sidecars::Ours(_), .. })
}
