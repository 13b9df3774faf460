//! What lies in a release. It is read into memory and looked at as a whole: an archive that plays tricks with names, links or sizes is
//! refused, even where the trick is about a file that would not have been taken.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use ringfence_model::content::{MAX_CONTENT_BYTES, MAX_CONTENT_FILE, MAX_CONTENT_FILES};
use tar::{Archive, EntryType};

/// Most bytes of an archive.
pub(super) const MAX_ARCHIVE: usize = 32 << 20;
/// Most bytes in it, whether they are taken or not, and most entries.
const MAX_UNPACKED: u64 = 2 * MAX_CONTENT_BYTES as u64;
const MAX_ENTRIES: usize = 4 * MAX_CONTENT_FILES;

/// By name below the release's own folder.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error("it is no tar.gz: {0}")]
    Read(#[from] io::Error),
    #[error("it has a name that leads elsewhere: {0:?}")]
    Name(String),
    #[error("{0:?} is no file and no folder")]
    Kind(String),
    #[error("{0:?} is there twice")]
    Twice(String),
    #[error("there is more in it than any rule set has")]
    TooLarge,
    #[error("it has no `rules/*.conf`")]
    NoRules,
}

/// Reads an archive that is already here.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let failed = |e: io::Error| io::Error::other(format!("cannot read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_ARCHIVE as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > MAX_ARCHIVE {
        return Err(failed(io::Error::other(format!("it has more than {} MiB", MAX_ARCHIVE >> 20))));
    }
    Ok(bytes)
}

/// What of an archive belongs to a rule set.
pub(super) fn unpack(bytes: &[u8]) -> Result<Files, ArchiveError> {
    let mut archive = Archive::new(MultiGzDecoder::new(bytes).take(MAX_UNPACKED));
    let (mut files, mut total) = (Files::new(), 0);
    for (count, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let inside = inside(&name).ok_or_else(|| ArchiveError::Name(name.clone()))?;
        total += entry.size();
        if count >= MAX_ENTRIES || total >= MAX_UNPACKED {
            return Err(ArchiveError::TooLarge);
        }
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            _ => return Err(ArchiveError::Kind(name)),
        }
        let Some(wanted) = inside.filter(|inside| is_wanted(inside)) else { continue };
        if entry.size() > MAX_CONTENT_FILE as u64 || files.len() >= MAX_CONTENT_FILES {
            return Err(ArchiveError::TooLarge);
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if files.insert(wanted.to_owned(), bytes).is_some() {
            return Err(ArchiveError::Twice(name));
        }
    }
    if !files.keys().any(|name| name.starts_with("rules/") && name.ends_with(".conf")) {
        return Err(ArchiveError::NoRules);
    }
    Ok(files)
}

/// A name below the release's own folder; the folder itself has none. None: it leads elsewhere.
fn inside(name: &str) -> Option<Option<&str>> {
    let plain = name.len() <= 512 && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | '\u{fffd}'));
    // A folder may end in a slash.
    let mut parts = name.strip_suffix('/').unwrap_or(name).split('/');
    if !plain || parts.any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    Some(name.split_once('/').map(|(_, inside)| inside).filter(|inside| !inside.is_empty()))
}

/// What a rule set consists of.
fn is_wanted(name: &str) -> bool {
    match name.split_once('/') {
        None => matches!(name, "LICENSE" | "crs-setup.conf.example"),
        Some(("rules", file)) => !file.contains('/') && has_ending(file, &["conf", "data", "example"]),
        Some(("plugins", file)) => !file.contains('/') && has_ending(file, &["conf", "data"]),
        Some(_) => false,
    }
}

