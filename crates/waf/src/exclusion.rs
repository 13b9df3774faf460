//! Exclusions that stand in the fence, not in rule files: compiled against a rule set, applied per transaction.

use std::sync::Arc;

use crate::{
    lang::parse_targets,
    plan::{self, Removal},
    rules::Rules,
};

/// What an exclusion leaves out, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Ids of rules.
    pub rules: Vec<u64>,
    /// Tags; a rule with one of them is meant.
    pub tags: Vec<String>,
    /// As in `ARGS:q` or `REQUEST_COOKIES:/^_ga/`; absent: the rules themselves are left out.
    pub target: Option<String>,
}

/// Why an exclusion cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExclusionError {
    /// Neither rule nor tag.
    #[error("an exclusion needs rules or tags")]
    Nothing,
    /// No rule has this id.
    #[error("no rule {0} is loaded; look at its number again")]
    Rule(u64),
    /// No rule has this tag.
    #[error("no rule with the tag '{0}' is loaded; look at its name again")]
    Tag(String),
    /// The target is none.
    #[error("target: {0}")]
    Target(String),
}

/// A compiled exclusion; only for the rule set that compiled it.
#[derive(Clone, Debug)]
pub struct Exclusion {
    pub(crate) removals: Vec<Arc<Removal>>,
}

impl Rules {
    /// Compiles an exclusion for [`crate::Transaction::exclude`].
    pub fn exclusion(&self, selection: &Selection) -> Result<Exclusion, ExclusionError> {
        if selection.rules.is_empty() && selection.tags.is_empty() {
            return Err(ExclusionError::Nothing);
        }
        let mut rules = Vec::new();
        for id in &selection.rules {
            let before = rules.len();
            rules.extend(self.plan.find(|info| info.id == *id));
            if rules.len() == before {
                return Err(ExclusionError::Rule(*id));
            }
        }
        for tag in &selection.tags {
            let before = rules.len();
            rules.extend(self.plan.find(|info| info.tags.iter().any(|known| **known == **tag)));
            if rules.len() == before {
                return Err(ExclusionError::Tag(tag.clone()));
            }
        }
        rules.sort_unstable();
        rules.dedup();
        let rules: Box<[u32]> = rules.into();
        let Some(text) = &selection.target else {
            return Ok(Exclusion { removals: vec![Arc::new(Removal { rules, target: None })] });
        };
        let targets = parse_targets(text.as_bytes()).map_err(|(_, text)| ExclusionError::Target(text))?;
        let mut removals = Vec::new();
        for target in targets {
            let target = plan::exclusion_target(&self.plan.names, &target).map_err(ExclusionError::Target)?;
            removals.push(Arc::new(Removal { rules: rules.clone(), target: Some(target) }));
        }
        Ok(Exclusion { removals })
    }
}
