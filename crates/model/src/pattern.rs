//! Path patterns of `allow:`: which requests may pass along an edge.
//!
//! Deliberately less than a glob or a regular expression: one reading per pattern, linear time, and two patterns can be
//! compared. `*` stands for exactly one non-empty segment, `{name}` for the same and names it for policies, `**` (only at
//! the end) for all that follows the slash.

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
    /// Braces that are not `{name}`.
    #[error(
        "a named segment is `{{name}}`: a letter, then letters, digits and `_`, at most 32, each name once"
    )]
    BadName,
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
        let mut names: Vec<&str> = Vec::new();
        for (at, segment) in segments.enumerate() {
            match segment {
                "*" => {}
                _ if segment.contains(['{', '}']) => {
                    let name = parameter(segment).ok_or(PatternError::BadName)?;
                    if names.contains(&name) {
                        return Err(PatternError::BadName);
                    }
                    names.push(name);
                }
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
                (Some(want), Some(segment)) if is_any(want) => {
                    if segment.is_empty() {
                        return false;
                    }
                }
                (Some(want), Some(segment)) if want == segment => {}
                _ => return false,
            }
        }
    }
}

/// Reads a path prefix of a route: whole segments, some of them named, no wildcards.
pub(crate) fn prefix(text: &str) -> Result<(), PatternError> {
    let mut names: Vec<&str> = Vec::new();
    for segment in checked_segments(text)?.filter(|segment| segment.contains(['{', '}'])) {
        let name = parameter(segment).filter(|name| !names.contains(name)).ok_or(PatternError::BadName)?;
        names.push(name);
    }
    Ok(())
}

/// Whether a normalized path begins with the segments of a prefix, of which two are one if `same` says so.
pub(crate) fn begins(prefix: &str, path: &str, same: impl Fn(&str, &str) -> bool) -> bool {
    let mut found = path.split('/');
    prefix.split('/').all(|want| match found.next() {
        Some(segment) if is_any(want) => !segment.is_empty(),
        segment => segment.is_some_and(|segment| same(segment, want)),
    })
}

/// The order of prefixes by which the first that covers a path is the most specific one.
pub(crate) fn specificity(one: &str, other: &str) -> std::cmp::Ordering {
    fn segments(text: &str) -> Vec<(bool, &str)> {
        let all = text.split('/').filter(|segment| !segment.is_empty());
        all.map(|segment| if is_any(segment) { (true, "") } else { (false, segment) }).collect()
    }
    let (one, other) = (segments(one), segments(other));
    let first = one.iter().zip(&other).map(|(a, b)| a.cmp(b)).find(|order| order.is_ne());
    first.unwrap_or_else(|| other.len().cmp(&one.len()))
}

/// A prefix or pattern without the names of its segments: two that are alike match the same paths.
pub(crate) fn shape(text: &str) -> String {
    let segments: Vec<&str> =
        text.split('/').map(|segment| if is_any(segment) { "*" } else { segment }).collect();
    segments.join("/")
}

/// The name in `{name}`.
fn parameter(segment: &str) -> Option<&str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let good = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    good.then_some(name)
}

/// Whether a segment of a pattern stands for any one segment.
fn is_any(segment: &str) -> bool {
    segment == "*" || segment.starts_with('{')
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
    fn a_name_in_braces_is_one_segment() {
        assert!(matches("/patients/{id}", "/patients/7") && matches("/patients/{id}", "/patients/{id}"));
        assert!(!matches("/patients/{id}", "/patients/") && !matches("/patients/{id}", "/patients/7/notes"));
        assert!(matches("/patients/{id}/notes/**", "/patients/7/notes/1"));
        for bad in ["/{}", "/{a b}", "/{a}b", "/{1}", "/{a}/{a}", "/a}", "/{a", "/{*}"] {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
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
