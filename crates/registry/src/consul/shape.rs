//! JSON as Consul shapes it. Every index in it is the view's own: one that came from elsewhere would count what others do.

use serde_json::{Map, Value, json};

use crate::DATACENTER;
use crate::check::{Check, CheckKind};
use crate::view::{Instance, View};

/// A node as far as the caller knows it: by the services on it, at an address of its own network.
pub(super) fn node(view: &View, host: &str) -> Value {
    json!({
        "ID": "",
        "Node": host,
        "Address": OWN,
        "Datacenter": DATACENTER,
        "TaggedAddresses": { "lan": OWN, "wan": OWN },
        "Meta": { "consul-network-segment": "" },
        "CreateIndex": 1,
        "ModifyIndex": view.index,
    })
}

/// What answers for every node: the caller's own sidecar.
const OWN: &str = "198.18.0.4";

/// `/v1/catalog/service/NAME`.
pub(super) fn catalog_service(view: &View, name: &str, instance: &Instance) -> Value {
    json!({
        "ID": "",
        "Node": &*instance.host,
        "Address": instance.address,
        "Datacenter": DATACENTER,
        "TaggedAddresses": { "lan": instance.address, "wan": instance.address },
        "NodeMeta": { "consul-network-segment": "" },
        "ServiceKind": "",
        "ServiceID": instance.id,
        "ServiceName": name,
        "ServiceTags": instance.tags,
        "ServiceAddress": instance.address,
        "ServiceTaggedAddresses": {},
        "ServiceWeights": { "Passing": 1, "Warning": 1 },
        "ServiceMeta": instance.meta,
        "ServicePort": instance.port,
        "ServiceSocketPath": "",
        "ServiceEnableTagOverride": false,
        "ServiceProxy": { "Mode": "", "MeshGateway": {}, "Expose": {} },
        "ServiceConnect": {},
        "ServiceLocality": null,
        "CreateIndex": 1,
        "ModifyIndex": view.index,
    })
}

/// The service of `/v1/health/service/NAME` and of `/v1/catalog/node/NODE`.
pub(super) fn service(view: &View, name: &str, instance: &Instance) -> Value {
    json!({
        "ID": instance.id,
        "Service": name,
        "Tags": instance.tags,
        "Address": instance.address,
        "TaggedAddresses": {},
        "Meta": instance.meta,
        "Port": instance.port,
        "SocketPath": "",
        "Weights": { "Passing": 1, "Warning": 1 },
        "EnableTagOverride": false,
        "Proxy": { "Mode": "", "MeshGateway": {}, "Expose": {} },
        "Connect": {},
        "PeerName": "",
        "CreateIndex": 1,
        "ModifyIndex": view.index,
    })
}

/// A service of `/v1/agent/services`.
pub(super) fn agent_service(name: &str, instance: &Instance) -> Value {
    json!({
        "ID": instance.id,
        "Service": name,
        "Tags": instance.tags,
        "Meta": instance.meta,
        "Port": instance.port,
        "Address": instance.address,
        "SocketPath": "",
        "TaggedAddresses": {},
        "Weights": { "Passing": 1, "Warning": 1 },
        "EnableTagOverride": false,
        "Datacenter": DATACENTER,
    })
}

/// A check.
pub(super) fn check(view: &View, name: &str, instance: &Instance, check: &Check) -> Value {
    let kind = match check.kind {
        CheckKind::Sidecar | CheckKind::Maintenance => "",
        CheckKind::Ttl => "ttl",
    };
    json!({
        "Node": &*instance.host,
        "CheckID": check.id,
        "Name": check.name,
        "Status": check.status,
        "Notes": "",
        "Output": check.output,
        "ServiceID": instance.id,
        "ServiceName": name,
        "ServiceTags": instance.tags,
        "Type": kind,
        "Interval": "",
        "Timeout": "",
        "ExposedPort": 0,
        "Definition": {},
        "PeerName": "",
        "CreateIndex": 1,
        "ModifyIndex": view.index,
    })
}

pub(super) fn checks(view: &View, name: &str, instance: &Instance) -> Vec<Value> {
    instance.checks.iter().map(|one| check(view, name, instance, one)).collect()
}

/// By their names.
pub(super) fn map(pairs: impl Iterator<Item = (String, Value)>) -> Value {
    Value::Object(pairs.collect::<Map<_, _>>())
}
