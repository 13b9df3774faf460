//! A request to the Consul API: path, query and body as they come, one to a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_registry::consul::{Change, Query, change, is_own};

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
    let (path, query) = (text(), text());
    let Some(query) = Query::parse(query) else { return };
    let _ = query.blocking();
    let body = parts.next().unwrap_or_default();
    for path in [path, "/v1/agent/service/register"] {
        if let Ok(Change::Register(claim, _)) = change(path, &query, body, 0)
            && is_own("portal", Some(9000), &claim)
        {
            assert!(claim.name == "portal" && [0, 9000].contains(&claim.port));
        }
    }
});
