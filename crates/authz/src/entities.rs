//! The entities of the fence and of its data as one closed whole, and the part of it that a request can see.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use cedar_policy_core::ast::{Entity, EntityUID, PartialValue};
use cedar_policy_core::entities::{Dereference, Entities, EntityJsonParser, TCComputation};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::validator::CoreSchema;
use ringfence_model::OUTSIDE;
use serde_json::{Value, json};

use crate::data::{Data, Raw, Uid};
use crate::names::{ANONYMOUS, ANYONE, CLIENT, PATH, SERVICE, USER};
use crate::schema::Schema;

/// Builds all entities, checked against the schema.
pub(crate) fn build(schema: &Schema, data: Data) -> Result<Entities, String> {
    let mut all: BTreeMap<Uid, Raw> = BTreeMap::new();
    for mut entity in data.entities {
        match entity.uid.kind.as_str() {
            USER | CLIENT => {
                let (provider, id) = (entity.uid.id.split_once('/'))
                    .ok_or_else(|| format!("{}: its id is written PROVIDER/NAME", entity.uid))?;
                entity.attrs.insert("provider".into(), provider.into());
                entity.attrs.insert("id".into(), id.into());
            }
            SERVICE if !schema.services.contains_key(&entity.uid.id) => {
                return Err(format!("{}: the fence has no such service", entity.uid));
            }
            PATH => return Err(format!("{}: paths come from the fence alone", entity.uid)),
            _ => {}
        }
        all.insert(entity.uid.clone(), entity);
    }
    for name in schema.services.keys().map(String::as_str).chain([OUTSIDE]) {
        let uid = Uid::new(SERVICE, name);
        let service = all.entry(uid.clone()).or_insert_with(|| Raw { uid, ..Raw::default() });
        service.attrs.insert("name".into(), name.into());
    }
    for (service, paths) in &schema.services {
        for (at, template) in paths.templates().iter().enumerate() {
            let uid = |text: &str| Uid::new(PATH, &format!("{service}{text}"));
            let mut parents = vec![Uid::new(SERVICE, service)];
            parents.extend(paths.around(at).map(|outer| uid(&outer.text)));
            let attrs = BTreeMap::from([("template".to_owned(), Value::from(template.text.as_str()))]);
            all.insert(uid(&template.text), Raw { uid: uid(&template.text), attrs, parents });
        }
    }
    let anyone = Uid::new(ANONYMOUS, ANYONE);
    all.insert(anyone.clone(), Raw { uid: anyone, ..Raw::default() });
    let values = all.into_values().map(|mut entity| {
        for name in schema.sets.get(&entity.uid.kind).into_iter().flatten() {
            entity.attrs.entry(name.clone()).or_insert_with(|| json!([]));
        }
        json!({
            "uid": entity.uid.to_value(),
            "attrs": entity.attrs,
            "parents": entity.parents.iter().map(Uid::to_value).collect::<Vec<_>>(),
        })
    });
    let value = Value::Array(values.collect());
    let core = CoreSchema::new(schema.validator.schema());
    EntityJsonParser::new(Some(&core), Extensions::all_available(), TCComputation::ComputeNow)
        .from_json_value(value)
        .map_err(|error| {
            let source =
                std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            format!("{error}{source}")
        })
}

/// The entities in `all` that can be reached from these by attributes, besides those in `known`.
pub(crate) fn reachable(
    all: &Entities,
    known: &Entities,
    from: impl IntoIterator<Item = EntityUID>,
) -> Vec<Arc<Entity>> {
    let mut open: Vec<EntityUID> = from.into_iter().collect();
    let mut seen: HashSet<EntityUID> = open.iter().cloned().collect();
    let mut found = Vec::new();
    while let Some(uid) = open.pop() {
        if matches!(known.entity(&uid), Dereference::Data(_)) {
            continue;
        }
        let Dereference::Data(entity) = all.entity(&uid) else { continue };
        open.extend(references(entity).filter(|uid| seen.insert(uid.clone())));
        found.push(Arc::new(entity.clone()));
    }
    found
}

/// What the attributes of an entity point to.
pub(crate) fn references(entity: &Entity) -> impl Iterator<Item = EntityUID> {
    entity.attrs().chain(entity.tags()).flat_map(|(_, value)| match value {
        PartialValue::Value(value) => value.all_literal_uids(),
        PartialValue::Residual(_) => HashSet::new(),
    })
}

/// Adds entities whose ancestors are complete; one that is there already is replaced.
pub(crate) fn add(to: Entities, entities: Vec<Arc<Entity>>) -> Entities {
    let none = None::<&CoreSchema<'_>>;
    to.upsert_entities(entities, none, TCComputation::AssumeAlreadyComputed, Extensions::all_available())
        .expect("invariant: nothing is checked, so nothing can fail")
}
