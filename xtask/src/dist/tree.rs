//! The files of a package, as bytes that depend on nothing but their contents: sorted, owned by root, all of one time.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};

/// What lies where below `/`: paths without a leading slash.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
}

#[derive(Debug)]
struct File {
    mode: u32,
    bytes: Vec<u8>,
}

impl Tree {
    /// Adds a file; its folders follow from its path.
    pub(crate) fn add(&mut self, path: impl Into<String>, mode: u32, bytes: impl Into<Vec<u8>>) {
        let path = path.into();
        debug_assert!(!path.starts_with('/') && !path.split('/').any(|part| matches!(part, "" | "." | "..")));
        self.files.insert(path, File { mode, bytes: bytes.into() });
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, file)| (path.as_str(), file.bytes.as_slice()))
    }

    /// The sum of all files in bytes.
    pub(crate) fn size(&self) -> usize {
        self.files.values().map(|f| f.bytes.len()).sum()
    }

    /// A tar archive (POSIX.1-1988 with GNU's long names), each path behind `prefix`, all of it at `time` (Unix time in seconds).
    pub(crate) fn tar(&self, prefix: &str, time: u64) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut last = Vec::new();
        for (path, file) in &self.files {
            let mut folders: Vec<&str> = path.split('/').collect();
            folders.pop();
            let shared = last.iter().zip(&folders).take_while(|(a, b)| a == b).count();
            for depth in shared..folders.len() {
                let folder = folders.get(..=depth).unwrap_or_default().join("/");
                append(
                    &mut archive,
                    tar::EntryType::Directory,
                    &format!("{prefix}{folder}/"),
                    0o755,
                    time,
                    &[],
                )?;
            }
            append(
                &mut archive,
                tar::EntryType::Regular,
                &format!("{prefix}{path}"),
                file.mode,
                time,
                &file.bytes,
            )?;
            last = folders;
        }
        archive.into_inner()
    }
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    mode: u32,
    time: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_size(bytes.len() as u64);
    // The crate would drop the leading `./` that Debian's tools write.
    let name = header.as_gnu_mut().map(|gnu| &mut gnu.name);
    match name {
        Some(name) if path.len() < name.len() => name[..path.len()].copy_from_slice(path.as_bytes()),
        _ => return Err(io::Error::other(format!("{path} is too long for an archive"))),
    }
    header.set_cksum();
    archive.append(&header, bytes)
}

/// Compressed by gzip (RFC 1952) without a name or a time of its own.
pub(crate) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    writer.finish()
}
