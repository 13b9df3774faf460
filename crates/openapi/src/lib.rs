//! Requests and responses against an OpenAPI description (3.0 or 3.1), which is read once and compiled.
//!
//! What has no place in the description, and what the description forbids, are told apart: the first may be a description that is behind
//! its service, the second is never right. Values are in no message, neither for the client nor for the operator.
//!
//! No I/O, no network: a reference out of the document is an error.

#![forbid(unsafe_code)]

mod content;
mod dialect;
mod formats;
mod judge;
pub mod learn;
mod load;
mod multipart;
mod operation;
mod parameter;
mod router;
mod schemas;
mod shape;
mod size;
mod source;
mod style;
mod text;
mod violation;

use std::borrow::Cow;

pub use learn::shape_of_path;
pub use operation::{Fields, Length, Match, Operation, Plan};
pub use source::Problem;
pub use violation::{MAX_VIOLATIONS, Place, Report, Violation};

/// Version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V30,
    V31,
}

/// A description, compiled; shared by all threads.
#[derive(Debug)]
pub struct Api {
    router: router::Router,
    operations: Vec<Operation>,
    warnings: Vec<Problem>,
}

/// What a request is for.
#[derive(Debug)]
pub enum Found<'a> {
    /// An operation.
    Operation(Match<'a>),
    /// A path that has other methods.
    Method {
        /// Those methods, as `Allow` lists them.
        allow: String,
    },
    /// No path of the description.
    Nothing,
}

impl Api {
    /// Reads a description, YAML or JSON.
    ///
    /// # Errors
    /// All that is wrong with it, each with its place.
    pub fn load(text: &str) -> Result<Self, Vec<Problem>> {
        load::load(text)
    }

    /// What is probably not meant.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// All operations.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// What a request is for; the path as it is normalized for routing.
    #[must_use]
    pub fn find<'a>(&'a self, method: &str, path: &'a str) -> Found<'a> {
        match self.router.find(method, path) {
            router::Routed::Operation(index, captures) => {
                Found::Operation(Match { operation: &self.operations[index], number: index, captures })
            }
            router::Routed::Methods(methods) => {
                let mut methods = methods;
                methods.sort_unstable();
                Found::Method { allow: methods.join(", ") }
            }
            router::Routed::Nowhere => Found::Nothing,
        }
    }
}

impl Found<'_> {
    /// What is wrong where there is no operation.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        let (place, expected) = match self {
            Self::Operation(_) => return None,
            Self::Method { allow } => (Place::Method, allow.clone()),
            Self::Nothing => (Place::Path, String::new()),
        };
        Some(Violation {
            place,
            name: "".into(),
            pointer: String::new(),
            rule: Cow::Borrowed("unknown"),
            expected,
            schema: "/paths".to_owned(),
            unknown: true,
        })
    }
}
