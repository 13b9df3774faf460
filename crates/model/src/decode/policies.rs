//! `policies` and `entities`: which files beside the fence say who may do what.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::provider::address;
use super::{Decoder, spec};
use crate::fence::{Entities, EntitiesUrl, Policies};
use crate::position::Position;
use crate::suggest::quote;
use crate::yaml::Entry;

/// Longest path, and most patterns.
const MAX_PATH: usize = 512;
const MAX_PATTERNS: usize = 64;
/// How often a server is asked for entity data: by default, and between which bounds.
const EVERY: Duration = Duration::from_secs(30);
const MIN_EVERY: Duration = Duration::from_secs(1);
const MAX_EVERY: Duration = Duration::from_secs(24 * 3600);

impl Decoder<'_> {
    pub(super) fn policies(&mut self, entry: &Entry) -> Policies {
        let mut policies = Policies { files: Vec::new(), position: self.at(entry.mark) };
        let items = self.nonempty(&entry.value, "policy files", "[policies/*.cedar]");
        if items.len() > MAX_PATTERNS {
            self.error("too-many", entry.mark, format!("there are more than {MAX_PATTERNS} of them"), None);
        }
        for item in items.iter().take(MAX_PATTERNS) {
            let Some(file) = self.parsed(item, "a policy file", pattern) else { continue };
            if policies.files.contains(&file) {
                self.error("duplicate", item.mark, format!("{} stands here twice", quote(&file)), None);
            } else {
                policies.files.push(file);
            }
        }
        policies
    }

    pub(super) fn entities(&mut self, entry: &Entry) -> Option<(Entities, Position)> {
        let fields = self.fields(&entry.value, &spec::ENTITIES)?;
        let position = self.at(entry.mark);
        let (file, url) = match (fields.get("file"), fields.get("url")) {
            (Some(_), Some(url)) => {
                let help = Some("keep one of them".to_owned());
                self.error(
                    "conflict",
                    url.mark,
                    "entity data is in a file or at a server, not at both",
                    help,
                );
                return None;
            }
            (None, None) => {
                let help = "name it: `entities: { file: entities.json }` or `{ url: https://… }`";
                self.missing(entry.mark, "file", "entity data", help);
                return None;
            }
            found => found,
        };
        let allow_private = fields.get("allow_private").and_then(|n| self.truth(n)).unwrap_or(false);
        let every = fields.get("every").and_then(|n| self.time_in(n, MIN_EVERY, MAX_EVERY));
        let ca = fields.get("ca").and_then(|n| self.text(n, "a path")).map(PathBuf::from);
        if let Some(file) = file {
            for entry in fields.entries.iter().filter(|e| matches!(&*e.key, "every" | "ca" | "allow_private"))
            {
                let message = format!("`{}` is for data at a server, and this is a file", entry.key);
                self.error("conflict", entry.mark, message, Some("leave it out".to_owned()));
            }
            return Some((Entities::File(self.parsed(file, "a file", beside)?), position));
        }
        let parse = |text: &str| {
            const SHAPE: &str = "it is `https://HOST[:PORT][/PATH][?QUERY]`";
            address(text, allow_private, SHAPE, "anybody on the way could say who may do what")
        };
        let url = url.and_then(|n| self.parsed(n, "an address", parse))?;
        let every = every.unwrap_or(EVERY);
        Some((
            Entities::Url(EntitiesUrl { url, every, ca, allow_private, position: position.clone() }),
            position,
        ))
    }
}

/// A file beside the fence, or all files there with an ending.
fn pattern(text: &str) -> Result<String, String> {
    let name = text.rsplit('/').next().unwrap_or(text);
    let rest = name.strip_prefix('*').unwrap_or(name);
    if text.matches('*').count() != usize::from(rest.len() < name.len()) {
        return Err("a pattern has one `*`, at the beginning of its last part: `policies/*.cedar`".to_owned());
    }
    beside(text)
}

/// A file or folder of the fence's folder, in its one spelling.
pub(super) fn beside(text: &str) -> Result<String, String> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if text.len() > MAX_PATH || text.chars().any(char::is_control) {
        return Err(format!("it has at most {MAX_PATH} characters"));
    }
    if text.ends_with('/') || !Path::new(text).components().all(plain) {
        return Err("it lies in the fence's folder: a relative path without `..`".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn policies_lie_beside_the_fence() {
        for good in ["a.cedar", "policies/a.cedar", "policies/*.cedar", "policies/*"] {
            assert_eq!(pattern(good).as_deref(), Ok(good));
        }
        for bad in
            ["/etc/a.cedar", "../a.cedar", "a/../../b", "*/a.cedar", "a*.cedar", "**", "**/a", "a/", "."]
        {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
