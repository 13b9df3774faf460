//! The words of the schema that the fence generates.

use cedar_policy_core::ast::{Eid, EntityType, EntityUID};

/// Whoever proved nothing.
pub(crate) const ANONYMOUS: &str = "Anonymous";
/// The one entity of that type.
pub(crate) const ANYONE: &str = "anyone";
/// Software with credentials of its own.
pub(crate) const CLIENT: &str = "Client";
/// What users and clients belong to.
pub(crate) const GROUP: &str = "Group";
/// A path template of a service.
pub(crate) const PATH: &str = "Path";
/// A service of the fence.
pub(crate) const SERVICE: &str = "Service";
/// A human.
pub(crate) const USER: &str = "User";
/// The type of actions.
pub(crate) const ACTION: &str = "Action";

/// Types that the fence generates; data may add attributes to them.
pub(crate) const GENERATED: [&str; 6] = [ANONYMOUS, CLIENT, GROUP, PATH, SERVICE, USER];

/// HTTP methods that change nothing.
pub(crate) const READS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
/// HTTP methods that change something.
pub(crate) const WRITES: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];
/// A gRPC call, whatever its method.
pub(crate) const RPC: &str = "rpc";
/// A TCP connection.
pub(crate) const CONNECT: &str = "connect";
/// An HTTP method without a name of its own here; `context.method` has it.
pub(crate) const OTHER: &str = "other";

/// An entity of one of our types.
pub(crate) fn uid(kind: &'static str, id: &str) -> EntityUID {
    let kind = EntityType::from_normalized_str(kind).expect("invariant: our type names are Cedar names");
    EntityUID::from_components(kind, Eid::new(id), None)
}

/// Whether a text is a plain Cedar name, and none that the language keeps for itself.
pub(crate) fn is_identifier(text: &str) -> bool {
    let plain = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain && !text.starts_with("__") && EntityType::from_normalized_str(text).is_ok()
}

/// A text as a Cedar string literal.
pub(crate) fn literal(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}
