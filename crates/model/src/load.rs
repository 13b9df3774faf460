//! From a path or texts to a fence: which files belong to it, and the bounds on them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::decode::spec::FENCE;
use crate::decode::{Fragment, decode};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::{Fence, SourceFile};
use crate::position::Position;
use crate::validate::assemble;
use crate::yaml::{self, Dialect, Mark};

/// Bytes of one file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Files of one fence.
pub const MAX_FILES: usize = 256;
/// Bytes of all files together.
pub const MAX_TOTAL_BYTES: usize = 32 << 20;

/// The name of the fence in its folder.
const FENCE_FILE: &str = "ringfence.yaml";

impl Fence {
    /// Reads a fence from a file or a folder.
    ///
    /// In a folder it is `ringfence.yaml` alone, unless that file is absent or names an `owner`: then the folder holds
    /// fragments, and all its `*.yaml` files are merged, but for those that are descriptions of APIs.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let whole = |path: &Path, code: &'static str, message: String| {
            let mut diagnostics = Diagnostics::default();
            let position = Position::whole(path.display().to_string().into());
            let help = (code == "not-found").then(|| "`ringfence init` writes a first one".to_owned());
            diagnostics.push(Diagnostic::error(code, position, message).help(help));
            diagnostics
        };
        let metadata = fs::metadata(path).map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound { "not-found" } else { "unreadable" };
            whole(path, code, format!("cannot read it: {error}"))
        })?;
        let mut out = Diagnostics::default();
        let (folder, paths) = if metadata.is_dir() {
            let paths = fence_files(path, &mut out)
                .map_err(|error| whole(path, "unreadable", format!("cannot list it: {error}")))?;
            (path.to_owned(), paths)
        } else {
            let folder =
                path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            (folder.to_owned(), vec![path.to_owned()])
        };
        if paths.is_empty() {
            let message = format!("the folder has neither {FENCE_FILE} nor another *.yaml file");
            return Err(whole(path, "not-found", message));
        }
        if paths.len() > MAX_FILES {
            return Err(whole(
                path,
                "too-large",
                format!("the folder has more than {MAX_FILES} *.yaml files"),
            ));
        }
        let mut files = Vec::with_capacity(paths.len());
        let mut descriptions: Vec<Arc<str>> = Vec::new();
        let mut total = 0;
        for path in paths {
            let name: Arc<str> = path.strip_prefix(&folder).unwrap_or(&path).display().to_string().into();
            match read_bounded(&path) {
                Ok(bytes) if metadata.is_dir() && is_description(&bytes) => descriptions.push(name),
                Ok(bytes) => {
                    total += bytes.len();
                    files.push((name, bytes));
                }
                Err(error) => {
                    out.push(Diagnostic::error(
                        "unreadable",
                        Position::whole(name),
                        format!("cannot read it: {error}"),
                    ));
                }
            }
            if total > MAX_TOTAL_BYTES {
                let message = format!("the files together are larger than {} MiB", MAX_TOTAL_BYTES >> 20);
                return Err(whole(&folder, "too-large", message));
            }
        }
        if files.is_empty() && out.is_valid() {
            let message = format!("the folder has neither {FENCE_FILE} nor another *.yaml file of a fence");
            return Err(whole(&folder, "not-found", message));
        }
        let mut fence = parse(files, out)?;
        fence.folder = folder;
        let named =
            |name: &str| fence.services.iter().filter_map(|s| s.openapi.as_ref()).any(|o| o.file == name);
        let idle: Vec<Arc<str>> = descriptions.into_iter().filter(|name| !named(name)).collect();
        fence.warnings.extend(idle.into_iter().map(|name| {
            let message = "this is the description of an API, no part of the fence, and no service has it";
            let help = format!("say `openapi: {name}` in a service, or move it out of the folder");
            Diagnostic::warning("not-read", Position::new(name, 1, 1), message).help(help)
        }));
        Ok(fence)
    }

    /// Parses a fence from texts, each with its name. No file is touched.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse<N: Into<Arc<str>>, T: Into<Vec<u8>>>(files: Vec<(N, T)>) -> Result<Self, Diagnostics> {
        parse(
            files.into_iter().map(|(name, text)| (name.into(), text.into())).collect(),
            Diagnostics::default(),
        )
    }
}

