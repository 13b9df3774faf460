//! Path patterns of `allow:`: which requests may pass along an edge.
//!
//! Deliberately less than a glob or a regular expression: one reading per pattern, linear time, and two patterns can be
//! compared. `*` stands for exactly one non-empty segment, `**` (only at the end) for all that follows the slash.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest pattern, in bytes.
const MAX_BYTES: usize = 1024;

/// A pattern over the normalized path of a request.
///
/// `/patients/*` matches `/patients/7` but neither `/patients`, `/patients/` nor `/patients/7/notes`;
/// `/patients/**` matches `/patients/`, `/patients/7` and `/patients/7/notes` but not `/patients`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern(String);

/// Why a text is not a path pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with a slash.
    #[error("a path begins with `/`")]
    NotAbsolute,
    /// A wildcard is part of a segment.
    #[error("a wildcard is a whole segment: `*` for one segment, `**` at the end for the rest")]
    PartialWildcard,
    /// `**` is not the last segment.
    #[error("`**` stands for the rest, so it is the last segment")]
    RestNotLast,
    /// It has a form that no normalized path has.
    #[error(
        "requests are judged by their normalized path, which has no `//`, `.`, `..`, `\\`, `;` or control character"
    )]
    NotNormalized,
    /// It holds a query, a fragment or an encoded character.
    #[error("a path is written decoded and without query or fragment: no `?`, `#` or `%`")]
    NotAPath,
    /// It is too long.
    #[error("a path has at most 1024 bytes")]
    TooLong,
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When no normalized path could match it, or it would have more than one reading.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let segments = checked_segments(text)?;
        let last = segments.clone().count() - 1;
        for (at, segment) in segments.enumerate() {
            match segment {
                "*" => {}
                "**" if at == last => {}
                "**" => return Err(PatternError::RestNotLast),
                _ if segment.contains('*') => return Err(PatternError::PartialWildcard),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a normalized path (without query) matches. Allocates nothing.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut wanted = self.0.split('/');
        let mut found = path.split('/');
        loop {
            match (wanted.next(), found.next()) {
                (Some("**"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(segment)) if !segment.is_empty() => {}
                (Some(want), Some(segment)) if want == segment && want != "*" => {}
                _ => return false,
            }
        }
    }
}

/// The segments of a path that is in normal form.
pub(crate) fn checked_segments(text: &str) -> Result<impl Iterator<Item = &str> + Clone, PatternError> {
    let rest = text.strip_prefix('/').ok_or(PatternError::NotAbsolute)?;
    if text.len() > MAX_BYTES {
        return Err(PatternError::TooLong);
    }
    if text.contains(['?', '#', '%']) {
        return Err(PatternError::NotAPath);
    }
    let last = rest.split('/').count() - 1;
    let normal = !text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '\\' | ';'))
        && rest.split('/').enumerate().all(|(at, s)| (at == last || !s.is_empty()) && s != "." && s != "..");
    if normal { Ok(rest.split('/')) } else { Err(PatternError::NotNormalized) }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PathPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        assert!(matches("/patients/*", "/patients/7"));
        for other in ["/patients", "/patients/", "/patients/7/notes", "/patient/7", "/patients/7/"] {
            assert!(!matches("/patients/*", other), "{other}");
        }
        assert!(matches("/patients/*/notes", "/patients/7/notes"));
        for below in ["/patients/", "/patients/7", "/patients/7/notes"] {
            assert!(matches("/patients/**", below), "{below}");
        }
        assert!(!matches("/patients/**", "/patients"));
        assert!(matches("/**", "/") && matches("/", "/") && !matches("/", "/a"));
        assert!(!matches("/*", "/*/x") && matches("/*", "/*"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, error) in [
            ("patients", PatternError::NotAbsolute),
            ("", PatternError::NotAbsolute),
            ("/a*", PatternError::PartialWildcard),
            ("/**/b", PatternError::RestNotLast),
            ("/a//b", PatternError::NotNormalized),
            ("/a/../b", PatternError::NotNormalized),
            ("/a b", PatternError::NotNormalized),
            ("/a%2fb", PatternError::NotAPath),
            ("/a?b", PatternError::NotAPath),
        ] {
            assert_eq!(PathPattern::parse(text), Err(error), "{text}");
        }
    }
}
