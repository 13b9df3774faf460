//! Health as the Consul API words it.

use serde::Serialize;

/// Longest text that a service says of its own health, in bytes.
pub(crate) const MAX_OUTPUT: usize = 512;

/// How something does; the worst of several is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It serves.
    Passing,
    /// It serves, and says that something is wrong.
    Warning,
    /// It is not to be called.
    Critical,
}

impl Status {
    /// The word of the Consul API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Passing, Self::Warning, Self::Critical].into_iter().find(|status| status.word() == word)
    }
}

/// Who judges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// The sidecar, which sees whether the service answers.
    Sidecar,
    /// The service says so itself, again and again.
    Ttl,
    /// The operator or the service took it out.
    Maintenance,
}

/// One look at an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Unique within its service.
    pub id: String,
    /// For people.
    pub name: String,
    /// Who judges.
    pub kind: CheckKind,
    /// The verdict.
    pub status: Status,
    /// What came with it.
    pub output: String,
}

/// At most so many bytes of a text, without half a character.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
