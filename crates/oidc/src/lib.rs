//! The relying party: what it takes to let people sign in at OpenID providers.
//!
//! Two halves that never meet in one process. *Federation* ([`run`]) speaks with providers: metadata, keys, the code flow with PKCE, refresh,
//! introspection, logout. It holds client secrets, so the process that parses the internet is another one. *Sessions* ([`session`]) are what
//! a gateway needs: sealed cookies and paths to return to; pure functions, no I/O.
//!
//! What a token must be to be believed is decided in the crate `token`. General OpenID client libraries were rejected: they bring a second HTTP and
//! TLS stack, and fetch where a document points them.
#![forbid(unsafe_code)]

mod answer;
mod client_auth;
mod discovery;
mod endpoint;
mod entities;
mod fetch;
mod id_token;
mod introspection;
mod known;
mod party;
mod process;
pub mod protocol;
mod provider;
mod replay;
mod request;
pub mod session;

pub use discovery::{DiscoveryError, Metadata};
pub use introspection::{IntrospectionError, KEEP as INTROSPECTION_KEEP, read_introspection};
pub use process::{OidcError, run};
