//! Dates, as far as a clinic that starts afresh each day needs them.

use std::time::{SystemTime, UNIX_EPOCH};

/// The date in so many days, `2031-05-04`, in UTC.
pub(crate) fn in_days(days: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    date(now / 86_400 + days)
}

/// Counts years and months down from 1970; a clinic's calendar is short enough for that.
fn date(mut days: u64) -> String {
    let mut year = 1970;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", days + 1)
}

/// Whether this is a time like `2031-05-04T09:30` that exists.
pub(crate) fn is_time(text: &str) -> bool {
    let shape = text.len() == 16
        && text.bytes().zip(*b"0000-00-00T00:00").all(|(byte, like)| match like {
            b'0' => byte.is_ascii_digit(),
            mark => byte == mark,
        });
    if !shape {
        return false;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().unwrap_or(u64::MAX);
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    (1970..=2199).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && number(11, 13) < 24
        && number(14, 16) < 60
}

const fn days_of_year(year: u64) -> u64 {
    if leap(year) { 366 } else { 365 }
}

const fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates_across_leap_years() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(11_017), "2000-03-01");
        assert_eq!(date(20_089), "2025-01-01");
    }

    #[test]
    fn only_times_that_exist_are_taken() {
        for good in ["2031-05-04T09:30", "2028-02-29T00:00", "2031-12-31T23:59"] {
            assert!(is_time(good), "{good}");
        }
        for bad in [
            "",
            "2031-02-29T09:30",
            "2031-13-01T09:30",
            "2031-05-04T24:00",
            "2031-05-04 09:30",
            "2031-05-04T09:3é",
        ] {
            assert!(!is_time(bad), "{bad}");
        }
    }
}
