//! XML bodies: text and attributes never grow beyond the body, and a document that was accepted is so however it is cut.
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use ringfence_waf::body::{Error, Limits, Scratch, Sink, xml};

#[derive(Default)]
struct Sum(usize);

impl Sink for Sum {
    fn pair(&mut self, _: &[u8], _: &[u8]) -> ControlFlow<()> {
        unreachable!("an XML body has no pairs")
    }

    fn xml_attribute(&mut self, value: &[u8]) -> ControlFlow<()> {
        self.0 += value.len();
        ControlFlow::Continue(())
    }

    fn xml_text(&mut self, text: &[u8]) -> ControlFlow<()> {
        self.0 += text.len();
        ControlFlow::Continue(())
    }
}

fn parsed(body: &[u8]) -> (usize, Option<Error>) {
    let mut sum = Sum::default();
    let error = xml::parse(body, &Limits::default(), &mut Scratch::default(), &mut sum).error;
    (sum.0, error)
}

fuzz_target!(|data: &[u8]| {
    let (sum, error) = parsed(data);
    // One byte of Latin-1 becomes two.
    assert!(sum <= 2 * data.len());
    if error.is_none() && !data.is_empty() {
        assert!(std::str::from_utf8(data).is_ok() || data.windows(8).any(|w| w.eq_ignore_ascii_case(b"encoding")));
        let (head, error) = parsed(&data[..data.len() / 2]);
        assert!(head <= sum);
        assert!(!matches!(error, Some(Error::TooDeep | Error::TooMany | Error::TooLong)));
    }
});
