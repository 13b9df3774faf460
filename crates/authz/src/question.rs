//! A request that nobody made: written in a table, thought up by a comparison, or asked by a service.

use std::net::IpAddr;
use std::time::SystemTime;

use ringfence_model::OUTSIDE;
use serde::Serialize;

use crate::actor::{Principal, PrincipalKind};
use crate::decision::Decision;
use crate::engine::Engine;
use crate::request::Request;

/// A principal and a request, owned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Who.
    pub principal: Principal,
    /// The service that calls; `outside` for a client of the gateway.
    pub caller: String,
    /// All services on the way.
    pub chain: Vec<String>,
    /// The service that is called.
    pub service: String,
    /// The method.
    pub method: String,
    /// The normalized path.
    pub path: String,
    /// The host.
    pub host: String,
    /// Where the gateway's client calls from.
    pub source: Option<IpAddr>,
    /// When; now without it.
    #[serde(skip)]
    pub time: Option<SystemTime>,
}

impl Question {
    /// A question of nobody in particular to a service.
    #[must_use]
    pub fn new(principal: Principal, method: &str, service: &str, path: &str) -> Self {
        let caller = match principal.kind {
            PrincipalKind::Service => principal.id.clone(),
            _ => OUTSIDE.to_owned(),
        };
        let chain = if caller == OUTSIDE { Vec::new() } else { vec![caller.clone()] };
        Self {
            principal,
            caller,
            chain,
            service: service.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            host: service.to_owned(),
            source: None,
            time: None,
        }
    }

    /// The same, called by a service and not from outside.
    #[must_use]
    pub fn through(mut self, caller: &str) -> Self {
        self.chain = if caller == OUTSIDE { Vec::new() } else { vec![caller.to_owned()] };
        caller.clone_into(&mut self.caller);
        self
    }
}

impl Engine {
    /// Decides on a question. For the request path, [`Engine::decide`] with a prepared actor is the cheaper way.
    #[must_use]
    pub fn answer(&self, question: &Question, now: SystemTime) -> Decision {
        let actor = self.actor(&question.principal);
        let chain: Vec<&str> = question.chain.iter().map(String::as_str).collect();
        self.decide(&actor, &question.request(&chain, now))
    }
}

impl Question {
    pub(crate) fn request<'a>(&'a self, chain: &'a [&'a str], now: SystemTime) -> Request<'a> {
        Request {
            caller: &self.caller,
            chain,
            service: &self.service,
            method: &self.method,
            path: &self.path,
            host: &self.host,
            source: self.source,
            time: self.time.unwrap_or(now),
        }
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}{}", self.principal, self.method, self.service, self.path)?;
        match self.caller.as_str() {
            OUTSIDE => Ok(()),
            caller => write!(f, " from {caller}"),
        }
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            PrincipalKind::Anonymous => f.write_str("anonymous")?,
            PrincipalKind::User => write!(f, "user {}/{}", self.provider, self.id)?,
            PrincipalKind::Client => write!(f, "client {}/{}", self.provider, self.id)?,
            PrincipalKind::Service => write!(f, "service {}", self.id)?,
        }
        if !self.groups.is_empty() {
            write!(f, " ({})", self.groups.join(", "))?;
        }
        Ok(())
    }
}
