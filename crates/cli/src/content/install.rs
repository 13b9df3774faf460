//! Puts a rule set in the place of the one before, at once: whoever reads the folder sees the one or the other.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::archive::Files;

/// What the operator of a rule set writes, by the rule set's own documentation: it stays as it is. Of `plugins/` everything does.
const OWN: [&str; 3] = [
    "crs-setup.conf",
    "rules/REQUEST-900-EXCLUSION-RULES-BEFORE-CRS.conf",
    "rules/RESPONSE-999-EXCLUSION-RULES-AFTER-CRS.conf",
];
const PLUGINS: &str = "plugins";

/// Whether a folder may be replaced: there is nothing, or a rule set.
pub(super) fn may_replace(folder: &Path) -> Result<(), String> {
    let refused = |why: String| Err(format!("{why}: name another folder by --into"));
    match fs::symlink_metadata(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return refused(format!("cannot look at {}: {e}", folder.display())),
        Ok(metadata) if !metadata.is_dir() => return refused(format!("{} is no folder", folder.display())),
        Ok(_) => {}
    }
    let empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if empty || folder.join("rules").is_dir() {
        return Ok(());
    }
    refused(format!("{} holds something else than a rule set", folder.display()))
}

/// Writes the files in place of the folder's, but for what is the operator's own: those are returned.
pub(super) fn replace(folder: &Path, files: &Files) -> io::Result<Vec<String>> {
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent)?;
    let name = folder.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
    let draft = Draft(parent.join(format!(".{}.{}", name.to_string_lossy(), std::process::id())));
    // What an earlier run of the same number left.
    draft.clear()?;
    fs::create_dir(&draft.0)?;
    let own = own(folder)?;
    for (name, bytes) in files.iter().filter(|(name, _)| !own.contains(name)) {
        write(&draft.0.join(name), bytes)?;
    }
    for name in &own {
        write(&draft.0.join(name), &fs::read(folder.join(name))?)?;
    }
    sync(&draft.0)?;
    if folder.exists() {
        // What was there is then where the draft was, and goes with it.
        renameat_with(CWD, &draft.0, CWD, folder, RenameFlags::EXCHANGE)?;
    } else {
        fs::rename(&draft.0, folder)?;
    }
    fs::File::open(parent)?.sync_all()?;
    Ok(own)
}

/// Names of the operator's own files that are there.
fn own(folder: &Path) -> io::Result<Vec<String>> {
    let mut own: Vec<String> =
        OWN.into_iter().filter(|name| folder.join(name).is_file()).map(str::to_owned).collect();
    match fs::read_dir(folder.join(PLUGINS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                let entry = entry?;
                if let (true, Some(name)) = (entry.path().is_file(), entry.file_name().to_str()) {
                    own.push(format!("{PLUGINS}/{name}"));
                }
            }
        }
    }
    own.sort();
    Ok(own)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    fs::File::open(folder)?.sync_all()
}

/// A folder that is gone afterwards, unless it became another.
struct Draft(PathBuf);

impl Draft {
    fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(rule: &str) -> Files {
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        [
            file("rules/a.conf", rule),
            file("crs-setup.conf.example", "example"),
            file("plugins/p-config.conf", "new"),
        ]
        .into()
    }

    #[test]
    fn another_release_takes_the_place_of_one_and_what_is_the_operator_s_own_stays() {
        let root = tempfile::tempdir().unwrap();
        let crs = root.path().join("crs");
        let text = |name: &str| fs::read_to_string(crs.join(name)).unwrap();
        may_replace(&crs).unwrap();
        assert_eq!(replace(&crs, &files("one")).unwrap(), Vec::<String>::new());
        fs::write(crs.join("crs-setup.conf"), "mine").unwrap();
        fs::write(crs.join("plugins/p-config.conf"), "mine").unwrap();
        fs::write(crs.join("rules/old.conf"), "gone with the release that it was of").unwrap();
        may_replace(&crs).unwrap();
        let kept = replace(&crs, &files("two")).unwrap();
        assert_eq!(kept, ["crs-setup.conf", "plugins/p-config.conf"]);
        assert_eq!((text("rules/a.conf"), text("crs-setup.conf")), ("two".into(), "mine".into()));
        assert_eq!(text("plugins/p-config.conf"), "mine");
        assert!(!crs.join("rules/old.conf").exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "").unwrap();
        assert!(may_replace(root.path()).unwrap_err().contains("something else"));
        assert!(may_replace(&root.path().join("thesis.tex")).is_err());
        let link = root.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(may_replace(&link).is_err(), "what a link leads to is somebody else's");
    }
}
