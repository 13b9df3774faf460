//! SPIFFE IDs, trust bundles and SVID verification: the one place a peer becomes verified.
//!
//! Path building is rustls-webpki's; what it has no words for (exactly one URI SAN, leaf and signing
//! certificates kept apart, the trust domain choosing the bundle, the profile of RFC 5280) is checked here
//! on a certificate view of our own. Nothing here does I/O or reads a clock: time is an argument.
#![forbid(unsafe_code)]

mod algorithms;
pub mod bundle;
mod bundle_json;
pub mod certificate;
pub mod client;
pub mod der;
pub mod extension;
pub mod general_name;
pub mod id;
pub mod key;
mod name_constraints;
pub mod path;
mod profile;
mod revocation;
pub mod revoked;
mod spki;
pub mod svid;

pub use algorithms::signature_algorithms;
pub use bundle::{BundleError, BundleSet, JwtAuthority, TrustBundle};
pub use client::{ClientAuthority, ClientError, VerifiedClient};
pub use id::{IdError, Kind, SpiffeId, TrustDomain};
pub use key::{KeyAlgorithm, KeyError, LeafKey};
pub use revoked::RevokedSvids;
pub use rustls_pki_types::{CertificateDer, UnixTime};
pub use svid::{Role, SvidError, VerifiedPeer, verify_svid};
