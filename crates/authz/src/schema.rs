//! The schema that policies are checked against: what the fence declares, and what entity data adds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::validator::{Validator, ValidatorSchema};
use ringfence_model::{Credential, Fence, Service};

use crate::data::Data;
use crate::infer::{Shape, shapes};
use crate::names::{self, ANONYMOUS, CLIENT, CONNECT, GROUP, OTHER, PATH, READS, RPC, SERVICE, USER, WRITES};
use crate::paths::Paths;

/// A schema, and the words that a policy may use for the fence's own things.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) text: String,
    pub(crate) validator: Validator,
    /// Services, each with its paths, in order of name.
    pub(crate) services: BTreeMap<String, Paths>,
    /// Who vouches for names: providers, authorities of client certificates, API keys.
    pub(crate) providers: BTreeSet<String>,
    /// Sets that every entity of a type has, empty where the data says nothing of it.
    pub(crate) sets: BTreeMap<String, Vec<String>>,
}

impl Schema {
    /// Generates the schema.
    pub(crate) fn new(fence: &Fence, data: &Data) -> Result<Self, String> {
        let services = services(fence);
        let mut shapes = shapes(data)?;
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "// What policies may say, generated from the fence `{}` and its entity data.\n",
            fence.name
        );
        let mut sets = BTreeMap::new();
        for (kind, own, parents) in [
            (GROUP, &[][..], &[GROUP][..]),
            (USER, &["id", "provider"], &[GROUP]),
            (CLIENT, &["id", "provider"], &[GROUP]),
            (SERVICE, &["name"], &[]),
            (PATH, &["template"], &[SERVICE, PATH]),
        ] {
            let shape = shapes.remove(kind).unwrap_or_default();
            if let Some(taken) = own.iter().find(|name| shape.attrs.contains_key(**name)) {
                return Err(format!("entity data has `{taken}` of {kind}, which Ringfence itself says"));
            }
            sets.insert(kind.to_owned(), shape.sets());
            declare(&mut text, kind, own, parents, &shape);
        }
        let _ = writeln!(text, "entity {ANONYMOUS};");
        for (kind, shape) in &shapes {
            sets.insert(kind.clone(), shape.sets());
            declare(&mut text, kind, &[], &[], shape);
        }
        declare_request(&mut text, &services);
        let (schema, _) = ValidatorSchema::from_cedarschema_str(&text, Extensions::all_available())
            .map_err(|error| format!("the data makes a schema that Cedar refuses: {error}"))?;
        let authorities = fence.client_authorities().into_iter();
        let own =
            authorities.map(|file| Credential::Certificate(file.to_owned())).chain([Credential::ApiKey]);
        let providers = fence.providers.iter().map(|provider| provider.name.clone());
        let providers = providers.chain(own.map(|shown| shown.vouched_by().into_owned())).collect();
        Ok(Self { text, validator: Validator::new(schema), services, providers, sets })
    }
}

/// All services, each with the paths that some edge names, or a route with names in it.
fn services(fence: &Fence) -> BTreeMap<String, Paths> {
    let mut patterns: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in fence.edges() {
        let of_callee = patterns.entry(&edge.callee.name).or_default();
        of_callee.extend(edge.call.allow.iter().flat_map(|allow| &allow.paths).map(|path| path.as_str()));
    }
    let mut of = |service: &Service| {
        let routes = service.routes.iter().filter(|route| route.has_names());
        // A route holds whatever lies below it, too.
        let routes: Vec<String> =
            routes.flat_map(|route| [route.path.clone(), format!("{}/**", route.path)]).collect();
        let edges = patterns.remove(service.name.as_str()).unwrap_or_default();
        Paths::new(edges.into_iter().chain(routes.iter().map(String::as_str)))
    };
    fence.services.iter().map(|service| (service.name.clone(), of(service))).collect()
}

fn declare(text: &mut String, kind: &str, own: &[&str], parents: &[&str], shape: &Shape) {
    let mut within: BTreeSet<&str> = parents.iter().copied().collect();
    within.extend(shape.parents.iter().map(String::as_str));
    let _ = write!(text, "entity {kind}");
    if !within.is_empty() {
        let within: Vec<&str> = within.into_iter().collect();
        let _ = write!(text, " in [{}]", within.join(", "));
    }
    if own.is_empty() && shape.attrs.is_empty() {
        text.push_str(";\n");
        return;
    }
    text.push_str(" {\n");
    for name in own {
        let _ = writeln!(text, "  {}: String,", names::literal(name));
    }
    for (name, attribute) in &shape.attrs {
        let mark = if attribute.required { "" } else { "?" };
        let _ = writeln!(text, "  {}{mark}: {},", names::literal(name), attribute.kind);
    }
    text.push_str("};\n");
}

fn declare_request(text: &mut String, services: &BTreeMap<String, Paths>) {
    let names: BTreeSet<&str> = services
        .values()
        .flat_map(Paths::templates)
        .flat_map(|template| template.names())
        .map(smol_str::SmolStr::as_str)
        .collect();
    let path: Vec<String> =
        names.into_iter().map(|name| format!("{}?: String", names::literal(name))).collect();
    let _ = write!(
        text,
        "\ntype Request = {{\n  \
           \"acr\"?: String,        // how strongly the user was authenticated\n  \
           \"auth_time\"?: datetime, // when\n  \
           \"caller\": {SERVICE},     // the service that calls; {SERVICE}::\"outside\" is a client of the gateway\n  \
           \"chain\": Set<{SERVICE}>, // all services on the way, the caller included\n  \
           \"client\"?: {CLIENT},     // the client that a user acts through\n  \
           \"host\": String,\n  \
           \"method\": String,\n  \
           \"path\": {{ {} }}, // what stands in the {{braces}} of the path\n  \
           \"scopes\": Set<String>,\n  \
           \"source\"?: ipaddr,     // where the client of the gateway calls from\n  \
           \"target\": String,      // the whole path\n  \
           \"time\": datetime,\n\
         }};\n\n\
         action \"call\";\n\
         action \"read\", \"write\" in [\"call\"];\n",
        path.join(", "),
    );
    let applies = format!(
        "appliesTo {{ principal: [{USER}, {CLIENT}, {SERVICE}, {ANONYMOUS}], resource: [{SERVICE}, {PATH}], context: Request }}"
    );
    let quoted =
        |names: &[&str]| names.iter().map(|name| names::literal(name)).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "action {} in [\"read\"] {applies};", quoted(&READS));
    let _ = writeln!(text, "action {} in [\"write\"] {applies};", quoted(&WRITES));
    let _ = writeln!(text, "action {} in [\"call\"] {applies};", quoted(&[RPC, CONNECT, OTHER]));
}
