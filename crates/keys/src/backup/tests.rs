//! What was sealed opens whole, and nothing else opens.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::Secret;

fn key_file(folder: &TempDir) -> MasterSource {
    let source = MasterSource::KeyFile { path: folder.path().join("key") };
    source.create().unwrap();
    source
}

fn sealed(source: &MasterSource, clear: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::start(Vec::new(), source).unwrap();
    sealer.write_all(clear).unwrap();
    sealer.finish().unwrap()
}

fn opened(source: &MasterSource, file: &[u8]) -> Result<Vec<u8>, BackupError> {
    let mut clear = Vec::new();
    Opener::start(file, source)?.read_to_end(&mut clear)?;
    Ok(clear)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / CHUNK + at % 251) as u8).collect()
}

#[test]
fn every_length_around_a_chunk_opens_as_it_was() {
    let folder = TempDir::new().unwrap();
    let key = key_file(&folder);
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7] {
        let clear = pattern(length);
        let file = sealed(&key, &clear);
        assert_eq!(file.len(), HEADER + length + length.div_ceil(CHUNK).max(1) * TAG);
        assert_eq!(opened(&key, &file).unwrap(), clear, "{length} bytes");
    }
}

#[test]
fn a_passphrase_opens_what_it_sealed_and_another_does_not() {
    let words = |text: &str| MasterSource::Passphrase { passphrase: Secret::new(text.to_owned()) };
    let file = sealed(&words("correct horse battery"), b"state");
    assert_eq!(opened(&words("correct horse battery"), &file).unwrap(), b"state");
    let error = opened(&words("incorrect horse battery"), &file).unwrap_err();
    assert!(error.to_string().contains("wrong key or passphrase"), "{error}");
    let folder = TempDir::new().unwrap();
    let error = opened(&key_file(&folder), &file).unwrap_err();
    assert!(matches!(error, BackupError::Master(MasterError::OtherKind { .. })), "{error}");

    let mut hungry = file;
    hungry[18..22].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = opened(&words("correct horse battery"), &hungry).unwrap_err();
    assert!(matches!(error, BackupError::Master(MasterError::Parameters(_))), "{error}");
}

#[test]
fn another_key_opens_nothing_and_no_two_files_are_alike() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let key = key_file(&one);
    let file = sealed(&key, b"state");
    assert!(opened(&key_file(&other), &file).is_err());
    assert_ne!(file[HEADER..], sealed(&key, b"state")[HEADER..]);
}

#[test]
fn chunks_that_changed_places_went_missing_or_came_from_another_file_are_refused() {
    let folder = TempDir::new().unwrap();
    let key = key_file(&folder);
    let (file, twin) = (sealed(&key, &pattern(3 * CHUNK)), sealed(&key, &pattern(3 * CHUNK)));
    let chunk = |file: &[u8], n: usize| file[HEADER + n * (CHUNK + TAG)..][..CHUNK + TAG].to_vec();
    let build = |chunks: &[Vec<u8>]| [file[..HEADER].to_vec(), chunks.concat()].concat();
    let [a, b, c] = [0, 1, 2].map(|n| chunk(&file, n));
    assert_eq!(build(&[a.clone(), b.clone(), c.clone()]), file);
    for wrong in [
        vec![],
        vec![b.clone(), a.clone(), c.clone()],
        vec![a.clone(), c.clone()],
        vec![a.clone(), b.clone()],
        vec![a.clone(), a.clone(), b.clone(), c.clone()],
        vec![a.clone(), b.clone(), c.clone(), c.clone()],
        vec![a, chunk(&twin, 1), c],
    ] {
        assert!(opened(&key, &build(&wrong)).is_err(), "{} chunks", wrong.len());
    }
}

#[test]
fn damage_stays_damage_however_often_one_reads() {
    let folder = TempDir::new().unwrap();
    let key = key_file(&folder);
    let mut file = sealed(&key, &pattern(CHUNK + 1));
    file.pop();
    let mut opener = Opener::start(&file[..], &key).unwrap();
    opener.read_exact(&mut vec![0; CHUNK]).unwrap();
    for _ in 0..2 {
        assert_eq!(opener.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn what_is_no_backup_is_called_so() {
    let folder = TempDir::new().unwrap();
    let key = key_file(&folder);
    assert!(matches!(opened(&key, b""), Err(BackupError::Unknown)));
    assert!(matches!(opened(&key, &[b'x'; 200]), Err(BackupError::Unknown)));
    let mut file = sealed(&key, b"state");
    file[16] = 2;
    assert!(matches!(opened(&key, &file), Err(BackupError::Newer(2))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_is_refused(length in 0..CHUNK + 200, position: prop::sample::Index, bit in 0..8u8) {
        let folder = TempDir::new().unwrap();
        let key = key_file(&folder);
        let mut file = sealed(&key, &pattern(length));
        let at = position.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(opened(&key, &file).is_err());
    }

    #[test]
    fn a_file_cut_short_or_continued_is_refused(
        length in 0..CHUNK + 200,
        position: prop::sample::Index,
        more in prop::collection::vec(any::<u8>(), 1..100),
    ) {
        let folder = TempDir::new().unwrap();
        let key = key_file(&folder);
        let mut file = sealed(&key, &pattern(length));
        prop_assert!(opened(&key, &file[..position.index(file.len())]).is_err());
        file.extend(more);
        prop_assert!(opened(&key, &file).is_err());
    }
}
