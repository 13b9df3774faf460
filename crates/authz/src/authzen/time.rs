//! Times as others write them: with an offset, and without seconds where these are none (ISO 8601).

use std::time::{Duration, SystemTime};

/// Reads `2027-03-01T08:15Z`, `2027-03-01T08:15:30.5+02:00`; none when it is no such time.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let at = text.find(['T', 't'])?;
    let (day, clock) = (text.get(..at)?, text.get(at + 1..)?);
    let (clock, offset) = match clock.find(['Z', 'z', '+', '-'])? {
        end if clock.get(end..)?.eq_ignore_ascii_case("z") => (clock.get(..end)?, None),
        end => (clock.get(..end)?, Some(clock.get(end..)?)),
    };
    let seconds = if clock.len() == 5 { ":00" } else { "" };
    let time = humantime::parse_rfc3339(&format!("{day}T{clock}{seconds}Z")).ok()?;
    let Some(offset) = offset else { return Some(time) };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number = |text: &str, most: u64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n: &u64| digits && *n <= most)
    };
    let offset_is = Duration::from_secs(number(hours, 23)? * 3600 + number(minutes, 59)? * 60);
    if offset.starts_with('+') { time.checked_sub(offset_is) } else { time.checked_add(offset_is) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse;

    #[test]
    fn one_moment_is_written_in_many_ways() {
        let moment = parse("2027-03-01T08:15:00Z");
        assert!(moment.is_some());
        for same in ["2027-03-01T08:15Z", "2027-03-01t10:15:00.0+02:00", "2027-03-01T01:15-07:00"] {
            assert_eq!(parse(same), moment, "{same}");
        }
        for bad in [
            "",
            "T",
            "2027-03-01",
            "2027-03-01T08:15",
            "2027-03-01T08:15+2:00",
            "2027-03-01T08:15+24:00",
            "2027-13-01T08:15Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
