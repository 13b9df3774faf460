//! Every event that Ringfence can produce, held against the published OCSF schema.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test")]

use std::path::Path;

use ringfence_event::{
    Call, Connection, Dial, Entity, Event, Finding, Kind, Lifecycle, LifecycleActivity, Observed, Scan,
    Severity, Tamper, TraceContext, User, Verdict,
};
use serde_json::{Map, Value};

fn load(root: &Path, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(root.join(file)).unwrap()).unwrap()
}

/// An event class or object with what it inherits and includes.
fn resolve(root: &Path, folder: &str, file: &str) -> Map<String, Value> {
    let schema = load(root, &format!("{folder}/{file}.json"));
    let mut attributes = Map::new();
    if let Some(parent) = schema["extends"].as_str() {
        let candidates =
            ["events", "events/network", "events/application", "events/iam", "events/findings", "objects"];
        let folder = candidates.iter().find(|f| root.join(format!("{f}/{parent}.json")).exists()).unwrap();
        attributes = resolve(root, folder, parent);
    }
    let own = schema["attributes"].as_object().unwrap();
    let mut includes: Vec<String> = match &own.get("$include") {
        Some(Value::Array(list)) => list.iter().map(|v| v.as_str().unwrap().into()).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => vec![],
    };
    if folder.starts_with("events") {
        includes.push("profiles/security_control.json".into());
        includes.push("profiles/trace.json".into());
    }
    for include in includes {
        if let Some(more) = load(root, &include)["attributes"].as_object() {
            // What a profile requires it requires of its users only.
            attributes.extend(more.iter().map(|(name, attribute)| {
                let mut attribute = attribute.clone();
                attribute.as_object_mut().unwrap().remove("requirement");
                (name.clone(), attribute)
            }));
        }
    }
    for (name, attribute) in own.iter().filter(|(name, _)| !name.starts_with('$')) {
        let slot = attributes.entry(name).or_insert_with(|| Value::Object(Map::new()));
        for (key, value) in attribute.as_object().unwrap() {
            match (slot.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
                (Some(old), Some(new)) => old.extend(new.clone()),
                _ => drop(slot.as_object_mut().unwrap().insert(key.clone(), value.clone())),
            }
        }
    }
    attributes
}

fn check(root: &Path, dictionary: &Value, attributes: &Map<String, Value>, value: &Value, at: &str) {
    let object = value.as_object().unwrap();
    for (name, field) in object {
        let known = attributes.get(name).unwrap_or_else(|| panic!("{at}.{name} is not in the schema"));
        let entry = &dictionary["attributes"][name];
        if let Some(number) = field.as_u64() {
            let values = known.get("enum").or_else(|| entry.get("enum")).and_then(Value::as_object);
            if let Some(values) = values.filter(|_| !name.ends_with("_uid")) {
                let base = entry
                    .get("enum")
                    .and_then(Value::as_object)
                    .is_some_and(|e| e.contains_key(&number.to_string()));
                let found = values.contains_key(&number.to_string()) || base || number == 99 || number == 0;
                assert!(found, "{at}.{name} = {number}");
            }
        }
        let Some(kind) = entry["type"].as_str() else { panic!("{name} is not in the dictionary") };
        if field.is_object() && name != "unmapped" {
            assert!(
                root.join(format!("objects/{kind}.json")).exists(),
                "{at}.{name} is a {kind}, not an object"
            );
            check(root, dictionary, &resolve(root, "objects", kind), field, &format!("{at}.{name}"));
        } else if kind.ends_with("_t") {
            let number = matches!(kind, "integer_t" | "long_t" | "timestamp_t" | "port_t" | "boolean_t");
            let json = kind == "json_t" || field.is_array();
            assert!(json || number == field.is_number(), "{at}.{name} should be {kind}: {field}");
        }
    }
    for (name, attribute) in attributes {
        assert!(
            attribute["requirement"] != "required" || object.contains_key(name),
            "{at}.{name} is required"
        );
    }
}

