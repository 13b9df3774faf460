//! Files that enforcement points need besides the fence: rule sets and descriptions of APIs. Which they are, in which order rules
//! count, and how they are read, in one place for whoever checks, distributes or measures them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::Fence;
use crate::position::Position;

/// Bytes of one file.
pub const MAX_CONTENT_FILE: usize = 8 << 20;
/// Files of one fence.
pub const MAX_CONTENT_FILES: usize = 4096;
/// Bytes of all files together.
pub const MAX_CONTENT_BYTES: usize = 64 << 20;

/// How rules begin, in the order in which they count. The first that is there is the set's own configuration.
const SETUP: [&str; 2] = ["crs-setup.conf", "crs-setup.conf.example"];

/// The files of a Core Rule Set that hold rules, in the order in which they count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrsRules<'n> {
    /// What sets it up; the levels that a fence says count after it.
    pub setup: Vec<&'n str>,
    /// What plugins configure and do before, the rules in order of name, and what plugins do after.
    pub rules: Vec<&'n str>,
}

/// The files of the Core Rule Set in `folder`. `names` may be in any order and hold others too.
#[must_use]
pub fn crs_rules<'n>(folder: &str, names: impl Iterator<Item = &'n str>) -> CrsRules<'n> {
    let mut found: BTreeSet<(u8, &str)> = BTreeSet::new();
    for name in names {
        let Some(inside) = name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        let place = match inside.split_once('/') {
            None if inside == SETUP[0] => 0,
            None if inside == SETUP[1] => 1,
            Some(("plugins", file)) if file.ends_with("-config.conf") => 2,
            Some(("plugins", file)) if file.ends_with("-before.conf") => 3,
            Some(("rules", file)) if file.ends_with(".conf") && !file.contains('/') => 4,
            Some(("plugins", file)) if file.ends_with("-after.conf") => 5,
            _ => continue,
        };
        found.insert((place, name));
    }
    if found.iter().next().is_some_and(|(place, _)| *place == 0) {
        found.retain(|(place, _)| *place != 1);
    }
    let part = |setup: bool| {
        let of = found.iter().filter(move |(place, _)| (*place <= 1) == setup);
        of.map(|(_, name)| *name).collect()
    };
    CrsRules { setup: part(true), rules: part(false) }
}

/// Which files the fence needs, by name relative to its folder, and where it says so.
///
/// # Errors
/// A folder that cannot be listed, or has no rules.
pub fn names(fence: &Fence) -> Result<BTreeMap<String, Position>, Diagnostics> {
    let (mut names, mut out) = (BTreeMap::new(), Diagnostics::default());
    if let Some((folder, waf)) = fence.waf.as_ref().and_then(|waf| Some((waf.crs.as_ref()?, waf))) {
        match crs_files(&fence.folder, folder) {
            Ok(files) if !crs_rules(folder, files.iter().map(String::as_str)).rules.is_empty() => {
                names.extend(files.into_iter().map(|file| (file, waf.position.clone())));
            }
            Ok(_) => {
                let message = format!("there are no rules in `{folder}`: expected `{folder}/rules/*.conf`");
                out.push(
                    Diagnostic::error("not-found", waf.position.clone(), message).help(FETCH.to_owned()),
                );
            }
            Err(error) => {
                let code = if error.kind() == io::ErrorKind::NotFound { "not-found" } else { "unreadable" };
                let message = format!("cannot list the rules in `{folder}`: {error}");
                out.push(Diagnostic::error(code, waf.position.clone(), message).help(FETCH.to_owned()));
            }
        }
    }
    for openapi in fence.services.iter().filter_map(|service| service.openapi.as_ref()) {
        names.entry(openapi.file.clone()).or_insert_with(|| openapi.position.clone());
    }
    if let Some((_, position)) = names.iter().nth(MAX_CONTENT_FILES) {
        let message = format!("a fence has at most {MAX_CONTENT_FILES} files of rules and descriptions");
        out.push(Diagnostic::error("too-large", position.clone(), message));
    }
    if out.is_valid() { Ok(names) } else { Err(out.finish(&fence.files)) }
}

const FETCH: &str = "`ringfence content fetch crs` brings the OWASP Core Rule Set";

