//! The `ringfence` binary: arguments, output, wiring; nothing else.
#![forbid(unsafe_code)]

mod args;
mod backup;
mod ca;
mod client;
mod content;
mod data;
mod doctor;
mod down;
mod drill;
mod env;
mod fence;
mod host;
mod key;
mod openapi;
mod prompt;
mod revoke;
mod roles;
mod run;
mod session;
mod store;
mod up;
mod view;
mod waf;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    // Before anything else: a process with threads cannot enter a user namespace.
    if let Some(code) = ringfence_sandbox::dispatch(first.as_deref()) {
        return code;
    }
    if let Some(code) = roles::dispatch(first.as_deref()) {
        return code;
    }
    if let Some(code) = drill::attack::dispatch(first.as_deref()) {
        return code;
    }
    args::Args::parse().run(env::Env::read())
}
