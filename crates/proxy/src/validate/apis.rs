//! The descriptions of a fence, compiled on the control thread when they changed.

use std::collections::HashMap;
use std::sync::Arc;

use ringfence_model::OpenApi;
use ringfence_openapi::Api;
use ringfence_snapshot::{Content, Snapshot};

use super::drift::Drift;
use super::sampler::Sampler;
use crate::content::Files;
use crate::table::Table;

/// Mistakes of a description that are told.
const TOLD: usize = 3;

/// What services are held to, by their names.
#[derive(Debug, Default)]
pub(crate) struct Apis(HashMap<String, Arc<Described>>);

/// What one service is held to.
#[derive(Debug)]
pub(crate) struct Described {
    pub(super) api: Arc<Api>,
    pub(super) declared: OpenApi,
    /// Where the fence names it.
    pub(super) position: String,
    pub(super) drift: Arc<Drift>,
    pub(super) sampler: Arc<Sampler>,
    content: Content,
}

impl Apis {
    /// The descriptions of a snapshot; those of the table before are used again as far as they did not change.
    pub(crate) fn of(snapshot: &Snapshot, before: Option<&Table>, files: &Files<'_>) -> Result<Self, String> {
        let mut all: HashMap<String, Arc<Described>> = HashMap::new();
        for service in &snapshot.services {
            let Some(declared) = &service.openapi else { continue };
            if declared.mode.is_off() && declared.responses.is_off() && declared.undocumented.is_off() {
                continue;
            }
            let content = snapshot.content(&declared.file);
            let content = content.ok_or_else(|| format!("{} is not among the files", declared.file))?;
            let known = before.and_then(|table| table.apis.0.get(&service.name));
            let same = known.filter(|known| known.content == *content);
            if let Some(same) = same.filter(|same| same.declared == *declared) {
                all.insert(service.name.clone(), same.clone());
                continue;
            }
            // Several services may be instances of one API.
            let api = match same.or_else(|| all.values().find(|other| other.content == *content)) {
                Some(other) => other.api.clone(),
                None => Arc::new(load(&declared.file, files)?),
            };
            let described = Described {
                api,
                declared: declared.clone(),
                position: declared.position.to_string(),
                drift: same.map(|same| same.drift.clone()).unwrap_or_default(),
                sampler: same.map(|same| same.sampler.clone()).unwrap_or_default(),
                content: content.clone(),
            };
            all.insert(service.name.clone(), Arc::new(described));
        }
        Ok(Self(all))
    }

    /// What a service is held to.
    pub(crate) fn get(&self, service: &str) -> Option<&Arc<Described>> {
        self.0.get(service)
    }
}

fn load(name: &str, files: &Files<'_>) -> Result<Api, String> {
    let bytes = files.content(name)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{name} is not text in UTF-8"))?;
    Api::load(text).map_err(|problems| {
        let told: Vec<String> =
            problems.iter().take(TOLD).map(|problem| format!("{name}:{problem}")).collect();
        let more = problems.len().saturating_sub(TOLD);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        format!("a description cannot be enforced: {}{more}", told.join("; "))
    })
}
