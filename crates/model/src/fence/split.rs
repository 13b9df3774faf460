//! `split` of a way: which of its requests go to another service.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::position::Position;

/// Which requests along a way go to other services. Each is then a request to that service, by all that is said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// What is the same for requests that go the same way; none: each goes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Cohort>,
    /// Where to, in this order.
    pub to: Vec<Branch>,
    /// Where it is declared.
    pub position: Position,
}

/// What tells those apart who go different ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cohort {
    /// The address of the gateway's client.
    Address,
    /// The value of a field, its name in lower case.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
}

/// Requests that go to another service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// That service.
    pub service: String,
    /// Which.
    pub which: Which,
    /// Where it is declared.
    pub position: Position,
}

/// Which requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// So many of a hundred.
    Weight(u32),
    /// Those with this field, its name in lower case, and this value.
    Field {
        /// Its name.
        name: String,
        /// Its whole value.
        value: String,
    },
}

impl Split {
    /// In a few words behind what is allowed.
    pub(super) fn summarize(&self, text: &mut String) {
        for branch in &self.to {
            let _ = match &branch.which {
                Which::Weight(percent) => write!(text, ", {percent}% to {}", branch.service),
                Which::Field { name, value } => write!(text, ", with {name}: {value} to {}", branch.service),
            };
        }
    }
}
