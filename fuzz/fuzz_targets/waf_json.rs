//! JSON bodies: what is accepted is what `serde_json` accepts, with as many leaves; what a cut head hands on begins as the whole does.
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use ringfence_waf::body::{Error, Limits, Scratch, Sink, json};
use serde_json::value::RawValue;

#[derive(Default)]
struct Kept(Vec<(Vec<u8>, Vec<u8>)>);

impl Sink for Kept {
    fn pair(&mut self, name: &[u8], value: &[u8]) -> ControlFlow<()> {
        self.0.push((name.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    }
}

fn parsed(body: &[u8]) -> (Kept, Option<Error>) {
    let mut kept = Kept::default();
    let limits = Limits { depth: 100, ..Limits::default() };
    let error = json::parse(body, &limits, &mut Scratch::default(), &mut kept).error;
    (kept, error)
}

fuzz_target!(|data: &[u8]| {
    let (kept, error) = parsed(data);
    // Raw: numbers beyond all bounds and halves of surrogate pairs are no matter of grammar.
    let reference = serde_json::from_slice::<&RawValue>(data);
    match error {
        None => assert!(data.is_empty() || reference.is_ok()),
        Some(Error::Malformed { .. } | Error::Incomplete) => assert!(reference.is_err()),
        Some(_) => {}
    }
    let (head, _) = parsed(&data[..data.len() / 2]);
    for ((name, _), (whole, _)) in head.0.iter().zip(&kept.0).rev().skip(1) {
        assert_eq!(name, whole);
    }
});
