//! A fence is read whole, every element knows its place, and what is wrong is told all at once.

mod access;
mod fragments;
mod hosts;
mod metrics;
mod nonsense;
mod protect;
mod whole;

use ringfence_model::{Diagnostics, Fence, Position};

const CLINIC: &str = include_str!("../data/clinic.yaml");

fn parse(text: &str) -> Result<Fence, Diagnostics> {
    Fence::parse(vec![("ringfence.yaml", text)])
}

fn at(position: &Position) -> String {
    position.to_string()
}

/// A fence around the lines of one service, `portal`, beside `patients`, which listens.
fn with_portal(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "fence: t\ntrust_domain: t.example\ngateway: {{ listen: 127.0.0.1:1 }}\nservices:\n  patients: {{ listen: 1 }}\n  portal:\n{indented}"
    )
}

fn codes(text: &str) -> Vec<&'static str> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.errors.iter().map(|e| e.code).collect(),
    }
}
