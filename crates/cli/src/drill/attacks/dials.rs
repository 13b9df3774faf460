//! Dials past the proxy.

use std::net::Ipv4Addr;

use crate::drill::target::Target;
use crate::drill::watch::{Watch, went_to};
use crate::drill::{Outcome, Unable, inside};

/// Addresses that nobody has (RFC 5737, TEST-NET-3).
const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// A port that no service declares (tcpmux).
const UNDECLARED: u16 = 1;
/// A question for the address of `drill.invalid`, as any resolver asks it.
const QUESTION: &str = "1d1101000001000000000000056472696c6c07696e76616c69640000010001";

pub(super) fn direct(target: &Target) -> Result<Outcome, Unable> {
    let pair = target.neighbours()?;
    let mut dials = Vec::new();
    if let Some(port) = pair.callee.listen {
        dials.push(("tcp", Ipv4Addr::LOCALHOST.to_string(), port));
    }
    if let Ok(gateway) = target.gateway() {
        dials.push(("tcp", gateway.ip().to_string(), gateway.port()));
    }
    if let Some(address) = target.address(&pair.callee.name) {
        dials.push(("tcp", address.to_string(), UNDECLARED));
    }
    dial(target, &pair.caller.name, &dials)
}

pub(super) fn outside(target: &Target) -> Result<Outcome, Unable> {
    let service = &target.running()?.name;
    dial(target, service, &[("tcp", NOBODY.to_string(), 443), ("udp", NOBODY.to_string(), 53)])
}

fn dial(target: &Target, service: &str, dials: &[(&str, String, u16)]) -> Result<Outcome, Unable> {
    let mut watch = Watch::begin(&target.events())?;
    let (mut stopped, mut reported) = (true, true);
    let mut details = Vec::new();
    for (protocol, address, port) in dials {
        let at =
            if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        let arguments: &[&str] = if *protocol == "udp" { &["udp", &at, QUESTION] } else { &["tcp", &at] };
        let found = inside::run(target, service, arguments)?;
        let reached = found["reached"] != false;
        let told = watch
            .wait(|e| e.kind() == "dial" && e.caller() == service && went_to(e, address, *port))
            .is_some();
        let what = if reached { "REACHED" } else { "unreachable" };
        let told_as = if told { "" } else { ", and no event tells of it" };
        details.push(format!("{at} {what}{told_as}"));
        stopped &= !reached;
        reported &= told;
    }
    Ok(Outcome { stopped, reported, detail: format!("{service}: {}", details.join("; ")) })
}
