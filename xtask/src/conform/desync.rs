//! Desynchronization: what nginx, haproxy and lighttpd behind the gateway see of streams of requests that were made to be read in two ways.
//!
//! The story among the proxy's tests, with far more streams. It ends with the line `desync: passed/total`.

use std::process::ExitCode;

use crate::process::{Error, cargo, status};
use crate::tools;

/// Streams to each server.
const STREAMS: &str = "20000";

/// Runs it.
///
/// # Errors
/// A server or `cargo` cannot be started.
pub(crate) fn run() -> Result<ExitCode, Error> {
    tools::install(tools::TEST)?;
    let story = "desync::other_people_s_servers_see_the_requests_that_were_judged_and_no_others";
    let mut command = cargo([
        "test",
        "--quiet",
        "--package",
        "ringfence-proxy",
        "--test",
        "stories",
        story,
        "--",
        "--exact",
        "--nocapture",
    ]);
    command.env("RINGFENCE_DESYNC_STREAMS", STREAMS);
    Ok(if status(&mut command)?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
