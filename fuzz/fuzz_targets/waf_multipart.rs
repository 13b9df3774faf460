//! Multipart bodies: what is handed on are slices of the body, and an error is always flagged. The first line is the content type.
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use ringfence_waf::body::{Error, Limits, Scratch, Sink, multipart};

struct Parts<'a> {
    body: &'a [u8],
    content: usize,
}

impl Sink for Parts<'_> {
    fn pair(&mut self, name: &[u8], value: &[u8]) -> ControlFlow<()> {
        assert!(!name.is_empty());
        assert!(self.body.as_ptr_range().contains(&value.as_ptr()) || value.is_empty());
        self.content += value.len();
        ControlFlow::Continue(())
    }

    fn part_header(&mut self, _: &[u8], line: &[u8]) -> ControlFlow<()> {
        assert!(line.contains(&b':') && !line.contains(&b'\n') && !line.contains(&0));
        ControlFlow::Continue(())
    }

    fn file(&mut self, name: &[u8], _: &[u8], size: usize) -> ControlFlow<()> {
        assert!(!name.is_empty());
        self.content += size;
        ControlFlow::Continue(())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut pieces = data.splitn(2, |b| *b == b'\n');
    let own = pieces.next().unwrap_or_default();
    let body = pieces.next().unwrap_or_default();
    for content_type in [own, b"multipart/form-data; boundary=b"] {
        let mut parts = Parts { body, content: 0 };
        let outcome = multipart::parse(content_type, body, &Limits::default(), &mut Scratch::default(), &mut parts);
        assert!(parts.content <= body.len());
        let readable = matches!(outcome.error, None | Some(Error::Incomplete));
        assert!(readable || outcome.multipart.strict_error());
    }
});
