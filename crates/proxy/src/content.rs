//! The files that a snapshot names: what came from control, and what is on disk since an earlier snapshot, so that a node starts without
//! control. Either way a file is what the signed snapshot says, by its digest.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringfence_snapshot::{ContentError, ContentPart, Digest, Held, Snapshot};

use crate::disk::Disk;

/// What the node has of files.
#[derive(Debug)]
pub(crate) struct Contents {
    /// What came and is not on disk: its snapshot is not in force, or the disk is full.
    held: Held,
    kept: BTreeSet<Digest>,
}

/// The files of one snapshot, for whoever compiles it.
pub(crate) struct Files<'a> {
    snapshot: &'a Snapshot,
    contents: &'a Contents,
    disk: &'a Disk,
}

impl Contents {
    /// What the disk has; what is damaged there will be sent again.
    pub(crate) fn kept(disk: &Disk) -> std::io::Result<Self> {
        Ok(Self { held: Held::default(), kept: disk.contents()? })
    }

    /// Which files need not be sent.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.kept.iter().copied().chain(self.held.digests().filter(|d| !self.kept.contains(d))).collect()
    }

    /// Takes a part of a file.
    pub(crate) fn take(&mut self, part: ContentPart) -> Result<(), ContentError> {
        self.held.take(part).map(drop)
    }

    /// The files of a snapshot, if they are all there.
    pub(crate) fn files<'a>(&'a self, snapshot: &'a Snapshot, disk: &'a Disk) -> Result<Files<'a>, String> {
        let missing = snapshot
            .content
            .iter()
            .find(|c| self.held.get(&c.sha256).is_none() && !self.kept.contains(&c.sha256));
        match missing {
            Some(content) => Err(format!("{} did not come, which the snapshot names", content.name)),
            None => Ok(Files { snapshot, contents: self, disk }),
        }
    }

    /// A snapshot is in force: its files go to disk, and others from there.
    pub(crate) fn keep(&mut self, snapshot: &Snapshot, disk: &Disk) -> std::io::Result<()> {
        let named: BTreeSet<Digest> = snapshot.content.iter().map(|content| content.sha256).collect();
        let mut kept = Ok(());
        for digest in &named {
            let bytes = self.held.get(digest).filter(|_| !self.kept.contains(digest));
            match bytes.map(|bytes| disk.keep_content(digest, bytes)) {
                None => {}
                Some(Ok(())) => drop(self.kept.insert(*digest)),
                Some(Err(e)) => kept = Err(e),
            }
        }
        if self.held.digests().next().is_some() {
            kept = kept.and_then(|()| disk.sync_contents());
        }
        self.held.retain(|digest| named.contains(digest) && !self.kept.contains(digest));
        kept
    }

    /// After the snapshot itself is on disk: what it does not name is of no use any more.
    pub(crate) fn prune(&mut self, snapshot: &Snapshot, disk: &Disk) {
        let named: BTreeSet<Digest> = snapshot.content.iter().map(|content| content.sha256).collect();
        self.kept.retain(|digest| named.contains(digest) || disk.remove_content(digest).is_err());
    }

    /// A snapshot was refused. What came for it is what control takes this node to have.
    pub(crate) fn refused(&mut self, snapshot: &Snapshot) {
        self.held.retain(|digest| snapshot.content.iter().any(|content| content.sha256 == *digest));
    }
}

