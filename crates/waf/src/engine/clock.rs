//! The time variables, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::lang::Variable;

/// The text of a time variable now.
pub(crate) fn text(variable: Variable) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    at(variable, now)
}

fn at(variable: Variable, epoch: u64) -> String {
    let (days, second) = (epoch / 86_400, epoch % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    match variable {
        Variable::Time => format!("{hour:02}:{minute:02}:{:02}", second % 60),
        Variable::TimeDay => day.to_string(),
        Variable::TimeHour => hour.to_string(),
        Variable::TimeMin => minute.to_string(),
        // Counted from zero, as C does.
        Variable::TimeMon => (month - 1).to_string(),
        Variable::TimeSec => (second % 60).to_string(),
        // The first of January 1970 was a Thursday.
        Variable::TimeWday => ((days + 4) % 7).to_string(),
        Variable::TimeYear => year.to_string(),
        _ => epoch.to_string(),
    }
}

/// Year, month and day of a number of days since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_day_is_read_right() {
        // 2024-02-29 23:59:58 UTC, a Thursday.
        let epoch = 1_709_251_198;
        let told: Vec<String> = [
            Variable::Time,
            Variable::TimeDay,
            Variable::TimeMon,
            Variable::TimeYear,
            Variable::TimeWday,
            Variable::TimeEpoch,
        ]
        .into_iter()
        .map(|variable| at(variable, epoch))
        .collect();
        assert_eq!(told, ["23:59:58", "29", "1", "2024", "4", "1709251198"]);
    }
}
