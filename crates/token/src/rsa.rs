//! RSA keys that are too weak to prove anything.
//!
//! Three kinds are known: a modulus that can be factored by its size, an exponent that makes forgeries possible, and the
//! moduli of a chip library (ROCA, CVE-2017-15361) whose primes are recognised by their remainders.

/// What is accepted.
const BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The smallest exponent; below it, sloppy padding checks elsewhere have been fatal.
const MIN_EXPONENT: u64 = 65_537;

/// Why this modulus and exponent (big-endian) make no key that is believed.
pub(crate) fn weakness(modulus: &[u8], exponent: &[u8]) -> Option<&'static str> {
    if modulus.first().is_none_or(|b| *b == 0) || exponent.first().is_none_or(|b| *b == 0) {
        return Some("its numbers have leading zeros");
    }
    let bits = modulus.len() * 8 - modulus[0].leading_zeros() as usize;
    if !BITS.contains(&bits) {
        return Some("its modulus has not 2048 to 8192 bits");
    }
    if exponent.len() > 4 {
        return Some("its exponent has more than 32 bits");
    }
    let exponent = exponent.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    if exponent < MIN_EXPONENT || exponent.is_multiple_of(2) {
        return Some("its exponent is even or below 65537");
    }
    if modulus[modulus.len() - 1].is_multiple_of(2) {
        return Some("its modulus is even");
    }
    is_roca(modulus).then_some("it was made by a library with a known weakness (ROCA)")
}

/// Whether the modulus is a power of 65537 modulo every small prime, which one in 2^27 honest ones is.
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
        103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.into_iter().all(|prime| {
        let rest = modulus.iter().fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % prime);
        let mut power = 1;
        loop {
            if power == rest {
                return true;
            }
            power = power * (65_537 % prime) % prime;
            if power == 1 {
                return false;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modulus(bytes: usize) -> Vec<u8> {
        let mut modulus = vec![0x5b; bytes];
        modulus[0] = 0x80;
        modulus
    }

    #[test]
    fn only_keys_of_a_reasonable_form_are_believed() {
        let e = [1, 0, 1];
        assert_eq!(weakness(&modulus(256), &e), None);
        assert_eq!(weakness(&modulus(1024), &e), None);
        let mut short = modulus(256);
        short[0] = 0x7f;
        let mut even = modulus(256);
        even[255] = 2;
        let mut zero = modulus(257);
        zero[0] = 0;
        for (n, e) in [
            (modulus(128), &e[..]),
            (modulus(1025), &e),
            (short, &e),
            (even, &e),
            (zero, &e),
            (vec![], &e),
            (modulus(256), &[1]),
            (modulus(256), &[3]),
            (modulus(256), &[1, 0, 0]),
            (modulus(256), &[0, 1, 0, 1]),
            (modulus(256), &[1, 0, 0, 0, 1]),
            (modulus(256), &[]),
        ] {
            assert!(weakness(&n, e).is_some(), "{e:?}");
        }
    }
}
