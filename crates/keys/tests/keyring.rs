//! The keyring's promises, on real files.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ringfence_keys::{Keyring, KeyringError, MasterError, MasterSource, Purpose, Secret};

fn key_file(directory: &Path) -> MasterSource {
    MasterSource::KeyFile { path: directory.join("master.key") }
}

fn passphrase(text: &str) -> MasterSource {
    MasterSource::Passphrase { passphrase: Secret::new(text.to_owned()) }
}

/// Every file with its content, to show that an error changed nothing.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn the_first_start_makes_a_private_key_file_and_later_starts_open_what_was_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let (ring, source) = (directory.path().join("keyring.json"), key_file(directory.path()));
    let blob = Keyring::open(&ring, &source).unwrap().seal(
        Purpose::Authority,
        "root",
        1,
        &Secret::new(b"k".to_vec()),
    );
    let mode = std::fs::metadata(directory.path().join("master.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(source.warning().unwrap().contains("plain file"));
    let again = Keyring::open(&ring, &source).unwrap();
    assert_eq!(again.open_sealed(Purpose::Authority, "root", 1, &blob).unwrap().expose(), b"k");
}

#[test]
fn a_wrong_or_missing_or_exposed_master_key_is_a_clear_error_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (ring, source) = (directory.path().join("keyring.json"), key_file(directory.path()));
    Keyring::open(&ring, &source).unwrap();
    let key = directory.path().join("master.key");

    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let before = contents(directory.path());
    assert!(Keyring::open(&ring, &source).unwrap_err().to_string().contains("readable"));
    assert_eq!(contents(directory.path()), before);

    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&key, [b'x'; 64]).unwrap();
    let before = contents(directory.path());
    assert!(matches!(Keyring::open(&ring, &source), Err(KeyringError::WrongMaster(_))));
    assert_eq!(contents(directory.path()), before);

    std::fs::remove_file(&key).unwrap();
    let before = contents(directory.path());
    assert!(matches!(Keyring::open(&ring, &source), Err(KeyringError::Master(MasterError::Missing(_)))));
    assert_eq!(contents(directory.path()), before, "no new key file appears beside an old keyring");
}

#[test]
fn a_passphrase_opens_its_own_keyring_and_no_other_kind_does() {
    let directory = tempfile::tempdir().unwrap();
    let ring = directory.path().join("keyring.json");
    assert!(Keyring::open(&ring, &passphrase("short")).is_err());
    assert!(contents(directory.path()).is_empty());
    Keyring::open(&ring, &passphrase("correct horse battery")).unwrap();
    Keyring::open(&ring, &passphrase("correct horse battery")).unwrap();
    let wrong = Keyring::open(&ring, &passphrase("incorrect horse battery"));
    assert!(matches!(wrong, Err(KeyringError::WrongMaster(_))));
    let other = Keyring::open(&ring, &key_file(directory.path()));
    assert!(matches!(other, Err(KeyringError::Master(MasterError::OtherKind { .. }))));
}

#[test]
fn rotating_the_master_key_keeps_what_is_sealed_and_locks_the_old_key_out() {
    let directory = tempfile::tempdir().unwrap();
    let (ring, source) = (directory.path().join("keyring.json"), key_file(directory.path()));
    let mut keyring = Keyring::open(&ring, &source).unwrap();
    let old = keyring.seal(Purpose::Token, "t", 1, &Secret::new(b"old".to_vec()));
    assert_eq!(keyring.add_data_key(&source).unwrap(), 2);
    let new = keyring.seal(Purpose::Token, "t", 2, &Secret::new(b"new".to_vec()));
    let credential = directory.path().join("credential");
    std::fs::write(&credential, [7; 32]).unwrap();
    std::fs::set_permissions(&credential, PermissionsExt::from_mode(0o440)).unwrap();
    let next = MasterSource::Credential { path: credential };
    keyring.rewrap(&next).unwrap();
    assert!(Keyring::open(&ring, &source).is_err());
    let keyring = Keyring::open(&ring, &next).unwrap();
    assert_eq!(keyring.open_sealed(Purpose::Token, "t", 1, &old).unwrap().expose(), b"old");
    assert_eq!(keyring.open_sealed(Purpose::Token, "t", 2, &new).unwrap().expose(), b"new");
}

#[test]
fn a_damaged_keyring_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let (ring, source) = (directory.path().join("keyring.json"), key_file(directory.path()));
    Keyring::open(&ring, &source).unwrap();
    let text = std::fs::read_to_string(&ring).unwrap();
    for damaged in
        ["{", &text.replace("\"format\": 1", "\"format\": 9"), &text.replace("\"id\": 1", "\"id\": 2")]
    {
        std::fs::write(&ring, damaged).unwrap();
        let error = Keyring::open(&ring, &source).unwrap_err().to_string();
        assert!(error.contains("restore it from a backup"), "{error}");
    }
}
