//! Backups: what was sealed opens as it was, and bytes that nobody sealed never open.
#![no_main]

use std::io::{Read, Write};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_keys::MasterSource;
use ringfence_keys::backup::{Opener, Sealer};

static KEY: LazyLock<MasterSource> = LazyLock::new(|| {
    // One name: runs leave one file behind, not one each.
    let path = std::env::temp_dir().join("ringfence-fuzz-backup.key");
    std::fs::write(&path, [7; 32]).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    MasterSource::KeyFile { path }
});

fn open(file: &[u8]) -> Option<Vec<u8>> {
    let mut clear = Vec::new();
    Opener::start(file, &KEY).ok()?.read_to_end(&mut clear).ok()?;
    Some(clear)
}

fuzz_target!(|data: &[u8]| {
    assert!(open(data).is_none());
    let mut sealer = Sealer::start(Vec::new(), &KEY).unwrap();
    sealer.write_all(data).unwrap();
    let mut file = sealer.finish().unwrap();
    assert_eq!(open(&file).as_deref(), Some(data));
    if let [bit, place, ..] = data {
        let at = usize::from(*place) * (file.len() - 1) / 255;
        file[at] ^= 1 << (bit % 8);
        assert!(open(&file).is_none());
    }
});
