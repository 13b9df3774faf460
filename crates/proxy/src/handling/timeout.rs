//! How callers say for how long they wait, in our words and in those of gRPC. Untrusted bytes.

use std::fmt::Write as _;

/// So many milliseconds: one to nine digits and nothing else.
#[must_use]
pub fn millis(value: &[u8]) -> Option<u64> {
    let digits = (1..=9).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(value).ok()?.parse().ok() } else { None }
}

/// Milliseconds of `grpc-timeout` ("PROTOCOL-HTTP2", Timeout), rounded down; what is no timeout counts for nothing, as gRPC servers take it.
#[must_use]
pub fn grpc_timeout(value: &[u8]) -> Option<u64> {
    let (unit, amount) = value.split_last()?;
    let amount = millis(amount).filter(|_| amount.len() <= 8)?;
    Some(match unit {
        b'H' => amount * 3_600_000,
        b'M' => amount * 60_000,
        b'S' => amount * 1_000,
        b'm' => amount,
        b'u' => amount / 1_000,
        b'n' => amount / 1_000_000,
        _ => return None,
    })
}

/// The value of `grpc-timeout` for so many milliseconds: at most eight digits, never more than there is.
#[must_use]
pub fn write_grpc(left_ms: u64) -> String {
    let mut text = String::with_capacity(9);
    let _ = match left_ms {
        ..=99_999_999 => write!(text, "{left_ms}m"),
        _ => write!(text, "{}S", (left_ms / 1000).min(99_999_999)),
    };
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts_of_grpc_are_read_as_written() {
        for (text, ms) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("5S", Some(5_000)),
            ("70m", Some(70)),
            ("1500u", Some(1)),
            ("99999999n", Some(99)),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("123456789m", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), ms, "{text}");
        }
        assert_eq!(millis(b"250"), Some(250));
        assert!(millis(b"").is_none() && millis(b"1.5").is_none() && millis(b"9999999999").is_none());
    }

    proptest! {
        #[test]
        fn what_is_told_is_never_longer(left in 1..u64::MAX / 2) {
            let text = write_grpc(left);
            prop_assert!(text.len() <= 9);
            let told = grpc_timeout(text.as_bytes()).unwrap();
            prop_assert!(told <= left);
            if left <= 99_999_999_000 {
                prop_assert!(left - told < 1_000);
            }
        }

        #[test]
        fn whatever_is_sent_is_read_or_not(value in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = (grpc_timeout(&value), millis(&value));
        }
    }
}
