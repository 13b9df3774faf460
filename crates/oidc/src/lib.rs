//! The relying party: what it takes to let people sign in at an OpenID provider.
#![forbid(unsafe_code)]

pub mod session;
