//! When to renew: at half of the life, spread, so that what began together does not ask together for ever.

/// The moment (Unix seconds) to renew what is valid from `not_before` to `not_after`: half-way, up to a tenth of the life
/// earlier. `spread` is any number that differs between holders.
#[must_use]
pub fn renew_at(not_before: u64, not_after: u64, spread: u64) -> u64 {
    let life = not_after.saturating_sub(not_before);
    let window = life / 10;
    let early = if window == 0 { 0 } else { spread % (window + 1) };
    not_before + life / 2 - early
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn renewal_comes_between_two_fifths_and_half_of_the_life(start in 0..u64::MAX / 4, life in 0..u64::MAX / 4, spread: u64) {
            let at = renew_at(start, start + life, spread);
            prop_assert!(at <= start + life / 2);
            prop_assert!(at >= start + life / 2 - life / 10);
        }
    }

    #[test]
    fn holders_are_spread() {
        let all: std::collections::BTreeSet<u64> = (0..1000).map(|i| renew_at(0, 3600, i * 7919)).collect();
        assert!(all.len() > 300);
    }
}
