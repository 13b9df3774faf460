//! What the store promises: the same stories on a file and on a real PostgreSQL server, then those of several servers and lost connections.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![forbid(unsafe_code)]

mod both;
mod checker;
mod engine;
mod lost;
mod model;
mod moved;
mod relay;
mod secured;
mod server;
mod several;
mod standby;
