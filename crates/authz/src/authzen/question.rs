//! What a request means in the fence's own words.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{EvaluationRequest, Refused, bad, time};
use crate::actor::{Principal, PrincipalKind};
use crate::names::{CONNECT, RPC};
use crate::question::Question;

/// Bytes of a name, a path or a host.
const MAX_TEXT: usize = 4 << 10;
/// Elements of a list.
const MAX_LIST: usize = 256;

impl EvaluationRequest {
    /// The question it asks.
    ///
    /// # Errors
    /// When it speaks of something that the fence does not have.
    pub fn question(&self) -> Result<Question, Refused> {
        let principal = self.principal()?;
        let (service, path) = match self.resource.kind.as_str() {
            "service" => {
                let path = text(&self.resource.properties, "path")?.unwrap_or_else(|| "/".to_owned());
                (self.resource.id.clone(), path)
            }
            "path" => match self.resource.id.find('/') {
                Some(at) if at > 0 => (self.resource.id[..at].to_owned(), self.resource.id[at..].to_owned()),
                _ => return bad("the id of a `path` is written SERVICE/PATH"),
            },
            _ => return bad("`resource.type` is `service` or `path`"),
        };
        if !is_normal(&path) || path.len() > MAX_TEXT || service.len() > MAX_TEXT {
            return bad("the path is not in normal form: no query, no `.`, `..`, `//`, `%`, `;` or `\\`");
        }
        let method = match self.action.name.as_str() {
            RPC => "POST",
            CONNECT => "",
            name if !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_graphic()) => {
                name
            }
            _ => return bad("`action.name` is an HTTP method, `rpc` or `connect`"),
        };
        let mut question = Question::new(principal, method, &service, &path);
        if let Some(caller) = text(&self.context, "caller")? {
            question = question.through(&caller);
        }
        if let Some(chain) = list(&self.context, "chain")? {
            question.chain = chain;
        }
        if let Some(host) = text(&self.context, "host")? {
            question.host = host;
        }
        if let Some(source) = text(&self.context, "source")? {
            let source: Result<IpAddr, _> = source.parse();
            question.source =
                Some(source.map_err(|_| Refused::new(400, "`context.source` is an IP address"))?);
        }
        if let Some(text) = text(&self.context, "time")? {
            let time = time::parse(&text);
            question.time =
                Some(time.ok_or_else(|| Refused::new(400, "`context.time` is an RFC 3339 time"))?);
        }
        Ok(question)
    }

    fn principal(&self) -> Result<Principal, Refused> {
        let properties = &self.subject.properties;
        let kind = match self.subject.kind.as_str() {
            "user" => PrincipalKind::User,
            "client" => PrincipalKind::Client,
            "service" => PrincipalKind::Service,
            "anonymous" => return Ok(Principal::default()),
            _ => return bad("`subject.type` is `user`, `client`, `service` or `anonymous`"),
        };
        if self.subject.id.len() > MAX_TEXT {
            return bad("`subject.id` is too long");
        }
        if kind == PrincipalKind::Service {
            return Ok(Principal::service(&self.subject.id));
        }
        let Some((provider, id)) = self.subject.id.split_once('/') else {
            return bad("`subject.id` is written PROVIDER/NAME");
        };
        let auth_time = match properties.get("auth_time") {
            None => None,
            Some(value) => match value.as_u64() {
                None => return bad("`auth_time` is a number of seconds since 1970"),
                some => some,
            },
        };
        Ok(Principal {
            kind,
            groups: list(properties, "groups")?.unwrap_or_default(),
            scopes: list(properties, "scopes")?.unwrap_or_default(),
            acr: text(properties, "acr")?,
            client: text(properties, "client")?,
            auth_time,
            ..Principal::user(provider, id)
        })
    }
}

/// Whether a path has the form in which requests are judged: one of another form would be judged as another path than the one
/// that is taken.
fn is_normal(path: &str) -> bool {
    let odd = |segment: &str| matches!(segment, "." | "..");
    path.starts_with('/')
        && !path.split('/').any(odd)
        && !path.trim_start_matches('/').trim_end_matches('/').contains("//")
        && !path.starts_with("//")
        && !path.contains(|c: char| c.is_control() || matches!(c, '?' | '#' | '%' | '\\' | ';'))
}

fn text(members: &Map<String, Value>, name: &str) -> Result<Option<String>, Refused> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= MAX_TEXT => Ok(Some(text.clone())),
        Some(_) => bad(format!("`{name}` is a text")),
    }
}

fn list(members: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, Refused> {
    let Some(value) = members.get(name) else { return Ok(None) };
    let items = value.as_array().filter(|items| items.len() <= MAX_LIST);
    let texts = items.and_then(|items| {
        let text = |item: &Value| item.as_str().filter(|text| text.len() <= MAX_TEXT).map(ToOwned::to_owned);
        items.iter().map(text).collect::<Option<Vec<_>>>()
    });
    texts
        .map(Some)
        .ok_or_else(|| Refused::new(400, format!("`{name}` is a list of at most {MAX_LIST} texts")))
}
