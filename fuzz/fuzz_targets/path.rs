//! Paths: the form is final, and a server that decodes it finds nothing left to resolve.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_proxy::normalize::{Oddities, path};

fuzz_target!(|raw: &str| {
    let all = Oddities::ENCODED_SLASH.with(Oddities::PARAMETER).with(Oddities::DOUBLE_ENCODING);
    let strict = path(raw, Oddities::NONE);
    let lenient = path(raw, all);
    if let Ok(normal) = &lenient {
        let again = path(&normal.path, all).expect("a form is a path");
        assert_eq!(again.path, normal.path);
        // A segment that `..` removed may have been the odd one.
        assert!(again.oddities.within(normal.oddities));
        assert!(normal.path.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Ok(normal) = strict {
        assert_eq!(lenient.map(|lenient| lenient.path), Ok(normal.path.clone()));
        let segments: Vec<_> = normal.path.split('/').collect();
        assert!(segments.iter().all(|segment| *segment != "." && *segment != ".."));
        assert!(segments[1..segments.len() - 1].iter().all(|segment| !segment.is_empty()));
        assert!(
            !normal.path.contains([';', '\\'])
                && !normal.path.contains("%2F")
                && !normal.path.contains("%5C")
        );
    }
});
