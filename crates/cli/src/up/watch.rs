//! Noticing that the fence changed: the texts themselves are compared, twice a second.
//!
//! inotify was rejected: editors rename, network file systems and bind mounts stay silent, and reading a few small files
//! costs less than the cases it gets wrong.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ringfence_authz::load_sources;
use ringfence_control::supervisor::{Beside, ToControl};
use ringfence_model::Fence;
use ringfence_snapshot::{Policies, Text};

use super::beside;
use super::files::{Looked, Read};
use crate::data::fence_folder;
use crate::env::Env;

/// Largest file and number of files that are read; the model refuses larger ones with a better message.
const MAX_FILE: u64 = 1 << 20;
const MAX_FILES: usize = 256;

/// A fence as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Texts {
    /// Name and text of each file.
    pub(crate) files: Files,
    /// Its policies and their data, or why they cannot be read; none as long as the files say none.
    policies: Result<Option<Policies>, String>,
    /// What else it names beside itself, or why that cannot be read.
    beside: Result<Beside, String>,
    /// Rules and descriptions that it names, or why they cannot be read.
    content: Result<Read, String>,
    /// What the operator should know of those files.
    pub(crate) warnings: Vec<String>,
}

type Files = Vec<(String, String)>;

impl Texts {
    /// What control is told: rules and descriptions in parts, then the fence that names them.
    pub(crate) fn offer(&self) -> impl Iterator<Item = ToControl> {
        let parts = self.content.iter().flat_map(Read::parts).map(ToControl::Content);
        let fence = || ToControl::Fence {
            files: self.files.clone(),
            policies: self.policies.clone(),
            beside: self.beside.clone(),
            content: self.content.as_ref().map(Read::contents).map_err(Clone::clone),
        };
        parts.chain(std::iter::once_with(fence))
    }
}

/// Watches a file, or a folder of fragments.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Texts,
    /// A change is reported once it has stood still for one look, so that a half-written file is not.
    pending: Option<Texts>,
    reader: Reader,
}

impl Watch {
    /// Starts from what is there now.
    pub(crate) fn new(path: &Path, env: &Env) -> io::Result<(Self, Texts)> {
        let mut reader = Reader {
            path: path.to_owned(),
            files: Vec::new(),
            fence: None,
            looked: Looked::default(),
            env: env.clone(),
        };
        let texts = reader.read()?;
        Ok((Self { seen: texts.clone(), pending: None, reader }, texts))
    }

    /// Looks once; `Some` when there is something new that has settled.
    pub(crate) fn look(&mut self) -> Option<Texts> {
        // A file that is being replaced may be missing for a moment.
        let now = self.reader.read().ok()?;
        if now == self.seen {
            self.pending = None;
            return None;
        }
        if self.pending.as_ref() == Some(&now) {
            self.pending = None;
            self.seen.clone_from(&now);
            return Some(now);
        }
        self.pending = Some(now);
        None
    }

    /// Reads now, settled or not: somebody asked.
    pub(crate) fn force(&mut self) -> io::Result<Texts> {
        self.seen = self.reader.read()?;
        Ok(self.seen.clone())
    }
}

/// Reads a fence, and what it names beside itself.
#[derive(Debug)]
struct Reader {
    path: PathBuf,
    files: Files,
    /// The fence of these files, if it is valid: parsed once, looked at twice a second.
    fence: Option<Fence>,
    /// Rules and descriptions, which may be large.
    looked: Looked,
    env: Env,
}

impl Reader {
    fn read(&mut self) -> io::Result<Texts> {
        let files = read(&self.path)?;
        if self.files != files {
            self.fence = Fence::parse(files.clone()).ok();
            if let Some(fence) = &mut self.fence {
                fence.folder = fence_folder(&self.path);
            }
            self.files.clone_from(&files);
        }
        // What is wrong with the fence itself is for control to say.
        let policies = self.fence.as_ref().map_or(Ok(None), policies);
        let (beside, warnings) = match &self.fence {
            Some(fence) => beside::read(fence, &self.env),
            None => (Ok(Beside::default()), Vec::new()),
        };
        let content =
            self.fence.as_ref().map_or_else(|| Ok(Read::default()), |fence| self.looked.read(fence));
        Ok(Texts { files, policies, beside, content, warnings })
    }
}

