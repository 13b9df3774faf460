//! Rule files: whatever stands in one, it is read, and each item and finding belongs to one of its lines; what compiles runs.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ringfence_waf::{Options, Rules, Scratch, Source, Transaction};

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n').count();
    let (items, findings) = ringfence_waf::parse_only(data);
    assert!(items + findings <= lines);
    // Expressions have a budget of their own, which takes longer than a fuzzer likes.
    if data.len() > 4096 {
        return;
    }
    let Ok(rules) = Rules::load(&[Source::new("fuzz", data)], &(), &Options::default()) else { return };
    let mut transaction = Transaction::new(&Arc::new(rules), Scratch::default());
    transaction.request_line(b"GET", b"/a/b.php?x=%41&y=1", b"HTTP/1.1");
    transaction.request_header(b"Host", b"fuzz.example");
    transaction.request_header(b"Cookie", b"a=b; c=d");
    let _ = transaction.phase1();
    transaction.request_body(b"z=1");
    let _ = transaction.phase2();
    transaction.phase5();
});