/// What of a Core Rule Set is needed: rules, and the data files that they name. Links and folders deeper down are not followed.
fn crs_files(fence_folder: &Path, folder: &str) -> io::Result<Vec<String>> {
    let root = fence_folder.join(folder);
    let mut files = Vec::new();
    // It must be there; one without plugins is whole.
    fs::metadata(&root)?;
    for (part, endings) in
        [("", &["conf", "example"][..]), ("rules", &["conf", "data"]), ("plugins", &["conf", "data"])]
    {
        let entries = match fs::read_dir(root.join(part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            // A name that is not UTF-8 is in no rule set.
            let Some(name) = name.to_str() else { continue };
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            let wanted = if part.is_empty() { SETUP.contains(&name) } else { endings.contains(&ending) };
            if wanted && !name.starts_with('.') && fs::metadata(entry.path())?.is_file() {
                let slash = if part.is_empty() { "" } else { "/" };
                files.push(format!("{folder}/{part}{slash}{name}"));
            }
            if files.len() > MAX_CONTENT_FILES {
                return Err(io::Error::other(format!("it has more than {MAX_CONTENT_FILES} files")));
            }
        }
    }
    Ok(files)
}

/// Reads them all, within bounds.
///
/// # Errors
/// What is missing, unreadable or too large, with the place in the fence that names it.
pub fn read(fence: &Fence) -> Result<BTreeMap<String, Vec<u8>>, Diagnostics> {
    let mut out = Diagnostics::default();
    let (mut files, mut total) = (BTreeMap::new(), 0);
    for (name, position) in names(fence)? {
        let mut error = |code, message: String| out.push(Diagnostic::error(code, position.clone(), message));
        match read_file(&fence.folder, &name) {
            Ok(bytes) => {
                total += bytes.len();
                files.insert(name, bytes);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                error("not-found", format!("there is no file `{name}` beside the fence"));
            }
            Err(e) => error("unreadable", format!("cannot read `{name}`: {e}")),
        }
        if total > MAX_CONTENT_BYTES {
            let message =
                format!("rules and descriptions are at most {} MiB together", MAX_CONTENT_BYTES >> 20);
            out.push(Diagnostic::error("too-large", position, message));
            break;
        }
    }
    if out.is_valid() { Ok(files) } else { Err(out.finish(&fence.files)) }
}

/// Reads one of them.
///
/// # Errors
/// It is no file, too large, outside of the fence's folder (a link led there), or cannot be read.
pub fn read_file(folder: &Path, name: &str) -> io::Result<Vec<u8>> {
    let path = folder.join(name);
    // What services may not read must not become an error message about it.
    let inside = path.canonicalize()?.starts_with(folder.canonicalize()?);
    if !inside {
        return Err(io::Error::other("a link leads out of the fence's folder"));
    }
    let file = File::open(&path)?;
    // A device or pipe would be read for ever.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_CONTENT_FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_CONTENT_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_CONTENT_FILE >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(folder: &Path) -> Fence {
        let text =
            "fence: t\ntrust_domain: t.example\nwaf: { crs: crs }\nservices:\n  a: { openapi: api.yaml }\n";
        let mut fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        fence.folder = folder.to_owned();
        fence
    }

    #[test]
    fn rules_count_in_the_order_of_the_rule_set_and_its_own_setup_before_the_example() {
        let names = [
            "crs/rules/REQUEST-912.conf",
            "crs/plugins/x-after.conf",
            "crs/crs-setup.conf.example",
            "crs/rules/sql.data",
            "crs/plugins/x-before.conf",
            "crs/rules/REQUEST-901.conf",
            "crs/plugins/x-config.conf",
            "other/rules/a.conf",
            "crs/rules/deep/a.conf",
        ];
        let rules = [
            "crs/plugins/x-config.conf",
            "crs/plugins/x-before.conf",
            "crs/rules/REQUEST-901.conf",
            "crs/rules/REQUEST-912.conf",
            "crs/plugins/x-after.conf",
        ];
        let found = crs_rules("crs", names.into_iter());
        assert_eq!((found.setup, found.rules), (vec!["crs/crs-setup.conf.example"], rules.to_vec()));
        let own = crs_rules("crs", names.into_iter().chain(["crs/crs-setup.conf"]));
        assert_eq!((own.setup, own.rules), (vec!["crs/crs-setup.conf"], rules.to_vec()));
    }

    #[test]
    fn what_the_fence_names_is_read_and_what_is_missing_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let fence = fence(folder.path());
        let told = |fence: &Fence| {
            let errors = read(fence).unwrap_err().errors;
            errors.iter().map(|e| (e.code, e.position.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(told(&fence), [("not-found", "ringfence.yaml:3:1".to_owned())]);
        fs::create_dir(folder.path().join("crs")).unwrap();
        assert_eq!(told(&fence), [("not-found", "ringfence.yaml:3:1".to_owned())], "a folder without rules");
        write("crs/rules/a.conf", b"SecAction");
        write("crs/rules/words.data", b"\xff");
        write("crs/rules/.hidden.conf", b"");
        write("crs/README.md", b"");
        assert_eq!(told(&fence), [("not-found", "ringfence.yaml:5:17".to_owned())]);
        write("api.yaml", b"openapi: 3.1.0");
        let all = read(&fence).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["api.yaml", "crs/rules/a.conf", "crs/rules/words.data"]);
        assert_eq!(all["crs/rules/words.data"], b"\xff");
        write("api.yaml", &vec![b' '; MAX_CONTENT_FILE + 1]);
        assert_eq!(told(&fence), [("unreadable", "ringfence.yaml:5:17".to_owned())]);
    }

    #[test]
    fn a_link_out_of_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("crs/rules")).unwrap();
        fs::write(folder.path().join("crs/rules/a.conf"), "").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("api.yaml")).unwrap();
        let errors = read(&fence(folder.path())).unwrap_err().errors;
        assert!(errors[0].message.contains("leads out"), "{errors:?}");
    }
}
