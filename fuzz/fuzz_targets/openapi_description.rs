//! Descriptions of APIs: whatever the text, it is read or refused, and what was read can be asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_openapi::learn::{Draft, Sample};
use ringfence_openapi::{Api, Found, Length, Report};

fuzz_target!(|text: &str| {
    if let Ok(api) = Api::load(text)
        && let Found::Operation(found) = api.find("GET", "/a/1")
    {
        found.head(Some("a=1&b[c]=2"), &[][..], Length::Empty, &mut Report::default());
    }
    // What is drafted is always a description.
    let mut draft = Draft::default();
    let (path, body) = text.split_once('\n').unwrap_or((text, "{}"));
    let mut sample = Sample::new("POST", path, Some(path), Some(body));
    sample.set_request(Some(b"application/json"), Some(body.as_bytes()));
    sample.set_response(200, Some(b"application/json"), Some(body.as_bytes()));
    draft.add(&sample);
    if draft.operations() > 0 {
        let yaml = draft.to_yaml("fuzz");
        assert!(Api::load(&yaml).is_ok(), "{yaml}");
    }
});
