//! The node as its neighbours see it: real sockets, real TLS, real namespaces; control, supervisor and shims are played.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "tests: a step that fails fails the test"
)]

mod alike;
mod baseline;
mod bound;
mod breaker;
mod carried;
mod crowds;
mod delegate;
mod desync;
mod faults;
mod frames;
mod framing;
mod gateway;
mod grpc;
mod handling;
mod held;
mod internal;
mod keeper;
mod keys;
mod limits;
mod login;
mod mesh;
mod mixed;
mod net;
mod opaque;
mod openapi;
mod patience;
mod policies;
mod registry;
mod replicas;
mod responses;
mod revoke;
mod rig;
mod service;
mod spelling;
mod splits;
mod state;
mod stolen;
mod tokens;
mod waf;
mod walls;
