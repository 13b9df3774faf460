//! What is asked for and changes nothing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::query::decode;
use super::shape::{agent_service, catalog_service, check, checks, map, node, service};
use super::{Query, Reply};
use crate::DATACENTER;
use crate::check::Status;
use crate::view::{Instance, View};

/// Whether something is read at a path.
pub(super) fn is_read(path: &str) -> bool {
    find(path).is_some()
}

/// What is asked for.
enum Asked<'a> {
    Leader,
    Peers,
    Itself,
    Datacenters,
    Services,
    Nodes,
    CatalogService(&'a str),
    CatalogNode(&'a str),
    HealthService(&'a str),
    HealthChecks(&'a str),
    HealthNode(&'a str),
    HealthState(&'a str),
    AgentServices,
    AgentService(&'a str),
    AgentChecks,
}

fn find(path: &str) -> Option<Asked<'_>> {
    let path = path.strip_prefix("/v1/")?;
    Some(match path {
        "status/leader" => Asked::Leader,
        "status/peers" => Asked::Peers,
        "agent/self" => Asked::Itself,
        "agent/services" => Asked::AgentServices,
        "agent/checks" => Asked::AgentChecks,
        "catalog/datacenters" => Asked::Datacenters,
        "catalog/services" => Asked::Services,
        "catalog/nodes" => Asked::Nodes,
        _ => {
            let (what, name) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty())?;
            match what {
                "agent/service" => Asked::AgentService(name),
                "catalog/service" => Asked::CatalogService(name),
                "catalog/node" => Asked::CatalogNode(name),
                "health/service" => Asked::HealthService(name),
                "health/checks" => Asked::HealthChecks(name),
                "health/node" => Asked::HealthNode(name),
                "health/state" => Asked::HealthState(name),
                _ => return None,
            }
        }
    })
}

/// Answers from a view.
pub fn read(view: &View, path: &str, query: &Query) -> Reply {
    let Some(asked) = find(path) else { return Reply::text(404, "404 page not found\n") };
    if query.value("dc").is_some_and(|dc| !dc.is_empty() && dc != DATACENTER) {
        return Reply::text(500, "No path to datacenter");
    }
    if query.value("filter").is_some_and(|filter| !filter.is_empty()) {
        return Reply::text(400, "filter expressions are not supported here");
    }
    let (body, indexed) = match asked {
        // The port is that of Consul's own protocol, which nobody speaks here; clients only look whether there is a leader.
        Asked::Leader => (json!("198.18.0.4:8300"), false),
        Asked::Peers => (json!(["198.18.0.4:8300"]), false),
        Asked::Datacenters => (json!([DATACENTER]), false),
        Asked::Itself => (itself(view), false),
        Asked::AgentServices => {
            let own = own(view).map(|i| (i.id.clone(), agent_service(&view.caller, i)));
            (map(own), false)
        }
        Asked::AgentChecks => {
            let all = own(view)
                .flat_map(|i| i.checks.iter().map(move |c| (c.id.clone(), check(view, &view.caller, i, c))));
            (map(all), false)
        }
        Asked::AgentService(id) => {
            let Some(id) = decode(id) else { return malformed() };
            match own(view).find(|instance| instance.id == id) {
                Some(instance) => (agent_service(&view.caller, instance), false),
                // It is the caller's own, or it is nothing.
                None => return Reply::text(404, format!("unknown service ID: {}", id.escape_debug())),
            }
        }
        Asked::Services => (services(view), true),
        Asked::Nodes => {
            let hosts: BTreeSet<_> = instances(view).map(|(_, i)| &*i.host).chain([&*view.node]).collect();
            (hosts.into_iter().map(|host| node(view, host)).collect(), true)
        }
        Asked::CatalogService(name) => {
            let all = chosen(view, name, query).map(|(name, i)| catalog_service(view, name, i));
            (all.collect(), true)
        }
        Asked::CatalogNode(host) => {
            let Some(host) = decode(host) else { return malformed() };
            let on = || instances(view).filter(|(_, i)| *i.host == *host);
            let all = map(on().map(|(name, i)| (i.id.clone(), service(view, name, i))));
            let known = on().next().is_some() || *view.node == *host;
            (if known { json!({ "Node": node(view, &host), "Services": all }) } else { Value::Null }, true)
        }
        Asked::HealthService(name) => {
            let passing = query.all("passing").any(|value| matches!(value, "" | "1" | "true"));
            let all = chosen(view, name, query)
                .filter(|(_, i)| !passing || i.status() == Status::Passing)
                .map(|(name, i)| {
                    json!({
                        "Node": node(view, &i.host),
                        "Service": service(view, name, i),
                        "Checks": checks(view, name, i),
                    })
                });
            (all.collect(), true)
        }
        Asked::HealthChecks(name) => {
            let all = chosen(view, name, query).flat_map(|(name, i)| checks(view, name, i));
            (all.collect(), true)
        }
        Asked::HealthNode(host) => {
            let Some(host) = decode(host) else { return malformed() };
            let on = instances(view).filter(|(_, i)| *i.host == *host);
            (on.flat_map(|(name, i)| checks(view, name, i)).collect(), true)
        }
        Asked::HealthState(word) => {
            let status = Status::parse(word);
            if status.is_none() && word != "any" {
                return Reply::text(400, "Invalid state: one of any, passing, warning and critical is meant");
            }
            let all = instances(view).flat_map(|(name, i)| {
                let fits = i.checks.iter().filter(|c| status.is_none_or(|status| c.status == status));
                fits.map(|c| check(view, name, i, c)).collect::<Vec<_>>()
            });
            (all.collect(), true)
        }
    };
    Reply { index: indexed.then_some(view.index), ..Reply::json(&body) }
}

fn malformed() -> Reply {
    Reply::text(400, "the path is malformed")
}

fn instances(view: &View) -> impl Iterator<Item = (&str, &Instance)> {
    view.entries.iter().flat_map(|(name, entry)| entry.instances.iter().map(move |i| (&**name, i)))
}

fn own(view: &View) -> impl Iterator<Item = &Instance> {
    view.entry(&view.caller).into_iter().flat_map(|entry| &entry.instances)
}

/// Instances of a service with all tags that are asked for.
fn chosen<'a>(view: &'a View, name: &str, query: &'a Query) -> impl Iterator<Item = (&'a str, &'a Instance)> {
    let name = decode(name).unwrap_or_default();
    let found = view.entries.get_key_value(&*name);
    let all = found.into_iter().flat_map(|(name, entry)| entry.instances.iter().map(move |i| (&**name, i)));
    all.filter(|(_, i)| query.all("tag").all(|tag| i.tags.iter().any(|known| known == tag)))
}

fn services(view: &View) -> Value {
    map(view.entries.iter().map(|(name, entry)| {
        let tags: BTreeSet<_> = entry.instances.iter().flat_map(|i| &i.tags).collect();
        (name.to_string(), json!(tags))
    }))
}

fn itself(view: &View) -> Value {
    json!({
        "Config": {
            "Datacenter": DATACENTER,
            "PrimaryDatacenter": DATACENTER,
            "NodeName": &*view.node,
            "NodeID": "",
            "Revision": "",
            "Server": false,
            "Version": env!("CARGO_PKG_VERSION"),
        },
        "Coord": null,
        "Member": {
            "Name": &*view.node,
            "Addr": "198.18.0.4",
            "Port": 8301,
            "Tags": { "dc": DATACENTER, "role": "node" },
            "Status": 1,
        },
        "Stats": {},
        "Meta": { "consul-network-segment": "" },
    })
}