/// The files of the fence in a folder, in order of their names.
fn fence_files(folder: &Path, out: &mut Diagnostics) -> io::Result<Vec<PathBuf>> {
    let single = folder.join(FENCE_FILE);
    if single.is_file() && !has_owner(&read_bounded(&single)?) {
        return Ok(vec![single]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yaml") && path.is_file() {
            paths.push(path);
        } else if path.extension().is_some_and(|e| e == "yml") {
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            let warning = Diagnostic::warning(
                "not-read",
                Position::whole(name.into()),
                "a fragment is a *.yaml file: this one is not read",
            );
            out.push(warning.help("rename it, or move it out of the folder".to_owned()));
        }
        // One more than is allowed is enough to refuse it.
        if paths.len() > MAX_FILES {
            break;
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file is a description of an API and nothing else. One that also says what a fence says is neither, and an error: it may not be
/// left out without a word.
fn is_description(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    if !["openapi", "swagger"].iter().any(|word| text.contains(word)) {
        return false;
    }
    let parsed = yaml::parse(&text, Dialect::Strict);
    // Of what is cut off, is no YAML, or goes on with another document, nobody knows what else it says.
    if bytes.len() > MAX_FILE_BYTES || parsed.problems.iter().any(|problem| problem.fatal) {
        return false;
    }
    let [document] = &parsed.documents[..] else { return false };
    let says = |key: &str| document.get(key).is_some();
    (says("openapi") || says("swagger")) && !FENCE.keys.iter().any(|key| says(key))
}

/// Whether a file is a fragment among others.
fn has_owner(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let parsed = yaml::parse(&text, Dialect::Strict);
    parsed.documents.first().is_some_and(|document| document.get("owner").is_some())
}

/// Reads a file, but not much more than may be.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(files: Vec<(Arc<str>, Vec<u8>)>, mut out: Diagnostics) -> Result<Fence, Diagnostics> {
    let mut sources = Vec::with_capacity(files.len());
    let mut fragments: Vec<Fragment> = Vec::with_capacity(files.len());
    // A file that could not be read to its end may have declared what others name.
    let mut complete = out.is_valid();
    if files.is_empty() || files.len() > MAX_FILES {
        let message = format!("a fence has from 1 to {MAX_FILES} files");
        out.push(Diagnostic::error("too-large", Position::whole(FENCE_FILE.into()), message));
        return Err(out);
    }
    let mut total = 0;
    for (name, bytes) in files {
        total += bytes.len();
        if bytes.len() > MAX_FILE_BYTES || total > MAX_TOTAL_BYTES {
            let message = format!(
                "a file of the fence has at most {MAX_FILE_BYTES} bytes, all of them {MAX_TOTAL_BYTES}"
            );
            out.push(Diagnostic::error("too-large", Position::whole(name), message));
            complete = false;
            continue;
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = String::from_utf8_lossy(
                    error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default(),
                );
                let (line, column) = end_of(&good);
                let position = Position::new(Arc::clone(&name), line, column);
                out.push(Diagnostic::error("bad-character", position, "this byte is not UTF-8"));
                sources.push(SourceFile {
                    name,
                    owner: None,
                    text: String::from_utf8_lossy(error.as_bytes()).into(),
                });
                complete = false;
                continue;
            }
        };
        complete &= read_fragment(&name, &text, &mut fragments, &mut out);
        sources.push(SourceFile { name, owner: None, text: text.into() });
    }
    for fragment in &fragments {
        if let Some(source) = sources.iter_mut().find(|source| source.name == fragment.file) {
            source.owner.clone_from(&fragment.owner);
        }
    }
    assemble(fragments, sources, complete, out)
}

/// Decodes one file; false when it could not be read to its end.
fn read_fragment(name: &Arc<str>, text: &str, fragments: &mut Vec<Fragment>, out: &mut Diagnostics) -> bool {
    let parsed = yaml::parse(text, Dialect::Strict);
    let at = |mark: Mark| Position::new(Arc::clone(name), mark.line, mark.column);
    let mut complete = true;
    for problem in parsed.problems {
        let mut diagnostic =
            Diagnostic::error(problem.code, at(problem.mark), problem.message).help(problem.help);
        if let Some(earlier) = problem.earlier {
            diagnostic = diagnostic.related(&at(earlier), "it stands here first");
        }
        out.push(diagnostic);
        complete &= !problem.fatal;
    }
    if !complete {
        return false;
    }
    match parsed.documents.first() {
        Some(document) => fragments.push(decode(name, document, out)),
        None => {
            let help = "it begins with `fence: NAME` and `trust_domain: DOMAIN`".to_owned();
            let position = Position::new(Arc::clone(name), 1, 1);
            out.push(Diagnostic::error("empty", position, "the file is empty").help(help));
            complete = false;
        }
    }
    complete
}

/// Line and column after the last character.
fn end_of(text: &str) -> (u32, u32) {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}
