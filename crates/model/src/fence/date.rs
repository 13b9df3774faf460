//! A day of the calendar, for what holds until then: people agree on days, and a library for more was not worth it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

const DAY: u64 = 86_400;

/// A day in UTC, between 1970 and 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// The Unix time in seconds at which the day is over.
    #[must_use]
    pub fn ends_at(self) -> u64 {
        (self.days() + 1) * DAY
    }

    /// Whether the day is over at this Unix time in seconds.
    #[must_use]
    pub fn is_over(self, now: u64) -> bool {
        now >= self.ends_at()
    }

    /// Days since 1970-01-01 in the Gregorian calendar: whole years, their leap days, months, days.
    fn days(self) -> u64 {
        let year = u64::from(self.year);
        let leaps = |before: u64| before / 4 - before / 100 + before / 400;
        let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
        let months: u64 = (1..self.month).map(|month| u64::from(length(self.year, month))).sum();
        years + months + u64::from(self.day) - 1
    }
}

/// Days of a month.
const fn length(year: u16, month: u8) -> u8 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "it is a day, year first: `2027-03-01`";
        let shaped = text.len() == 10
            && text.bytes().enumerate().all(|(at, b)| match at {
                4 | 7 => b == b'-',
                _ => b.is_ascii_digit(),
            });
        let mut parts = text.split('-').map(str::parse::<u16>);
        let (true, Some(Ok(year)), Some(Ok(month)), Some(Ok(day))) =
            (shaped, parts.next(), parts.next(), parts.next())
        else {
            return Err(SHAPE.to_owned());
        };
        let (Ok(month), Ok(day)) = (u8::try_from(month), u8::try_from(day)) else {
            return Err(SHAPE.to_owned());
        };
        if year < 1970 || !(1..=12).contains(&month) || !(1..=length(year, month)).contains(&day) {
            return Err("there is no such day".to_owned());
        }
        Ok(Self { year, month, day })
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_when_the_next_begins() {
        for (text, ends) in [
            ("1970-01-01", 86_400),
            ("2000-02-29", 951_868_800),
            ("2024-02-28", 1_709_164_800),
            ("2027-03-01", 1_803_945_600),
            ("2100-12-31", 4_133_980_800),
        ] {
            let date: Date = text.parse().unwrap();
            assert_eq!((date.ends_at(), date.to_string().as_str()), (ends, text));
            assert!(!date.is_over(ends - 1) && date.is_over(ends));
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2027-3-1",
            "01-03-2027",
            "2027/03/01",
            "2027-02-29",
            "2100-02-29",
            "2027-13-01",
            "1969-12-31",
            "2027-00-01",
            "2027-01-00",
            "+027-01-01",
        ] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }
}
