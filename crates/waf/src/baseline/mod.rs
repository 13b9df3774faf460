//! The rules of a gateway whose fence names no rule set, so that `up` protects without a download.
//!
//! They are ours, not the Core Rule Set's: some forty, for one paranoia level, each for something that nobody sends by
//! accident. Where prose and attacks use the same words, a rule asks how a value begins and ends instead of which words
//! it has: an injection has to leave the place that it was given.

use crate::rules::Source;

impl Source {
    /// The embedded rules; they go after [`Source::base`] and [`Source::levels`].
    #[must_use]
    pub fn baseline() -> Self {
        Self::new("(baseline)", include_str!("rules.conf"))
    }
}

#[cfg(test)]
pub(crate) mod benign;
#[cfg(test)]
mod tests;
