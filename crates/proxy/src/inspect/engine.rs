//! The rules of a fence, compiled on the control thread when they changed.

use std::collections::HashMap;
use std::sync::Arc;

use ringfence_model::content::crs_rules;
use ringfence_model::{Excluded, Mode, PathPattern, Protocol, Route, Waf};
use ringfence_snapshot::{Content, Snapshot};
use ringfence_waf::{
    Exclusion, ExclusionError, Interruption, LoadError, Rules, Selection, Set, Source, Transaction,
};

use super::told;
use crate::content::Files;
use crate::deny::Deny;
use crate::table::Table;

/// Mistakes of a rule set that are told.
const TOLD: usize = 3;

/// Compiled rules, and what of them does not count.
#[derive(Debug)]
pub(crate) struct Engine {
    rules: Arc<Rules>,
    exclusions: Vec<Excluding>,
    waf: Waf,
    position: String,
    /// What the rules were made of.
    content: Vec<Content>,
}

#[derive(Debug)]
struct Excluding {
    exclusion: Exclusion,
    path: Option<PathPattern>,
    /// Unix time in seconds.
    ends_at: u64,
}

impl Engine {
    /// The rules by which a snapshot's routes are inspected, if any are: those that it names, the embedded ones where it says nothing.
    /// Those of the table before are used again as far as nothing in them changed.
    pub(crate) fn of(
        snapshot: &Snapshot,
        before: Option<&Table>,
        files: &Files<'_>,
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(route) = inspected(snapshot) else { return Ok(None) };
        let unless_said;
        let waf = match &snapshot.waf {
            Some(waf) => waf,
            None => {
                unless_said = Waf::unless_said(route.position.clone());
                &unless_said
            }
        };
        let folder = waf.crs.as_deref();
        let is_rule = |content: &&Content| folder.is_some_and(|folder| is_in(folder, &content.name));
        let content = snapshot.content.iter().filter(is_rule);
        let content: Vec<Content> = content.cloned().collect();
        let before =
            before.and_then(|table| table.engine.as_ref()).filter(|before| before.content == content);
        let rules = match before {
            Some(before) if before.waf == *waf => return Ok(Some(before.clone())),
            Some(before) if has_same_rules(&before.waf, waf) => before.rules.clone(),
            _ => Arc::new(load(waf, folder, &content, files)?),
        };
        let mut exclusions = Vec::with_capacity(waf.exclude.len());
        for declared in &waf.exclude {
            let (rules_of, tags) = match &declared.of {
                Excluded::Rules(rules) => (rules.iter().map(|rule| u64::from(*rule)).collect(), Vec::new()),
                Excluded::Tag(tag) => (Vec::new(), vec![tag.clone()]),
            };
            let selection = Selection { rules: rules_of, tags, target: declared.target.clone() };
            let exclusion = match rules.exclusion(&selection) {
                Ok(exclusion) => exclusion,
                // Of a rule that is not there any more nothing is excluded.
                Err(ExclusionError::Rule(_) | ExclusionError::Tag(_)) => continue,
                Err(e) => return Err(format!("{}: {e}", declared.position)),
            };
            exclusions.push(Excluding {
                exclusion,
                path: declared.path.clone(),
                ends_at: declared.until.ends_at(),
            });
        }
        let position = waf.position.to_string();
        Ok(Some(Arc::new(Self { rules, exclusions, waf: waf.clone(), position, content })))
    }

    pub(super) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    pub(super) fn waf(&self) -> &Waf {
        &self.waf
    }

    /// Where the fence has it.
    pub(super) fn position(&self) -> &str {
        &self.position
    }

    /// Leaves out what does not count on this path now.
    pub(super) fn exclude(&self, transaction: &mut Transaction, path: &str, now: impl Fn() -> u64) {
        if self.exclusions.is_empty() {
            return;
        }
        let now = now();
        for excluding in self.exclusions.iter().filter(|excluding| now < excluding.ends_at) {
            if excluding.path.as_ref().is_none_or(|pattern| pattern.matches(path)) {
                transaction.exclude(&excluding.exclusion);
            }
        }
    }

    pub(super) fn deny(&self, transaction: &Transaction, stop: &Interruption) -> Deny {
        told::deny(transaction, stop, &self.waf)
    }
}

/// A route on which attacks are looked for.
fn inspected(snapshot: &Snapshot) -> Option<&Route> {
    let services = snapshot.services.iter().filter(|service| service.protocol != Protocol::Tcp);
    let mode = snapshot.waf.as_ref().map_or(Mode::Enforce, |waf| waf.mode);
    services.flat_map(|service| &service.routes).find(|route| !route.waf.unwrap_or(mode).is_off())
}

/// Whether rules compiled for one do for the other.
fn has_same_rules(a: &Waf, b: &Waf) -> bool {
    let of =
        |waf: &Waf| (waf.crs.clone(), waf.paranoia, waf.inbound, waf.outbound, waf.inspect, waf.responses);
    of(a) == of(b)
}

fn is_in(folder: &str, name: &str) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn load(waf: &Waf, folder: Option<&str>, content: &[Content], files: &Files<'_>) -> Result<Rules, String> {
    let mut all = HashMap::with_capacity(content.len());
    for file in content {
        all.insert(file.name.as_str(), files.content(&file.name)?);
    }
    let file = |name: &str| all.get(name).map(|text| text.to_vec());
    let source = |name: &str| Source::new(name, file(name).unwrap_or_default());
    let names = content.iter().map(|file| file.name.as_str());
    let order = folder.map(|folder| crs_rules(folder, names)).unwrap_or_default();
    let mut setup: Vec<Source> = order.setup.into_iter().map(source).collect();
    if waf.responses {
        setup.push(Source::new("(responses)", "SecResponseBodyAccess On\n"));
    }
    let set = Set {
        setup,
        rules: order.rules.into_iter().map(source).collect(),
        paranoia: waf.paranoia,
        inbound: waf.inbound,
        outbound: waf.outbound,
        inspect: usize::try_from(waf.inspect).unwrap_or(usize::MAX),
        file: &file,
    };
    set.load().map_err(|errors| refusal(&errors))
}

fn refusal(errors: &[LoadError]) -> String {
    let told: Vec<String> = errors.iter().take(TOLD).map(ToString::to_string).collect();
    let more = errors.len().saturating_sub(TOLD);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("the rules of the firewall cannot be enforced: {}{more}", told.join("; "))
}
