//! A call along an edge that nobody declared.

use ringfence_event::TraceContext;
use ringfence_model::Protocol;

use crate::drill::target::Target;
use crate::drill::watch::{Watch, is_of, rule};
use crate::drill::{Outcome, Unable, inside};

pub(super) fn undeclared(target: &Target) -> Result<Outcome, Unable> {
    let pair = target.undeclared()?;
    let (caller, callee) = (pair.caller.name.as_str(), pair.callee.name.as_str());
    let trace = String::from_utf8_lossy(&TraceContext::start().encode()).into_owned();
    let id = &trace[3..35];
    let mut watch = Watch::begin(&target.events())?;
    let at = format!("{callee}:{}", pair.callee.port.unwrap_or(80));
    let found = inside::run(target, caller, &["http", &at, &format!("traceparent: {trace}")])?;
    // Over plain TCP there is nothing to answer with: the connection ends without a byte.
    let tcp = pair.callee.protocol == Protocol::Tcp;
    let stopped =
        if tcp { found["bytes"] == 0 || found["error"].is_string() } else { found["status"] == 403 };
    let event = watch.wait(|e| {
        let same = e.caller() == caller && e.callee() == callee && rule(e) == "edge.undeclared" && e.denied();
        same && e.json["unmapped"]["missing"].is_string() && (tcp || is_of(e, id))
    });
    let answer = match (found["status"].as_u64(), found["error"].as_str()) {
        (Some(status), _) => format!("answered {status}"),
        (_, Some(error)) => error.to_owned(),
        _ => "closed without an answer".to_owned(),
    };
    let told = event.as_ref().map_or_else(
        || "no event tells of it".to_owned(),
        |e| format!("would need {}", e.json["unmapped"]["missing"].as_str().unwrap_or("")),
    );
    Ok(Outcome {
        stopped,
        reported: event.is_some(),
        detail: format!("{caller} → {callee}: {answer}; {told}"),
    })
}
