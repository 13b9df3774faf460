//! `policies` and `entities`: which files beside the fence say who may do what.

use std::path::{Component, Path};

use super::{Decoder, spec};
use crate::fence::Policies;
use crate::position::Position;
use crate::suggest::quote;
use crate::yaml::Entry;

/// Longest path, and most patterns.
const MAX_PATH: usize = 512;
const MAX_PATTERNS: usize = 64;

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

    pub(super) fn entities(&mut self, entry: &Entry) -> Option<(String, Position)> {
        let fields = self.fields(&entry.value, &spec::ENTITIES)?;
        let Some(node) = fields.get("file") else {
            self.missing(entry.mark, "file", "entity data", "name it: `entities: { file: entities.json }`");
            return None;
        };
        let file = self.parsed(node, "a file", beside)?;
        Some((file, self.at(entry.mark)))
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

fn beside(text: &str) -> Result<String, String> {
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
