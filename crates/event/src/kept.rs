//! What survives of a file that is let go: the newest events of each group, in equal shares.
//!
//! A group is who acted, the kind of event, and whether it was refused. Letting the oldest file go as a whole was rejected: a service that
//! calls all the time would push out the events of all others, and its own refusals. Counting alike events in
//! one was rejected too: the caller of each refused request holds its id, which `ringfence why` must find; and whoever
//! varies the path makes no two alike.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::Deserialize;

use crate::place::{open_mine, open_own};
use crate::query::{MAX_LINE, kind_name};

/// Most groups; what comes after them shares one.
const MAX_GROUPS: usize = 8192;

/// Who acted, the kind, whether it was refused.
type Group = (String, &'static str, bool);

/// What did not survive.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) events: u64,
    /// Who lost the most, and how many.
    pub(crate) most: Option<(String, u64)>,
}

impl Gone {
    pub(crate) fn to_string_if_any(&self) -> Option<String> {
        let (who, most) = self.most.as_ref()?;
        Some(format!(
            "{} old events made room, {most} of them of {who}, of whom there are the most",
            self.events
        ))
    }
}

#[derive(Debug, Default)]
struct Lines {
    groups: HashMap<Group, usize>,
    sizes: Vec<u64>,
    /// Group and length of each line, in order.
    lines: Vec<(u32, u32)>,
}

/// Adds to `kept` what survives of `leaving`, and removes that. Both together come to `limit` bytes at most; `unfinished` is
/// the name of the new file until it is whole.
pub(crate) fn merge(kept: &Path, leaving: &Path, unfinished: &Path, limit: u64) -> io::Result<Gone> {
    let mut lines = Lines::default();
    for path in [kept, leaving] {
        each_line(path, |line| {
            lines.note(line);
            Ok(())
        })?;
    }
    let share = share(&lines.sizes, limit);
    let mut surplus: Vec<u64> = lines.sizes.iter().map(|size| size.saturating_sub(share)).collect();
    let mut lost = vec![0; lines.sizes.len()];
    let file = open_own(unfinished)?;
    file.set_len(0)?;
    let mut file = BufWriter::new(file);
    let mut noted = lines.lines.iter();
    for path in [kept, leaving] {
        each_line(path, |line| {
            // Nobody else writes there; if somebody does all the same, it is not ours.
            let Some((group, length)) = noted.next() else { return Ok(()) };
            let group = *group as usize;
            if line.len() != *length as usize {
                return Err(io::Error::other("an old event file changed while it was read"));
            }
            if surplus[group] == 0 {
                return file.write_all(line);
            }
            surplus[group] = surplus[group].saturating_sub(u64::from(*length));
            lost[group] += 1;
            Ok(())
        })?;
    }
    file.flush()?;
    std::fs::rename(unfinished, kept)?;
    std::fs::remove_file(leaving)?;
    Ok(lines.gone(&lost))
}

/// The largest share at which all groups, each cut to it, come to `limit` bytes at most.
fn share(sizes: &[u64], limit: u64) -> u64 {
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable();
    let mut left = limit;
    for (n, size) in sorted.iter().enumerate() {
        let fair = left / (sorted.len() - n) as u64;
        if *size > fair {
            return fair;
        }
        left -= size;
    }
    u64::MAX
}

fn each_line(path: &Path, mut then: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let Some(file) = open_mine(path)? else { return Ok(()) };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        // A line that a crash cut, or that is too long to be one of ours, would spoil the next.
        if line.last() == Some(&b'\n') {
            then(&line)?;
        }
    }
}

impl Lines {
    fn note(&mut self, line: &[u8]) {
        let group = group(line).unwrap_or_else(|| (String::new(), "other", false));
        let index = match self.groups.get(&group) {
            Some(index) => *index,
            None if self.groups.len() < MAX_GROUPS => {
                self.groups.insert(group, self.sizes.len());
                self.sizes.push(0);
                self.sizes.len() - 1
            }
            None => {
                // The last one is shared.
                self.sizes.len() - 1
            }
        };
        self.sizes[index] += line.len() as u64;
        self.lines.push((index as u32, line.len() as u32));
    }

    fn gone(&self, lost: &[u64]) -> Gone {
        let mut by_name = HashMap::<&str, u64>::new();
        for ((name, ..), index) in &self.groups {
            *by_name.entry(name).or_default() += lost[*index];
        }
        let most =
            by_name.into_iter().filter(|(_, lost)| *lost > 0).max_by_key(|(name, lost)| (*lost, *name));
        Gone { events: lost.iter().sum(), most: most.map(|(name, lost)| (name.to_owned(), lost)) }
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    class_uid: u64,
    #[serde(default)]
    action_id: u64,
    #[serde(borrow, default)]
    src_endpoint: Named<'a>,
    #[serde(borrow, default)]
    app: Named<'a>,
    #[serde(borrow, default)]
    entity: Named<'a>,
    #[serde(borrow, default)]
    unmapped: Named<'a>,
}

#[derive(Default, Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    svc_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    service: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
}

fn group(line: &[u8]) -> Option<Group> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let names = [line.src_endpoint.svc_name, line.app.name, line.unmapped.service, line.entity.name];
    let caller = names.into_iter().flatten().next().unwrap_or_default();
    let kind = kind_name(Some(line.class_uid), line.unmapped.event.as_deref());
    Some((caller.into_owned(), kind, line.action_id == 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dial, Entity, Event, Kind, Lifecycle, LifecycleActivity, Record, Scan, Severity, Tamper};
    use proptest::prelude::*;

    #[test]
    fn a_line_is_grouped_as_its_reader_would_name_it() {
        let lifecycle =
            Lifecycle { name: "a", activity: LifecycleActivity::Stop, message: "", severity: Severity::Low };
        let entity =
            Entity { entity: "root", name: "r\"", uid: None, activity: 1, granted: false, message: "" };
        let dial = Dial {
            service: "portal",
            protocol: "tcp",
            destination: [10, 0, 0, 1].into(),
            port: 1,
            query: None,
            count: 1,
            place: "outside",
        };
        let kinds = [
            Kind::Dial(dial),
            Kind::Scan(Scan { service: "portal", ports: 1, addresses: 1, packets: 1 }),
            Kind::Tamper(Tamper { service: "portal", what: "decoy", message: "", count: 1 }),
            Kind::Lifecycle(lifecycle),
            Kind::Entity(entity),
        ];
        for kind in kinds {
            let mut line = Vec::new();
            Event::new(kind).write(&mut line);
            let record = Record { producer: "p".into(), json: serde_json::from_slice(&line).unwrap() };
            let expected = (record.caller().to_owned(), record.kind(), record.denied());
            assert_eq!(group(&line), Some(expected), "{}", String::from_utf8_lossy(&line));
            assert_eq!(record.caller(), kind.subject());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_grouped_or_not_and_never_panic(line: Vec<u8>) {
            group(&line);
        }

        #[test]
        fn shares_fit_and_nobody_small_is_cut(sizes in proptest::collection::vec(0u64..10_000, 0..50), limit in 0u64..100_000) {
            let share = share(&sizes, limit);
            prop_assert!(sizes.iter().map(|s| (*s).min(share)).sum::<u64>() <= limit);
            let fair = limit / sizes.len().max(1) as u64;
            prop_assert!(share >= fair, "who has less than an equal share keeps all");
        }
    }
}
