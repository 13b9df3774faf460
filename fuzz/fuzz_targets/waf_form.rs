//! Query strings and forms: every byte of the input is in some pair or was a separator, and what is handed on is bounded.
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use ringfence_waf::body::{Limits, Scratch, Sink, form};

struct Sum(usize);

impl Sink for Sum {
    fn pair(&mut self, name: &[u8], value: &[u8]) -> ControlFlow<()> {
        self.0 += name.len() + value.len() + 2;
        ControlFlow::Continue(())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut sum = Sum(0);
    let outcome = form::parse(data, b'&', &Limits::default(), &mut Scratch::default(), &mut sum);
    if outcome.error.is_none() && !data.contains(&b'%') {
        let unnamed = data.split(|b| *b == b'&').filter(|piece| !piece.contains(&b'=')).count();
        let trailing = usize::from(data.is_empty() || data.ends_with(b"&"));
        assert_eq!(sum.0 + trailing, data.len() + 1 + unnamed - trailing);
        assert!(!outcome.encoding_error);
    }
});
