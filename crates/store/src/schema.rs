//! The tables, as a list of steps that both engines take forward and back.
//!
//! Servers of two versions share one database while an upgrade goes on. So a step says which is the oldest program that can still
//! work with the tables it leaves: that one keeps running, and can be put back, without the tables being taken back.

/// One step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) version: i64,
    /// The oldest program, named by the newest step it knows, that these tables do not break.
    pub(crate) oldest: i64,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

/// All of them, in order.
pub(crate) const STEPS: [Step; 2] = [
    Step {
        version: 1,
        oldest: 1,
        up: include_str!("../migrations/0001_state.up.sql"),
        down: include_str!("../migrations/0001_state.down.sql"),
    },
    Step {
        version: 2,
        oldest: 1,
        up: include_str!("../migrations/0002_applied.up.sql"),
        down: include_str!("../migrations/0002_applied.down.sql"),
    },
];

/// The newest step that this program knows.
pub(crate) const NEWEST: i64 = STEPS[STEPS.len() - 1].version;

/// Which steps were taken. `IF NOT EXISTS`: it stands before the first.
pub(crate) const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, oldest BIGINT NOT NULL)";

/// What is to be done to tables that are at `version` and can be used by programs from `oldest` on.
pub(crate) fn missing(version: i64, oldest: i64) -> Result<impl Iterator<Item = &'static Step>, String> {
    if oldest > NEWEST {
        return Err(format!("its tables are of version {version}, this program knows {NEWEST}"));
    }
    Ok(STEPS.iter().filter(move |step| step.version > version))
}

/// What is to be taken back, newest first, to come from `version` to `target`.
pub(crate) fn undone(version: i64, target: i64) -> Result<impl Iterator<Item = &'static Step>, String> {
    if version > NEWEST {
        return Err(format!("its tables are of version {version}, this program knows {NEWEST}"));
    }
    Ok(STEPS.iter().rev().filter(move |step| step.version <= version && step.version > target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_gaps_and_each_keeps_the_program_before_it_working() {
        for (number, step) in (1..).zip(&STEPS) {
            assert_eq!(step.version, number);
            assert!(step.oldest >= 1 && step.oldest <= (number - 1).max(1), "step {number}");
        }
    }
}
