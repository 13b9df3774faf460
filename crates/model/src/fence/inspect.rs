//! What requests are looked through for: attacks (`waf`), and what a description of an API does not have (`openapi`).

use serde::{Deserialize, Serialize};

use super::{Date, Mode};
use crate::pattern::PathPattern;
use crate::position::Position;

/// `waf:`, how attacks are looked for. It holds for every route of the gateway that does not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waf {
    /// What becomes of an attack.
    pub mode: Mode,
    /// A folder with the OWASP Core Rule Set, relative to the fence's folder; the embedded baseline without it.
    pub crs: Option<String>,
    /// Paranoia level, 1 to 4.
    pub paranoia: u8,
    /// Score at which a request is an attack.
    pub inbound: u32,
    /// Score at which a response is one's result.
    pub outbound: u32,
    /// How many bytes of a body are inspected.
    pub inspect: u64,
    /// What becomes of a longer body.
    pub beyond: Beyond,
    /// Whether responses are inspected too.
    pub responses: bool,
    /// What is not looked for, in order of declaration.
    pub exclude: Vec<Exclusion>,
    /// Where `waf:` stands.
    pub position: Position,
}

/// What becomes of a body that is longer than what is inspected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Beyond {
    /// It is refused.
    #[default]
    Reject,
    /// Its head is inspected, and the rest passes.
    Head,
}

/// Rules that do not count somewhere, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// Which.
    pub of: Excluded,
    /// The variable in which they do not count, such as `ARGS:q`; everywhere without it.
    pub target: Option<String>,
    /// The paths on which they do not count; all without it.
    pub path: Option<PathPattern>,
    /// Why.
    pub reason: String,
    /// The last day, in UTC.
    pub until: Date,
    /// Where it is declared.
    pub position: Position,
}

/// Which rules an exclusion is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Excluded {
    /// Those of these numbers; at least one.
    Rules(Vec<u32>),
    /// Those with this tag.
    Tag(String),
}

/// `openapi:`, which description of its API a service is held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenApi {
    /// The description, OpenAPI 3.0 or 3.1 as YAML or JSON, relative to the fence's folder.
    pub file: String,
    /// What becomes of a request that is not as described.
    pub mode: Mode,
    /// What becomes of a response that is not as described.
    pub responses: Mode,
    /// What becomes of a request that the description does not know at all.
    pub undocumented: Mode,
    /// Where the description is named.
    pub position: Position,
}

impl Waf {
    /// Paranoia level, scores and bytes of a body, unless the fence says otherwise.
    pub const PARANOIA: u8 = 1;
    /// See [`Waf::PARANOIA`].
    pub const INBOUND: u32 = 5;
    /// See [`Waf::PARANOIA`].
    pub const OUTBOUND: u32 = 4;
    /// See [`Waf::PARANOIA`].
    pub const INSPECT: u64 = 128 << 10;

    /// What holds where a fence says nothing but that attacks are looked for.
    #[must_use]
    pub const fn new(mode: Mode, position: Position) -> Self {
        Self {
            mode,
            crs: None,
            paranoia: Self::PARANOIA,
            inbound: Self::INBOUND,
            outbound: Self::OUTBOUND,
            inspect: Self::INSPECT,
            beyond: Beyond::Reject,
            responses: false,
            exclude: Vec::new(),
            position,
        }
    }

    /// What holds where a fence does not say anything: the embedded rules, and long bodies pass when nothing is wrong with their head.
    #[must_use]
    pub fn unless_said(position: Position) -> Self {
        Self { beyond: Beyond::Head, ..Self::new(Mode::Enforce, position) }
    }

    /// The exclusions that still count at this Unix time in seconds.
    pub fn exclusions(&self, now: u64) -> impl Iterator<Item = &Exclusion> {
        self.exclude.iter().filter(move |exclusion| !exclusion.until.is_over(now))
    }
}

impl Beyond {
    /// The word for it in the fence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Head => "head",
        }
    }
}
