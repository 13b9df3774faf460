//! Every transformation of the firewall's rule language, chosen by the first byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_waf::transform::Transformation;

fuzz_target!(|data: &[u8]| {
    let Some((choice, input)) = data.split_first() else { return };
    let all: Vec<Transformation> = Transformation::all().collect();
    let transformation = all[usize::from(*choice) % all.len()];
    let mut out = b"what the value before left".to_vec();
    if transformation.apply(input, &mut out) {
        assert_ne!(out, input, "{} changes nothing", transformation.name());
        assert!(out.len() <= input.len() * 4 + 20, "{} grows", transformation.name());
        let mut again = Vec::new();
        assert!(transformation.apply(input, &mut again) && again == out);
    }
});
