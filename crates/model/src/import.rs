//! A first fence from what already describes the application: a Compose file, or a folder of Kubernetes manifests.
//!
//! Who calls whom stands in neither; it is guessed from the addresses that services are given, and each guess is marked
//! in the file that comes out. What is only likely (a host outside, a start order) is written as a comment: a guess may
//! cost a look, not open a way out.

mod compose;
mod guess;
mod kubernetes;
mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostics;
use crate::fence::{Fence, Protocol};
use crate::load::{MAX_FILES, MAX_TOTAL_BYTES, read_bounded};
use crate::scalar::{as_service_name, dns_name};
use crate::yaml::{self, Dialect, Node};

/// Levels of folders that are looked through.
const MAX_FOLDERS: usize = 6;
/// The names by which Compose finds its file.
const COMPOSE_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// A fence written from other files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The text of `ringfence.yaml`; it passes `check`.
    pub text: String,
    /// How many services were found.
    pub services: usize,
    /// How many calls were guessed.
    pub calls: usize,
    /// What was not understood and may matter.
    pub notes: Vec<String>,
}

/// Why no fence came out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is too much of it.
    #[error("{} holds more than {MAX_FILES} YAML files or {} MiB: name the folder of one application", path.display(), MAX_TOTAL_BYTES >> 20)]
    TooLarge {
        /// Where.
        path: PathBuf,
    },
    /// Neither a Compose file nor manifests of workloads.
    #[error("found no service: expected a Compose file or Kubernetes manifests with workloads{}", notes.iter().map(|n| format!("; {n}")).collect::<String>())]
    Nothing {
        /// What was seen instead.
        notes: Vec<String>,
    },
    /// What was written does not pass its own check.
    #[error("the files describe something that no fence can hold:\n{0}")]
    Invalid(Diagnostics),
}

/// A service as found, before it is written down.
#[derive(Debug, Default)]
struct Found {
    /// Its name in the fence, and the names by which others reach it.
    name: String,
    aliases: Vec<String>,
    /// Where it was found, and what it runs from.
    source: String,
    listen: Option<u16>,
    port: Option<u16>,
    protocol: Option<(Protocol, String)>,
    ready: Option<Readiness>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    /// Services it waits for.
    after: Vec<String>,
    /// Why it is reachable from outside, with host and path when they are known.
    entrances: Vec<Entrance>,
    /// Comments for whoever reads the file.
    comments: Vec<String>,
}

#[derive(Debug)]
enum Readiness {
    Tcp,
    Http(String),
}

#[derive(Debug)]
struct Entrance {
    host: Option<String>,
    path: String,
    because: String,
}

/// Writes a fence called `name` from a Compose file, a manifest, or a folder of manifests.
///
/// # Errors
/// When the files cannot be read or describe no service.
pub fn from_path(path: &Path, name: &str) -> Result<Imported, ImportError> {
    let mut files = Vec::new();
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| ImportError::Unreadable { path, error }
    };
    if fs::metadata(path).map_err(unreadable(path))?.is_dir() {
        let compose = COMPOSE_FILES.iter().map(|file| path.join(file)).find(|file| file.is_file());
        match compose {
            Some(compose) => files.push(compose),
            None => collect(path, 0, &mut files).map_err(unreadable(path))?,
        }
    } else {
        files.push(path.to_owned());
    }
    if files.len() > MAX_FILES {
        return Err(ImportError::TooLarge { path: path.to_owned() });
    }
    files.sort();
    let mut texts = Vec::with_capacity(files.len());
    let mut total = 0;
    for file in files {
        let bytes = read_bounded(&file).map_err(unreadable(&file))?;
        total += bytes.len();
        if bytes.len() > crate::MAX_FILE_BYTES || total > MAX_TOTAL_BYTES {
            return Err(ImportError::TooLarge { path: file });
        }
        let shown = file.strip_prefix(path).ok().filter(|p| !p.as_os_str().is_empty()).map(Path::to_owned);
        let shown = shown.or_else(|| file.file_name().map(PathBuf::from)).unwrap_or(file);
        texts.push((shown.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    from_texts(&texts, name)
}

/// Writes a fence called `name` from texts, each with its name. No file is touched.
///
/// # Errors
/// When the texts describe no service.
pub fn from_texts(files: &[(String, String)], name: &str) -> Result<Imported, ImportError> {
    let mut notes = Vec::new();
    let mut documents: Vec<(&str, Node)> = Vec::new();
    for (file, text) in files {
        let parsed = yaml::parse(text, Dialect::Foreign);
        if let Some(problem) = parsed.problems.iter().find(|problem| problem.fatal) {
            notes.push(format!(
                "{file}:{}:{} is left out: {}",
                problem.mark.line, problem.mark.column, problem.message
            ));
            continue;
        }
        documents.extend(parsed.documents.into_iter().map(|document| (file.as_str(), document)));
    }
    let mut found = kubernetes::workloads(&documents, &mut notes);
    for (file, document) in &documents {
        found.extend(compose::services(file, document, &mut notes));
    }
    settle_names(&mut found);
    if found.is_empty() {
        return Err(ImportError::Nothing { notes });
    }
    let (text, calls) = write::fence(name, &mut found);
    match Fence::parse(vec![("ringfence.yaml", text.as_str())]) {
        Ok(_) => Ok(Imported { text, services: found.len(), calls, notes }),
        Err(diagnostics) => Err(ImportError::Invalid(diagnostics)),
    }
}

/// A first fence for an empty folder; it passes `check` and `up` runs it.
#[must_use]
pub fn starter(name: &str) -> String {
    let (name, domain) = write::names(name);
    format!(include_str!("import/starter.yaml"), name = name, domain = domain)
}

fn collect(folder: &Path, depth: usize, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // A link may lead out of the folder, or round in it.
        let kind = entry.file_type()?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !hidden && depth < MAX_FOLDERS {
            collect(&path, depth + 1, into)?;
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            into.push(path);
        }
        if into.len() > MAX_FILES {
            break;
        }
    }
    Ok(())
}

/// Gives each service a name that the fence allows and no other has.
fn settle_names(found: &mut [Found]) {
    let mut taken = std::collections::HashSet::new();
    for service in found {
        let wanted = service.name.clone();
        let base = as_service_name(&wanted)
            .or_else(|| as_service_name(&format!("service-{wanted}")))
            .unwrap_or_else(|| "service".into());
        let mut name = base.clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            let short: String = base.chars().take(57).collect();
            name = format!("{}-{number}", short.trim_end_matches('-'));
            number += 1;
        }
        if name != wanted {
            service.comments.push(format!("it was called {wanted}: its callers have to use the name below"));
        }
        if !service.aliases.contains(&wanted) {
            service.aliases.push(wanted);
        }
        service.name = name;
    }
}

/// Whether a name is that of a host outside.
fn is_outside_host(host: &str) -> bool {
    host.contains('.')
        && dns_name(host).is_ok()
        && !host.ends_with(".local")
        && !host.ends_with(".svc")
        && !host.ends_with(".localhost")
}
