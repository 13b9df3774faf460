//! What policies decide with, and who asks them, end to end: the real processes, a server of data, services that ask.
#![expect(clippy::unwrap_used, reason = "test")]

mod data;
mod entities;
mod internal;
#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;

use std::time::Duration;

use running::{Clinic, text};

const SOON: Duration = Duration::from_secs(30);

/// A client's API key.
fn key(clinic: &Clinic, client: &str) -> String {
    let made = clinic.ringfence(&["key", "create", "--client", client]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    text(&made.stdout).trim().to_owned()
}

/// Status and body of an answer to a client.
fn ask(clinic: &Clinic, path: &str, key: &str) -> (u16, String) {
    let output = clinic.curl(&["-H", &format!("X-API-Key: {key}"), "-w", "\n%{http_code}", path]);
    let said = text(&output.stdout);
    let (body, code) = said.rsplit_once('\n').unwrap_or(("", "0"));
    (code.parse().unwrap_or(0), body.to_owned())
}
