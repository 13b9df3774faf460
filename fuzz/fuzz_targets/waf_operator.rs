//! Operators: whatever a rule may have as argument, on whatever a request may have as value. What a sieve says must
//! hold for each match.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_waf::operator::{Captures, Operator};

const NAMES: [&str; 12] = [
    "rx",
    "rxGlobal",
    "pm",
    "containsWord",
    "contains",
    "within",
    "ipMatch",
    "validateByteRange",
    "verifyCC",
    "verifyCPF",
    "detectSQLi",
    "detectXSS",
];

fuzz_target!(|data: &[u8]| {
    let [choice, len, rest @ ..] = data else { return };
    let (argument, value) = rest.split_at(usize::from(*len).min(rest.len()));
    let name = NAMES[usize::from(*choice) % NAMES.len()];
    let Ok(operator) = Operator::compile(name, argument, &|_| None) else { return };
    let found = operator.evaluate(value, argument, None);
    let mut captures = Captures::default();
    assert_eq!(operator.evaluate(value, argument, Some(&mut captures)), found);
    if !found || operator.takes_macro() {
        return;
    }
    let sieve = operator.literals();
    assert!(value.len() >= sieve.min_len);
    if let Some(literals) = sieve.literals {
        let lower = value.to_ascii_lowercase();
        assert!(
            literals.iter().any(|text| text.is_empty() || lower.windows(text.len()).any(|part| part == text))
        );
    }
});