fn policies(fence: &Fence) -> Result<Option<Policies>, String> {
    let Some(declared) = &fence.policies else { return Ok(None) };
    let sources = load_sources(fence).map_err(|problems| problems.to_string())?.unwrap_or_default();
    let files = sources.policies.iter().map(|f| Text { name: f.name.to_string(), text: f.text.to_string() });
    let entities = sources.entities.map(|(name, data)| Text {
        name: name.to_string(),
        text: String::from_utf8_lossy(&data).into_owned(),
    });
    Ok(Some(Policies { files: files.collect(), entities, position: declared.position.clone() }))
}

fn read(path: &Path) -> io::Result<Files> {
    let mut files = BTreeMap::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            let yaml = file.extension().is_some_and(|e| e == "yaml" || e == "yml");
            if yaml && file.is_file() && files.len() < MAX_FILES {
                files.insert(name(&file), text(&file)?);
            }
        }
    } else {
        files.insert(name(path), text(path)?);
    }
    Ok(files.into_iter().collect())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn text(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    // What is not UTF-8 is for the parser to refuse, with a position.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_reported_once_and_only_when_it_has_settled() {
        let path = std::env::temp_dir().join(format!("ringfence-watch-{}.yaml", std::process::id()));
        std::fs::write(&path, "a").unwrap();
        let (mut watch, texts) = Watch::new(&path, &Env::default()).unwrap();
        assert_eq!(texts.files[0].1, "a");
        assert_eq!(watch.look(), None);
        std::fs::write(&path, "half").unwrap();
        assert_eq!(watch.look(), None, "seen for the first time");
        std::fs::write(&path, "whole").unwrap();
        assert_eq!(watch.look(), None, "still moving");
        assert_eq!(watch.look().unwrap().files[0].1, "whole");
        assert_eq!(watch.look(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(watch.look(), None, "a file that is gone leaves the old fence in force");
    }

    #[test]
    fn policies_are_part_of_the_fence_that_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let fence = "fence: t\ntrust_domain: t.example\npolicies: ['*.cedar']\nentities: { file: e.json }\nservices: { a: {} }\n";
        write("ringfence.yaml", fence);
        write("a.cedar", "permit(principal, action, resource);");
        write("e.json", "[]");
        let (mut watch, texts) = Watch::new(&folder.path().join("ringfence.yaml"), &Env::default()).unwrap();
        let policies = texts.policies.unwrap().unwrap();
        assert_eq!((policies.files[0].name.as_str(), policies.position.line), ("a.cedar", 3));
        assert_eq!(policies.entities.unwrap().text, "[]");
        for (name, text) in [("a.cedar", "// nothing"), ("b.cedar", ""), ("e.json", "[ ]")] {
            write(name, text);
            assert_eq!(watch.look(), None, "{name}: seen for the first time");
            assert!(watch.look().unwrap().policies.is_ok(), "{name}");
        }
        std::fs::remove_file(folder.path().join("e.json")).unwrap();
        assert!(watch.force().unwrap().policies.unwrap_err().contains("e.json"), "control is told why");
    }

    #[test]
    fn a_new_secret_of_a_client_is_noticed_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "ringfence.yaml",
            "fence: t\ntrust_domain: t.example\nproviders: { a: { issuer: https://a.example, client: { id: t, secret: { file: s } } } }\nservices: { a: {} }\n",
        );
        write("s", "hunter2\n");
        let (mut watch, texts) = Watch::new(&folder.path().join("ringfence.yaml"), &Env::default()).unwrap();
        assert!(texts.beside.is_ok() && !format!("{texts:?}").contains("hunter2"));
        write("s", "hunter3\n");
        assert_eq!(watch.look(), None, "seen for the first time");
        assert!(watch.look().is_some());
        std::fs::remove_file(folder.path().join("s")).unwrap();
        let refused = watch.force().unwrap().beside.unwrap_err();
        assert!(refused.starts_with("ringfence.yaml:3:"), "{refused}");
    }
}
