//! The clinic: four of its five services in one binary, `clinic SERVICE` (the fifth is `services/patients.py`).
//!
//! Nothing here knows of Ringfence: the services find each other by name and port, speak plain HTTP and gRPC, and run
//! unchanged under Compose. What they may do is declared beside them, in `ringfence.yaml`.

#![forbid(unsafe_code)]

mod appointments;
mod billing;
mod client;
mod config;
mod mailer;
mod passed;
mod portal;
mod problem;
mod records;
mod serve;

use std::process::ExitCode;

const USAGE: &str = "usage: clinic portal|appointments|billing|mailer
The fifth service is services/patients.py; README.md says how they fit together.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match (args.next().as_deref(), args.next()) {
        (Some("portal"), None) => portal::run().await,
        (Some("appointments"), None) => appointments::run().await,
        (Some("billing"), None) => billing::run().await,
        (Some("mailer"), None) => mailer::run().await,
        (Some("--help" | "-h"), None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clinic: {error}");
            ExitCode::from(3)
        }
    }
}
