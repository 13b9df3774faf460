//! Cookies in both forms: what is handed on are pieces of the header, in order.
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use ringfence_waf::body::cookie::{Format, parse};
use ringfence_waf::body::{Limits, Sink};

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, piece: &[u8]) {
        if !piece.is_empty() {
            let at = self.0.windows(piece.len()).position(|w| w == piece).expect("invariant: a piece of the header");
            self.0 = &self.0[at + piece.len()..];
        }
    }
}

impl Sink for Rest<'_> {
    fn pair(&mut self, name: &[u8], value: &[u8]) -> ControlFlow<()> {
        assert!(!name.is_empty());
        self.skip(name);
        self.skip(value);
        ControlFlow::Continue(())
    }
}

fuzz_target!(|data: &[u8]| {
    for format in [Format::Netscape, Format::Version1] {
        let _ = parse(data, format, &Limits::default(), &mut Rest(data));
    }
});
