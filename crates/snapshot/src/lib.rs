//! What enforcement points run from: why this is a crate.
//!
//! The fence is text that people change; an enforcement point needs something compiled, numbered and signed that it can
//! check by itself, so that whoever distributes it cannot alter it and nobody can replay an old one. The keeper signs the
//! exact bytes, so there is no canonical form to disagree about. No I/O, no tasks.
#![forbid(unsafe_code)]

mod address;
mod ask;
mod behalf;
mod believed;
mod compile;
mod content;
mod der;
mod identity;
pub mod node;
mod signed;
mod types;

pub use address::{
    Addresses, EGRESS_BASE, OWN_HOST, OWN_IP, Place, REGISTRY_PORT, SERVICE_BASE, egress_ip,
    loopback_egress_ip, loopback_own_ip, loopback_service_ip, place, service_ip,
};
pub use behalf::credential_of;
pub use believed::{login_profile_of, profile_of};
pub use compile::{CompileError, Header, compile};
pub use content::{Content, ContentError, ContentPart, Digest, Held};
pub use der::Der;
pub use identity::{Identity, IdentityError, IdentityKind, MAX_NAME, MAX_NAMES, mapping_of};
pub use signed::{SignedSnapshot, SnapshotError, VerifiedSnapshot};
pub use types::{
    Bundle, ClientAuthority, Egress, JwtKey, MAX_AUTHORITIES, MAX_POLICY_BYTES, MAX_POLICY_FILES, Policies,
    Service, Snapshot, Target, Text,
};
