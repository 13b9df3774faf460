//! `openapi learn`: a first description of what a service has, from events: which operations there are all calls tell, what their messages
//! look like is kept where the service's `openapi` is in observe mode.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use ringfence_event::{Filter, Record, read_dir};
use ringfence_openapi::learn::{Draft, Sample};
use serde_json::Value;

use crate::view::events::since;
use crate::view::{Done, Failure, print};

#[derive(Debug, Args)]
pub(super) struct LearnArgs {
    /// The service
    #[arg(long, value_name = "NAME")]
    service: String,
    /// Only what happened since: RFC 3339, or a duration back from now such as 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// Leave out operations that succeeded less often
    #[arg(long, value_name = "N", default_value_t = 1)]
    least: u32,
}

pub(super) fn learn(args: &LearnArgs, data: &Path) -> Done {
    let since_ms = args.since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    let since_ms = since_ms.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX));
    let filter = Filter {
        since_ms,
        kind: Some("call".into()),
        service: Some(args.service.clone()),
        ..Filter::default()
    };
    let records = read_dir(&data.join("events"), &filter)?;
    let (draft, shapes) = drafted(&records, args);
    if draft.operations() == 0 {
        let message = format!("events tell of no calls of {} that succeeded", args.service);
        return Err(Failure::Cannot(message));
    }
    print(&draft.to_yaml(&args.service))?;
    eprintln!(
        "{} operations, from {} calls of which {shapes} tell what messages look like",
        draft.operations(),
        records.len()
    );
    if draft.is_full() {
        eprintln!("there were more paths than a draft can have: some are left out");
    }
    match draft.bare() {
        0 => {}
        bare => eprintln!(
            "of {bare} only the path is known, and enforced they would refuse parameters and bodies: put this into a file in a folder \
             beside the fence, let services.{}.openapi be {{ file: FILE, mode: observe, undocumented: observe }}, and learn again \
             after a while",
            args.service
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// The draft, and how many shapes are in it.
fn drafted(records: &[Record], args: &LearnArgs) -> (Draft, usize) {
    let (mut draft, mut shapes) = (Draft::of_at_least(args.least), 0);
    for record in records.iter().filter(|record| record.callee() == args.service && !record.denied()) {
        // What looks like an attack is nothing to learn from, although it is only watched.
        let observed = record.json.pointer("/unmapped/observed").and_then(Value::as_array);
        if observed.into_iter().flatten().filter_map(Value::as_str).any(|rule| rule.starts_with("waf.")) {
            continue;
        }
        let text = |place: &str| record.json.pointer(place).and_then(Value::as_str).unwrap_or_default();
        match Sample::from_json(text("/unmapped/shape")) {
            Some(sample) => {
                shapes += 1;
                draft.add(&sample);
            }
            None => {
                let status = record.json.pointer("/http_response/code").and_then(Value::as_u64);
                let status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
                draft.add_call(text("/http_request/http_method"), text("/http_request/url/path"), status);
            }
        }
    }
    (draft, shapes)
}

#[cfg(test)]
mod tests {
    use ringfence_openapi::{Api, Found};
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_tell_operations_and_shapes_tell_schemas() {
        let call = |callee: &str, path: &str, code: u16, shape: &str| Record {
            producer: "node".into(),
            json: json!({
                "class_uid": 4002, "action_id": if code == 403 { 2 } else { 1 },
                "dst_endpoint": { "svc_name": callee },
                "http_request": { "http_method": "GET", "url": { "path": path } },
                "http_response": { "code": code },
                "unmapped": { "shape": shape },
            }),
        };
        let mut sample = Sample::new("GET", "/notes/7", None, None);
        sample.set_response(200, Some(b"application/json"), Some(br#"{"id":7}"#));
        let args = LearnArgs { service: "notes".into(), since: None, least: 1 };
        let mut attack = call("notes", "/attack", 200, "");
        attack.json["unmapped"]["observed"] = json!(["waf.942100"]);
        let records = [
            attack,
            call("notes", "/notes", 200, ""),
            call("notes", "/notes/7", 200, &sample.to_json()),
            call("notes", "/admin", 403, ""),
            call("other", "/other", 200, ""),
            call("notes", "/odd", 200, "{broken"),
        ];
        let (draft, shapes) = drafted(&records, &args);
        assert_eq!((draft.operations(), shapes), (3, 1));
        let yaml = draft.to_yaml("notes");
        let api = Api::load(&yaml).unwrap();
        for (path, there) in [
            ("/notes", true),
            ("/notes/9", true),
            ("/odd", true),
            ("/admin", false),
            ("/other", false),
            ("/attack", false),
        ] {
            assert_eq!(matches!(api.find("GET", path), Found::Operation(_)), there, "{path}\n{yaml}");
        }
        assert!(yaml.contains("noteId"), "{yaml}");
    }
}
