//! What the program is made of: a CycloneDX 1.6 document from cargo's own resolution of the locked dependencies, for the platform it is
//! built for. Parts that only tests and builds use are not in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::text;
use crate::environment::root;
use crate::process::{Error, cargo};

/// What cargo knows of each package; which of them the program is linked with, its tree says: there, features are those of the program
/// alone, and not those that tests of the workspace add.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
}

/// Name and version.
type Part = (String, String);

/// The digest of each package's archive, as locked.
#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The document for the package `ringfence`, built for `platform` (a target triple).
pub(crate) fn write(platform: &str, created: &str) -> Result<Vec<u8>, Error> {
    let metadata = ["metadata", "--format-version", "1", "--locked", "--filter-platform", platform];
    let metadata: Metadata = serde_json::from_str(&text(&mut cargo(metadata))?)
        .map_err(|e| Error::new(format!("cargo metadata: {e}")))?;
    let lock: Lock = toml::from_str(&std::fs::read_to_string(root().join("Cargo.lock"))?)
        .map_err(|e| Error::new(format!("Cargo.lock: {e}")))?;
    let tree = [
        "tree",
        "--package",
        "ringfence",
        "--edges",
        "normal",
        "--locked",
        "--prefix",
        "depth",
        "--target",
        platform,
    ];
    let known = Known {
        packages: metadata.packages.into_iter().map(|p| ((p.name.clone(), p.version.clone()), p)).collect(),
        sums: lock.package.into_iter().filter_map(|p| Some(((p.name, p.version), p.checksum?))).collect(),
    };
    let linked = linked(&text(&mut cargo(tree))?)?;
    serde_json::to_vec_pretty(&document(&known, &linked, created)).map_err(|e| Error::new(e.to_string()))
}

/// What is said of packages.
struct Known {
    packages: BTreeMap<Part, Package>,
    sums: BTreeMap<Part, String>,
}

/// What each part is linked with. A procedural macro is run by the compiler, so it and what it needs are left out.
type Linked = BTreeMap<Part, BTreeSet<Part>>;

/// Reads lines of `cargo tree`: depth, name, `vVERSION`, remarks in brackets. What comes a second time comes without its own.
fn linked(tree: &str) -> Result<Linked, Error> {
    let mut linked = Linked::new();
    let mut way: Vec<Option<Part>> = Vec::new();
    for line in tree.lines() {
        let strange = || Error::new(format!("cargo tree says `{line}`"));
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let (depth, rest) = line.split_at(digits);
        let depth: usize = depth.parse().map_err(|_| strange())?;
        let mut words = rest.split(' ');
        let name = words.next().ok_or_else(strange)?;
        let version = words.next().and_then(|v| v.strip_prefix('v')).ok_or_else(strange)?;
        way.truncate(depth);
        let above = way.last().cloned();
        let part = Some((name.to_owned(), version.to_owned())).filter(|_| !rest.contains("(proc-macro)"));
        // Below what is left out, all is.
        let part = part.filter(|_| above.as_ref().is_none_or(Option::is_some));
        if let Some(part) = &part {
            linked.entry(part.clone()).or_default();
            if let Some(Some(above)) = above {
                linked.entry(above).or_default().insert(part.clone());
            }
        }
        way.push(part);
    }
    Ok(linked)
}

fn document(known: &Known, linked: &Linked, created: &str) -> Value {
    let is_program = |part: &Part| part.0 == "ringfence";
    let program =
        linked.keys().find(|part| is_program(part)).map(|part| component(part, "application", known));
    let components: Vec<Value> = linked
        .keys()
        .filter(|part| !is_program(part))
        .map(|part| component(part, "library", known))
        .collect();
    let dependencies: Vec<Value> = linked
        .iter()
        .map(|(part, of)| json!({ "ref": reference(part), "dependsOn": of.iter().map(reference).collect::<Vec<_>>() }))
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "timestamp": created, "component": program },
        "components": components,
        "dependencies": dependencies,
    })
}

/// A package URL: `pkg:cargo/NAME@VERSION`.
fn reference((name, version): &Part) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn component(part: &Part, kind: &str, known: &Known) -> Value {
    let reference = reference(part);
    let package = known.packages.get(part);
    let mut fields = Map::new();
    fields.insert("type".to_owned(), json!(kind));
    fields.insert("bom-ref".to_owned(), json!(reference));
    fields.insert("name".to_owned(), json!(part.0));
    fields.insert("version".to_owned(), json!(part.1));
    if let Some(text) = package.and_then(|p| p.description.as_deref()) {
        fields.insert("description".to_owned(), json!(text.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    if let Some(sum) = known.sums.get(part) {
        fields.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": sum }]));
    }
    if let Some(license) = package.and_then(|p| p.license.as_deref()) {
        // Old manifests separate alternatives by a slash, which is no SPDX expression.
        fields.insert("licenses".to_owned(), json!([{ "expression": license.replace('/', " OR ") }]));
    }
    fields.insert("purl".to_owned(), json!(reference));
    Value::Object(fields)
}