fn has_ending(file: &str, endings: &[&str]) -> bool {
    !file.starts_with('.') && file.rsplit_once('.').is_some_and(|(_, ending)| endings.contains(&ending))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use tar::{Builder, Header};

    use super::*;

    fn header(kind: EntryType, name: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        // Names that the builder itself would refuse.
        let field = &mut header.as_mut_bytes()[..100];
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header
    }

    fn packed(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, name, bytes) in entries {
            let mut header = header(*kind, name, bytes.len() as u64);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_link_name("/etc/passwd").unwrap();
                header.set_cksum();
            }
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    const RULE: (EntryType, &str, &[u8]) = (EntryType::Regular, "crs-4/rules/a.conf", b"SecAction");

    #[test]
    fn of_a_release_the_rules_are_taken_and_the_rest_is_left() {
        let files = unpack(&packed(&[
            (EntryType::XGlobalHeader, "pax_global_header", b"14 comment=ab\n"),
            (EntryType::Directory, "crs-4/", b""),
            (EntryType::Regular, "crs-4/README.md", b"x"),
            (EntryType::Regular, "crs-4/LICENSE", b"l"),
            (EntryType::Regular, "crs-4/crs-setup.conf.example", b"s"),
            (EntryType::Directory, "crs-4/rules/", b""),
            RULE,
            (EntryType::Regular, "crs-4/rules/words.data", b"w"),
            (EntryType::Regular, "crs-4/rules/deep/b.conf", b"d"),
            (EntryType::Regular, "crs-4/util/run.sh", b"#!"),
        ]))
        .unwrap();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["LICENSE", "crs-setup.conf.example", "rules/a.conf", "rules/words.data"]);
    }

    #[test]
    fn an_archive_that_plays_tricks_is_refused_as_a_whole() {
        for (kind, name) in [
            (EntryType::Regular, "../rules/b.conf"),
            (EntryType::Regular, "crs-4/rules/../../b.conf"),
            (EntryType::Regular, "/crs-4/rules/b.conf"),
            (EntryType::Regular, "crs-4/./rules/b.conf"),
            (EntryType::Regular, "crs-4//rules/b.conf"),
            (EntryType::Regular, "crs-4\\rules\\b.conf"),
            (EntryType::Regular, "crs-4/rules/\u{1b}.conf"),
            (EntryType::Symlink, "crs-4/rules/b.conf"),
            (EntryType::Link, "crs-4/rules/b.conf"),
            (EntryType::Symlink, "crs-4/elsewhere"),
            (EntryType::Fifo, "crs-4/rules/b.conf"),
            (EntryType::Char, "crs-4/rules/b.conf"),
            (EntryType::Regular, "crs-4/rules/a.conf"),
        ] {
            assert!(unpack(&packed(&[RULE, (kind, name, b"")])).is_err(), "{kind:?} {name:?}");
        }
        assert!(matches!(unpack(&packed(&[])), Err(ArchiveError::NoRules)));
        assert!(matches!(unpack(b"no archive at all"), Err(ArchiveError::Read(_))));
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused_without_being_unpacked() {
        let large = vec![0; MAX_CONTENT_FILE + 1];
        let bomb = packed(&[RULE, (EntryType::Regular, "crs-4/rules/b.conf", &large)]);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(unpack(&bomb), Err(ArchiveError::TooLarge)));
        // Its header claims more than there is, and more than would be read.
        let claim = header(EntryType::Regular, "crs-4/big", 1 << 40);
        let mut claimed = GzEncoder::new(Vec::new(), Compression::fast());
        io::Write::write_all(&mut claimed, claim.as_bytes()).unwrap();
        assert!(matches!(unpack(&claimed.finish().unwrap()), Err(ArchiveError::TooLarge)));
        let many: Vec<String> = (0..=MAX_ENTRIES).map(|number| format!("crs-4/{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (EntryType::Regular, name.as_str(), &b""[..])).collect();
        assert!(matches!(unpack(&packed(&many)), Err(ArchiveError::TooLarge)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_archive_makes_it_panic_or_names_a_place_outside(
            at in 0_usize..4096, put in any::<u8>(), more in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = Builder::new(Vec::new());
            for (kind, name, text) in [RULE, (EntryType::Regular, "crs-4/LICENSE", b"l")] {
                bytes.append(&header(kind, name, text.len() as u64), text).unwrap();
            }
            let mut bytes = bytes.into_inner().unwrap();
            let length = bytes.len();
            bytes[at % length] = put;
            bytes.extend(more);
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            io::Write::write_all(&mut packed, &bytes).unwrap();
            for name in unpack(&packed.finish().unwrap()).unwrap_or_default().keys() {
                prop_assert!(is_wanted(name) && !name.contains(".."), "{}", name);
            }
        }
    }
}
