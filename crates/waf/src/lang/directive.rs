//! What a rule file says, one item per directive.

use super::{ActionNode, Position, Target};

/// A directive and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) position: Position,
    pub(crate) directive: Directive,
}

/// The second word of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperatorNode {
    pub(crate) negated: bool,
    /// Without the `@`.
    pub(crate) name: String,
    pub(crate) argument: Vec<u8>,
    pub(crate) position: Position,
}

/// `SecRule` and, without targets and operator, `SecAction`.
#[derive(Clone, Debug)]
pub(crate) struct RuleNode {
    pub(crate) targets: Vec<Target>,
    pub(crate) operator: Option<OperatorNode>,
    pub(crate) actions: Vec<ActionNode>,
    /// Where the list of actions begins.
    pub(crate) actions_at: Position,
}

/// Directives that set one thing of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    RuleEngine(String),
    RequestBodyAccess(bool),
    RequestBodyLimit(u64),
    RequestBodyNoFilesLimit(u64),
    RequestBodyLimitAction(String),
    RequestBodyJsonDepthLimit(u64),
    ResponseBodyAccess(bool),
    ResponseBodyLimit(u64),
    ResponseBodyLimitAction(String),
    ResponseBodyMimeTypes(Vec<String>),
    ResponseBodyMimeTypesClear,
    ArgumentsLimit(u64),
    ArgumentSeparator(u8),
    WebAppId(String),
    ComponentSignature(String),
}

/// One directive.
#[derive(Clone, Debug)]
pub(crate) enum Directive {
    Rule(RuleNode),
    Marker(String),
    DefaultAction(Vec<ActionNode>),
    /// First and last id of each range, then the targets.
    UpdateTargetById(Vec<(u64, u64)>, Vec<Target>),
    UpdateTargetByTag(String, Vec<Target>),
    UpdateTargetByMsg(String, Vec<Target>),
    /// Rule id, which link of the chain, actions.
    UpdateActionById(u64, usize, Vec<ActionNode>),
    RemoveById(Vec<(u64, u64)>),
    RemoveByTag(String),
    RemoveByMsg(String),
    Set(Setting),
    /// Another file, or a pattern of files.
    Include {
        path: String,
        optional: bool,
    },
    /// Known, and without effect here: where logs go, how another process behaves.
    NoEffect(String),
}
