//! What a service must not see of the file system.

use crate::drill::target::Target;
use crate::drill::watch::Watch;
use crate::drill::{Outcome, Unable, inside};

/// What lies in a data directory and is worth having.
const WORTH: [&str; 5] = ["master.key", "keeper/keyring", "control/state.db", "control.sock", "ca.pem"];

pub(super) fn data_directory(target: &Target) -> Result<Outcome, Unable> {
    let service = &target.running()?.name;
    let folder = target.data().display().to_string();
    let mut watch = Watch::begin(&target.events())?;
    let arguments: Vec<&str> = ["read", folder.as_str()].into_iter().chain(WORTH).collect();
    let found = inside::run(target, service, &arguments)?;
    let count = |key: &str| found[key].as_array().map_or(usize::MAX, Vec::len);
    let (entries, opened) = (count("entries"), count("opened"));
    let event = watch
        .wait(|e| e.kind() == "tamper" && e.caller() == service && e.json["finding_info"]["uid"] == "decoy");
    let told = event.as_ref().map_or("no event tells of it", |e| e.message());
    let seen = match (entries, opened) {
        (0, 0) => "nothing to see".to_owned(),
        _ => format!("sees {}, opens {}", found["entries"], found["opened"]),
    };
    Ok(Outcome {
        stopped: entries == 0 && opened == 0,
        reported: event.is_some(),
        detail: format!("{service}: {seen}; {told}"),
    })
}
