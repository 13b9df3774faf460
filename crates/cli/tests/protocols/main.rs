//! Each protocol end to end, by real clients and real servers: through the gateway, and from service to service through
//! both sidecars.
#![expect(clippy::unwrap_used, reason = "test")]

mod lab;

mod egress;
mod grpc;
mod headers;
mod http1;
mod http2;
mod run;
mod scan;
mod tcp;
mod websocket;
