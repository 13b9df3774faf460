//! Processes that are not a service's own.

use crate::drill::target::Target;
use crate::drill::watch::Watch;
use crate::drill::{Outcome, Unable, attack, inside};

/// Most processes that are looked for.
const MOST: usize = 48;

pub(super) fn neighbour(target: &Target) -> Result<Outcome, Unable> {
    let service = &target.running()?.name;
    // Without isolation PID 1 is the host's, which is nobody's to attack.
    let first = if target.isolated() { "pid1" } else { "-" };
    let named = |pid: u32| {
        let pid = i32::try_from(pid).ok()?;
        Some(format!("{pid}:{}", attack::start_time(pid)?))
    };
    let neighbours: Vec<String> =
        target.strangers(service).into_iter().filter_map(named).take(MOST).collect();
    let arguments: Vec<&str> =
        ["processes", first].into_iter().chain(neighbours.iter().map(String::as_str)).collect();
    let mut watch = Watch::begin(&target.events())?;
    let found = inside::run(target, service, &arguments)?;
    let found = found["found"].as_array().cloned().unwrap_or_default();
    let strangers = found.iter().filter(|f| f["pid"] != 1).count();
    let harmed = found.iter().any(|f| f["killed"] == true || f["traced"] == true);
    let mut told = |what: &str| {
        watch
            .wait(|e| e.kind() == "tamper" && e.caller() == service && e.json["finding_info"]["uid"] == what)
            .is_some()
    };
    let (signal, trace) = (told("signal"), told("trace"));
    let detail = format!(
        "{service}: {strangers} of {} other processes visible, {}; signal {}, trace {}",
        neighbours.len(),
        if harmed { "SOME WITHIN REACH" } else { "none within reach" },
        if signal { "told" } else { "NOT told" },
        if trace { "told" } else { "NOT told" },
    );
    let pid1_held = !target.isolated() || found.iter().any(|f| f["pid"] == 1);
    Ok(Outcome { stopped: strangers == 0 && !harmed && pid1_held, reported: signal && trace, detail })
}
