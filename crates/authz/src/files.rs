//! `policies:` of the fence, from patterns to texts.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ringfence_model::{Diagnostic, Diagnostics, Entities, Fence, Position, SourceFile};

use crate::data::MAX_DATA_BYTES;
use crate::engine::Sources;

/// Bytes of one policy file.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Policy files of one fence.
pub const MAX_FILES: usize = 256;

/// Reads what a fence says beside itself: none when it has no policies.
///
/// # Errors
/// As of [`load_policies`], and entity data that cannot be read.
pub fn load_sources(fence: &Fence) -> Result<Option<Sources>, Diagnostics> {
    let file = match &fence.entities {
        Some(Entities::File(name)) => Some((name.as_str(), fence.folder.join(name))),
        // What a server knows is asked for while the fence is in force.
        Some(Entities::Url(_)) | None => None,
    };
    load(fence, file)
}

/// The same with entity data of this file, for a fence whose data is at a server.
///
/// # Errors
/// As of [`load_sources`].
pub fn load_sources_with(fence: &Fence, data: &Path) -> Result<Option<Sources>, Diagnostics> {
    load(fence, Some((&data.display().to_string(), data.to_owned())))
}

fn load(fence: &Fence, file: Option<(&str, PathBuf)>) -> Result<Option<Sources>, Diagnostics> {
    let Some(declared) = &fence.policies else { return Ok(None) };
    let policies = load_policies(&fence.folder, &declared.files)?;
    let Some((name, path)) = file else { return Ok(Some(Sources { policies, entities: None })) };
    let data = read(&path, MAX_DATA_BYTES).map_err(|message| {
        let mut out = Diagnostics::default();
        out.push(Diagnostic::error("unreadable", Position::whole(name.into()), message));
        out
    })?;
    Ok(Some(Sources { policies, entities: Some((name.into(), data.into_bytes().into())) }))
}

/// Reads the policy files that the patterns name, below the fence's folder. A pattern is a path, or a path whose last
/// part is `*.cedar`.
///
/// # Errors
/// A pattern that names nothing, a file that cannot be read, too many, too large.
pub fn load_policies(folder: &Path, patterns: &[impl AsRef<str>]) -> Result<Vec<SourceFile>, Diagnostics> {
    let mut out = Diagnostics::default();
    let mut paths: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let pattern = pattern.as_ref();
        match expand(folder, pattern) {
            Ok(found) if found.is_empty() => {
                let message = format!("no policy file matches `{pattern}`");
                out.push(Diagnostic::error("not-found", Position::whole(pattern.into()), message));
            }
            Ok(found) => paths.extend(found),
            Err(message) => {
                out.push(Diagnostic::error("unreadable", Position::whole(pattern.into()), message))
            }
        }
        if paths.len() > MAX_FILES {
            let message = format!("there are more than {MAX_FILES} policy files");
            out.push(Diagnostic::error("too-large", Position::whole(pattern.into()), message));
            return Err(out);
        }
    }
    paths.sort();
    paths.dedup();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let name: Arc<str> = path.display().to_string().into();
        match read(&folder.join(&path), MAX_FILE_BYTES) {
            Ok(text) => files.push(SourceFile { name, owner: None, text: text.into() }),
            Err(message) => out.push(Diagnostic::error("unreadable", Position::whole(name), message)),
        }
    }
    if out.is_valid() { Ok(files) } else { Err(out) }
}

fn expand(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = Path::new(pattern);
    if path.is_absolute() || path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err("a policy file lies in the fence's folder: no absolute path, no `..`".into());
    }
    let Some(suffix) =
        path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('*'))
    else {
        return Ok(vec![path.to_owned()]);
    };
    let parent = path.parent().unwrap_or_else(|| Path::new(""));
    if pattern.matches('*').count() != 1 {
        return Err("a pattern has one `*`, at the beginning of its last part".into());
    }
    let entries = match fs::read_dir(folder.join(parent)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| format!("cannot list it: {error}"))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| format!("cannot list it: {error}"))?.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if !hidden && name.to_str().is_some_and(|name| name.ends_with(suffix)) {
            found.push(parent.join(name));
        }
        // One more than is allowed is enough to refuse it.
        if found.len() > MAX_FILES {
            break;
        }
    }
    Ok(found)
}

fn read(path: &Path, most: usize) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() > most {
        return Err(format!("it has at most {} MiB", most >> 20));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files_below_the_fence_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("policies")).unwrap();
        for (name, text) in [("b.cedar", "b"), ("a.cedar", "a"), (".c.cedar", "c"), ("notes.md", "d")] {
            fs::write(folder.path().join("policies").join(name), text).unwrap();
        }
        let names = |patterns: &[&str]| {
            load_policies(folder.path(), patterns)
                .map(|files| files.into_iter().map(|f| f.name.to_string()).collect::<Vec<_>>())
                .map_err(|problems| problems.errors[0].message.clone())
        };
        let both = vec!["policies/a.cedar".to_owned(), "policies/b.cedar".to_owned()];
        assert_eq!(names(&["policies/*.cedar", "policies/a.cedar"]), Ok(both));
        for bad in
            ["/etc/*.cedar", "../*.cedar", "policies/../../x.cedar", "*/a*.cedar", "none/*.cedar", "x.cedar"]
        {
            assert!(names(&[bad]).is_err(), "{bad}");
        }
        fs::write(folder.path().join("large.cedar"), vec![b' '; MAX_FILE_BYTES + 1]).unwrap();
        assert!(names(&["large.cedar"]).unwrap_err().contains("at most"));
    }
}
