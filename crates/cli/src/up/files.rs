//! Rules and descriptions that a fence names, as they stand on disk. They may have megabytes, so that a file is read again only when its
//! size, its times or its place on the disk are others.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use ringfence_model::content::{self, MAX_CONTENT_BYTES};
use ringfence_model::{Diagnostic, Diagnostics, Fence};
use ringfence_snapshot::{Content, ContentPart};

/// Files as they were read, in order of name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read(Vec<File>);

#[derive(Clone, Debug)]
struct File {
    content: Content,
    bytes: Arc<[u8]>,
}

/// What was read when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Looked(BTreeMap<String, (Stamp, File)>);

/// What changes with a file: device, number, size, and nanoseconds of its last change and of that of its attributes.
type Stamp = (u64, u64, u64, i128, i128);

impl Looked {
    /// Reads what a fence names, as far as it changed.
    pub(super) fn read(&mut self, fence: &Fence) -> Result<Read, String> {
        let names = content::names(fence).map_err(|problems| problems.to_string())?;
        self.0.retain(|name, _| names.contains_key(name));
        let (mut files, mut out, mut total) = (Vec::new(), Diagnostics::default(), 0);
        for (name, position) in names {
            let path = fence.folder.join(&name);
            let looked = std::fs::metadata(&path).map(|metadata| stamp(&metadata)).and_then(|stamp| {
                if let Some((_, file)) = self.0.get(&name).filter(|(seen, _)| *seen == stamp) {
                    return Ok(file.clone());
                }
                let bytes = content::read_file(&fence.folder, &name)?;
                let file = File { content: Content::of(name.clone(), &bytes), bytes: bytes.into() };
                self.0.insert(name.clone(), (stamp, file.clone()));
                Ok(file)
            });
            match looked {
                Ok(file) => {
                    total += file.bytes.len();
                    files.push(file);
                }
                Err(e) => {
                    let message = format!("cannot read {}: {e}", path.display());
                    out.push(Diagnostic::error("unreadable", position.clone(), message));
                }
            }
            if total > MAX_CONTENT_BYTES {
                let message =
                    format!("rules and descriptions are at most {} MiB together", MAX_CONTENT_BYTES >> 20);
                return Err(Diagnostic::error("too-large", position, message).to_string());
            }
        }
        if out.is_valid() { Ok(Read(files)) } else { Err(out.finish(&fence.files).to_string()) }
    }
}

impl Read {
    /// What a snapshot says of them.
    pub(super) fn contents(&self) -> Vec<Content> {
        self.0.iter().map(|file| file.content.clone()).collect()
    }

    /// Their bytes, each file once.
    pub(super) fn parts(&self) -> impl Iterator<Item = ContentPart> {
        self.0.iter().flat_map(|file| ContentPart::all(file.content.sha256, &file.bytes))
    }
}

impl PartialEq for File {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for File {}

fn stamp(metadata: &Metadata) -> Stamp {
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        time(metadata.mtime(), metadata.mtime_nsec()),
        time(metadata.ctime(), metadata.ctime_nsec()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_read_again_and_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir_all(folder.path().join("crs/rules")).unwrap();
        let text =
            "fence: t\ntrust_domain: t.example\nwaf: { crs: crs }\nservices: { a: { openapi: a.yaml } }\n";
        let mut fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        fence.folder = folder.path().to_owned();
        let mut looked = Looked::default();
        assert!(looked.read(&fence).unwrap_err().contains("ringfence.yaml:3:1"));
        write("crs/rules/a.conf", "one");
        assert!(looked.read(&fence).unwrap_err().contains("ringfence.yaml:4:"), "no description");
        write("a.yaml", "two");
        let first = looked.read(&fence).unwrap();
        let names: Vec<String> = first.contents().into_iter().map(|content| content.name).collect();
        assert_eq!(names, ["a.yaml", "crs/rules/a.conf"]);
        assert_eq!(first.parts().map(|part| part.bytes.0).collect::<Vec<_>>(), [b"two", b"one"]);
        assert_eq!(looked.read(&fence).unwrap(), first);
        assert!(
            Arc::ptr_eq(&looked.read(&fence).unwrap().0[0].bytes, &first.0[0].bytes),
            "it was not read again"
        );
        // An editor that keeps length and time puts another file there.
        write("crs/rules/a.new", "uno");
        let before = std::fs::metadata(folder.path().join("crs/rules/a.conf")).unwrap();
        let new = folder.path().join("crs/rules/a.new");
        std::fs::File::options()
            .write(true)
            .open(&new)
            .unwrap()
            .set_modified(before.modified().unwrap())
            .unwrap();
        std::fs::rename(&new, folder.path().join("crs/rules/a.conf")).unwrap();
        let second = looked.read(&fence).unwrap();
        assert!(second != first && &*second.0[1].bytes == b"uno");
        write("crs/rules/b.data", "");
        assert_eq!(looked.read(&fence).unwrap().0.len(), 3);
        std::fs::remove_file(folder.path().join("a.yaml")).unwrap();
        assert!(looked.read(&fence).is_err());
    }
}
