//! A request as policies see it: its action, its resource, its context.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use cedar_policy_core::ast::{Context, Literal, Name, PartialValue, Value};
use cedar_policy_core::extensions::Extensions;
use smol_str::SmolStr;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::names::{self, CONNECT, OTHER, READS, RPC, SERVICE, WRITES};

/// What is asked. Everything in it has been verified or normalized by whoever asks.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The service that calls; `outside` for a client of the gateway.
    pub caller: &'a str,
    /// All services on the way, the caller included.
    pub chain: &'a [&'a str],
    /// The service that is called.
    pub service: &'a str,
    /// The method; empty for a TCP connection.
    pub method: &'a str,
    /// The normalized path without query.
    pub path: &'a str,
    /// The host that was asked for, lower case.
    pub host: &'a str,
    /// The address of the gateway's client.
    pub source: Option<IpAddr>,
    /// Now.
    pub time: SystemTime,
}

static IP: LazyLock<Option<Name>> = LazyLock::new(|| Name::parse_unqualified_name("ip").ok());
static OFFSET: LazyLock<Option<Name>> = LazyLock::new(|| Name::parse_unqualified_name("offset").ok());
static DURATION: LazyLock<Option<Name>> = LazyLock::new(|| Name::parse_unqualified_name("duration").ok());
static EPOCH: LazyLock<Option<Value>> = LazyLock::new(|| {
    let datetime = Name::parse_unqualified_name("datetime").ok();
    call(datetime.as_ref(), &[Value::from("1970-01-01")])
});

/// Calls a function of a Cedar extension.
fn call(name: Option<&Name>, arguments: &[Value]) -> Option<Value> {
    match Extensions::all_available().func(name?).ok()?.call(arguments).ok()? {
        PartialValue::Value(value) => Some(value),
        PartialValue::Residual(_) => None,
    }
}

/// A point in time; none when it lies before 1970 or beyond what Cedar can say.
pub(crate) fn datetime(since_epoch: Duration) -> Option<Value> {
    let milliseconds = format!("{}ms", since_epoch.as_millis());
    let duration = call(DURATION.as_ref(), &[Value::from(milliseconds.as_str())])?;
    call(OFFSET.as_ref(), &[EPOCH.clone()?, duration])
}

fn address(address: IpAddr) -> Option<Value> {
    // One address, one form: an IPv4 client of an IPv6 socket is an IPv4 client.
    let text = address.to_canonical().to_string();
    call(IP.as_ref(), &[Value::from(text.as_str())])
}

/// The action of a request to a service that speaks HTTP, gRPC or neither.
pub(crate) fn action(method: &str, grpc: bool, tcp: bool) -> &'static str {
    if tcp {
        return CONNECT;
    }
    if grpc {
        return RPC;
    }
    READS.into_iter().chain(WRITES).find(|known| *known == method).unwrap_or(OTHER)
}

/// The context, `whole` or as far as policies read it.
pub(crate) fn context(
    engine: &Engine,
    actor: &Actor,
    request: &Request<'_>,
    path: &[(&SmolStr, &str)],
    whole: bool,
) -> Context {
    let mut values: BTreeMap<SmolStr, Value> = BTreeMap::new();
    let mut set = |name: &'static str, value: &dyn Fn() -> Option<Value>| {
        if (whole || engine.reads(name))
            && let Some(value) = value()
        {
            values.insert(SmolStr::new_static(name), value);
        }
    };
    set("acr", &|| actor.acr.clone());
    set("auth_time", &|| actor.auth_time.clone());
    set("caller", &|| Some(engine.service_value(request.caller)));
    set("chain", &|| {
        let all = request.chain.iter().map(|name| Literal::from(engine.service_uid(name)));
        Some(Value::set_of_lits(all, None))
    });
    set("client", &|| actor.client.clone());
    set("host", &|| Some(Value::from(request.host)));
    set("method", &|| Some(Value::from(request.method)));
    set("path", &|| {
        let pairs = path.iter().map(|(name, value)| ((*name).clone(), Value::from(*value)));
        Some(Value::record_arc(Arc::new(pairs.collect()), None))
    });
    set("scopes", &|| Some(actor.scopes.clone()));
    set("source", &|| request.source.and_then(address));
    set("target", &|| Some(Value::from(request.path)));
    set("time", &|| datetime(request.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()));
    Context::Value(Arc::new(values))
}

impl Engine {
    pub(crate) fn service_uid(&self, name: &str) -> Arc<cedar_policy_core::ast::EntityUID> {
        match self.services.get(name) {
            Some(service) => Arc::clone(&service.uid),
            None => Arc::new(names::uid(SERVICE, name)),
        }
    }

    fn service_value(&self, name: &str) -> Value {
        Value::from(self.service_uid(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_addresses_are_cedar_values() {
        let time = datetime(Duration::from_millis(1_700_000_000_123)).unwrap();
        assert!(time.to_string().contains("1700000000123"), "{time}");
        assert_eq!(datetime(Duration::ZERO), EPOCH.clone());
        assert!(datetime(Duration::MAX).is_none());
        let mapped = address("::ffff:10.1.2.3".parse().unwrap());
        assert!(mapped.is_some() && mapped == address("10.1.2.3".parse().unwrap()));
        assert!(address("2001:db8::1".parse().unwrap()).is_some());
    }

    #[test]
    fn a_method_is_an_action() {
        assert_eq!([action("GET", false, false), action("PURGE", false, false)], ["GET", "other"]);
        assert_eq!([action("POST", true, false), action("", false, true)], ["rpc", "connect"]);
    }
}