#[test]
fn every_event_is_valid_ocsf() {
    let Some(golden) = std::env::var_os("RINGFENCE_GOLDEN") else {
        eprintln!("RINGFENCE_GOLDEN is not set: events are not held against the OCSF schema");
        return;
    };
    let root = Path::new(&golden).join("ocsf");
    let dictionary = load(&root, "dictionary.json");
    let denied = Verdict::Denied {
        stage: "authorize",
        rule: "edge.undeclared",
        position: Some("ringfence.yaml:4:3"),
        reason: "mailer may not call patients",
        missing: Some("calls: [patients]"),
    };
    let call = Call {
        caller: "mailer",
        caller_id: Some("spiffe://clinic.example/service/mailer"),
        user: Some(User {
            name: "lab",
            domain: "api_key",
            credential: Some("mfrggzdfmztw"),
            client: Some("portal"),
            transaction: Some("0192-7"),
            chain: "portal,appointments",
        }),
        source: Some([127, 0, 0, 1].into()),
        callee: "patients",
        point: "sidecar-out",
        method: b"GET",
        path: b"/patients/1",
        status: 403,
        duration_us: 120,
        cut: false,
        observed: Some(Observed { policies: &["strong-login"], would_pass: false }),
        findings: &[Finding {
            stage: "inspect",
            rule: "waf.942100",
            message: "SQL injection",
            target: "ARGS:q",
            value: b"' or 1=1\xff",
            transformations: "urlDecodeUni,lowercase",
            score: 5,
            observed: true,
        }],
        shape: "{\"method\":\"GET\"}",
        verdict: denied,
    };
    let connection = Connection {
        caller: "outside",
        caller_id: None,
        source: Some(([127, 0, 0, 1], 5000).into()),
        callee: "mesh",
        port: 15443,
        point: "sidecar-in",
        cut: false,
        verdict: denied,
    };
    let entity = Entity {
        entity: "certificate",
        name: "spiffe://clinic.example/service/portal",
        uid: Some("01"),
        activity: 1,
        granted: true,
        message: "issued",
    };
    let cases = [
        ("events/network", "http_activity", Kind::Call(call)),
        (
            "events/network",
            "http_activity",
            Kind::Call(Call { method: b"BREW", verdict: Verdict::Allowed, ..call }),
        ),
        (
            "events/network",
            "http_activity",
            Kind::Call(Call { verdict: Verdict::Failed { reason: "gone" }, ..call }),
        ),
        ("events/network", "network_activity", Kind::Connection(connection)),
        ("events/network", "network_activity", Kind::Connection(Connection { cut: true, ..connection })),
        (
            "events/network",
            "network_activity",
            Kind::Dial(Dial {
                service: "mailer",
                protocol: "udp",
                destination: [198, 18, 0, 1].into(),
                port: 53,
                query: Some("evil.example"),
                count: 3,
                place: "outside",
            }),
        ),
        (
            "events/findings",
            "detection_finding",
            Kind::Scan(Scan { service: "mailer", ports: 1000, addresses: 1, packets: 1000 }),
        ),
        (
            "events/findings",
            "detection_finding",
            Kind::Tamper(Tamper {
                service: "mailer",
                what: "trace",
                message: "ptrace of process 1",
                count: 2,
            }),
        ),
        (
            "events/network",
            "http_activity",
            Kind::Call(Call {
                verdict: Verdict::Corrected { rule: "header.spoofed", reason: "forwarded" },
                ..call
            }),
        ),
        (
            "events/application",
            "application_lifecycle",
            Kind::Lifecycle(Lifecycle {
                name: "portal",
                activity: LifecycleActivity::Start,
                message: "ready",
                severity: Severity::Informational,
            }),
        ),
        ("events/iam", "entity_management", Kind::Entity(entity)),
        ("events/iam", "entity_management", Kind::Entity(Entity { granted: false, ..entity })),
    ];
    for (folder, name, kind) in cases {
        let mut line = Vec::new();
        Event::new(kind).in_trace(TraceContext::start().child()).revision(7).write(&mut line);
        let value: Value = serde_json::from_slice(&line).unwrap();
        let class = load(&root, &format!("{folder}/{name}.json"));
        assert_eq!(value["class_uid"].as_u64().unwrap() % 1000, class["uid"].as_u64().unwrap(), "{name}");
        check(&root, &dictionary, &resolve(&root, folder, name), &value, name);
    }
}
