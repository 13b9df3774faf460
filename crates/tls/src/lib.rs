//! The only door to rustls: configurations, resolvers, verifiers.
//!
//! Three kinds of connection exist: *mesh* (both ends show SVIDs, TLS 1.3 only, the server is checked against one
//! exact SPIFFE ID), *gateway* (clients from outside), *egress* (servers outside, known by their host name).
//! Everything that changes (identities, bundles, certificates) sits behind an `ArcSwap` that configurations read
//! at each handshake, so rotation builds no configuration and takes no lock.
#![forbid(unsafe_code)]

mod address;
mod binding;
mod drill;
mod egress;
mod gateway;
mod hello;
mod hosts;
mod identity;
mod mesh;
mod metrics;
mod peers;
mod provider;
mod refusal;
mod svid;
mod verifier;

pub use address::{Reach, reach};
pub use binding::server_end_point;
pub use drill::drill_client_config;
pub use egress::{EgressError, EgressRoots, egress_client_config};
pub use gateway::{
    GatewayCertificate, GatewayCertificates, GatewayError, gateway_asking_config, gateway_server_config,
};
pub use hello::{Hello, peek_hello};
pub use hosts::{CONTROL_NAME, introduction_client_config};
pub use identity::{Identity, IdentityError};
pub use mesh::{Alpn, Mesh, MeshError, mesh_server_name};
pub use metrics::{Group, HandshakeMetrics, HandshakeSnapshot, negotiated_group};
pub use refusal::Refusal;

pub use rustls::pki_types;
pub use rustls::{
    ClientConfig, ClientConnection, CommonState, Error, ProtocolVersion, ServerConfig, ServerConnection,
};
pub use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector, client, server};
