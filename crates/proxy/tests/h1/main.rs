//! The HTTP/1.1 codec, held to its rules, to hyper and to nginx.
#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod bodies;
mod differential;
mod message;
mod passing;
mod paths;
mod properties;
mod requests;
mod responses;
mod views;
mod writing;