impl Files<'_> {
    /// The file of that name.
    ///
    /// # Errors
    /// The snapshot does not name it, or it is not there as the snapshot says.
    pub(crate) fn content(&self, name: &str) -> Result<Arc<[u8]>, String> {
        let content = self.snapshot.content(name).ok_or_else(|| format!("{name} is not among the files"))?;
        if let Some(bytes) = self.contents.held.get(&content.sha256) {
            return Ok(bytes.clone());
        }
        self.disk.content(&content.sha256).map(Into::into).map_err(|e| format!("{name} cannot be read: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use ringfence_model::Fence;
    use ringfence_snapshot::{Addresses, Bundle, Content, Header, compile};

    use super::*;

    fn snapshot(files: &[(&str, &[u8])]) -> Snapshot {
        let fence = Fence::parse(vec![(
            "ringfence.yaml",
            "fence: t\ntrust_domain: t.example\nservices: { a: {} }\n",
        )]);
        let header = Header {
            epoch: 1,
            revision: 1,
            issued_at: 0,
            expires_at: 1,
            lease: 1,
            bundle: Bundle::default(),
        };
        let mut snapshot = compile(&fence.unwrap(), &mut Addresses::default(), header).unwrap();
        snapshot.content = files.iter().map(|(name, bytes)| Content::of(*name, bytes)).collect();
        snapshot
    }

    fn send(contents: &mut Contents, bytes: &[u8]) {
        ContentPart::all(Digest::of(bytes), bytes).for_each(|part| contents.take(part).unwrap());
    }

    #[test]
    fn what_was_in_force_is_there_after_a_restart_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let mut contents = Contents::kept(&disk).unwrap();
        let (large, small) = (vec![7; 1 << 20], b"small".to_vec());
        let first = snapshot(&[("a", &large), ("b", &small)]);
        send(&mut contents, &large);
        assert!(contents.files(&first, &disk).err().unwrap().contains("b did not come"));
        send(&mut contents, &small);
        let bytes = contents.files(&first, &disk).unwrap().content("a").unwrap();
        assert!(*bytes == *large, "before it is on disk");
        contents.keep(&first, &disk).unwrap();
        contents.prune(&first, &disk);
        assert_eq!(contents.held.digests().count(), 0, "it is on disk now");

        let mut contents = Contents::kept(&disk).unwrap();
        assert_eq!(contents.digests().len(), 2);
        assert!(contents.files(&first, &disk).unwrap().content("c").is_err());
        let second = snapshot(&[("x", &small), ("y", b"new")]);
        send(&mut contents, b"new");
        assert_eq!(&*contents.files(&second, &disk).unwrap().content("x").unwrap(), b"small", "by any name");
        contents.keep(&second, &disk).unwrap();
        assert!(contents.files(&first, &disk).is_ok(), "until the second snapshot itself is on disk");
        contents.prune(&second, &disk);
        assert!(contents.files(&first, &disk).is_err());
        assert_eq!(std::fs::read_dir(dir.path().join("proxy/content")).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_was_damaged_on_disk_is_not_used_and_is_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let snapshot = snapshot(&[("a", b"good")]);
        let mut contents = Contents::kept(&disk).unwrap();
        send(&mut contents, b"good");
        contents.keep(&snapshot, &disk).unwrap();
        let file = dir.path().join("proxy/content").join(Digest::of(b"good").to_string());
        std::fs::write(&file, "evil").unwrap();
        assert!(contents.files(&snapshot, &disk).unwrap().content("a").is_err());
        std::fs::write(dir.path().join("proxy/content/left.new"), "half").unwrap();
        assert_eq!(Contents::kept(&disk).unwrap().digests(), []);
        assert_eq!(std::fs::read_dir(dir.path().join("proxy/content")).unwrap().count(), 0);
    }

    #[test]
    fn what_came_for_a_refused_snapshot_is_held_until_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let mut contents = Contents::kept(&disk).unwrap();
        let (bad, good) =
            (snapshot(&[("a", b"bad"), ("b", b"same")]), snapshot(&[("a", b"good"), ("b", b"same")]));
        send(&mut contents, b"bad");
        send(&mut contents, b"same");
        contents.refused(&bad);
        assert_eq!(contents.digests().len(), 2);
        send(&mut contents, b"good");
        assert!(contents.files(&good, &disk).is_ok());
        contents.keep(&good, &disk).unwrap();
        contents.prune(&good, &disk);
        assert_eq!(contents.digests().len(), 2);
        assert!(contents.files(&bad, &disk).is_err());
    }
}
