//! The complete memory of the running processes, searched for keys.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ringfence_keys::{Algorithm, SecretBytes, SigningKey, digest, from_hex, to_hex};
use serde_json::Value;

use crate::is_root;
use crate::keys::{self, Key};
use crate::running::{Clinic, Who};

/// PKCS#8 of a P-256 key up to its number.
const PREFIX: &str = "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420";

#[test]
fn no_process_but_the_keeper_holds_a_key_that_signs() {
    if !is_root("reading the memory of other processes") {
        return;
    }
    let clinic = Clinic::start(Who::Root);
    let data = clinic.folder.join(".ringfence");
    // Everything signs once more, so that what passes through the processes passes now.
    for step in [&["ca", "rotate", "issuing"][..], &["ca", "rotate", "root"], &["ca", "rotate", "root"]] {
        assert!(clinic.ringfence(step).status.success(), "{step:?}");
    }
    for path in ["/", "/api/appointments", "/api/invoices?patient=p-1003"] {
        assert_eq!(clinic.get(path).0, 200);
    }
    let keys = keys::of_keeper(&data);
    let roles: BTreeSet<&str> = keys.iter().map(|key| key.role).collect();
    assert_eq!(roles, BTreeSet::from(["root", "issuing", "serving", "token", "snapshot"]));

    let keeper = Memory::read(clinic.process("keeper"));
    for role in ["issuing", "serving", "token", "snapshot"] {
        let held = keys.iter().filter(|key| key.role == role).flat_map(|key| keeper.find(key)).count();
        assert!(held > 0, "the search finds what is there: the keeper's {role} key");
    }
    let master = keys::master(&data);
    let others = [("node", clinic.process("node")), ("control", clinic.process("control")), ("up", clinic.up_pid())];
    for (name, pid) in others {
        let memory = Memory::read(pid);
        assert!(memory.size() > 4 << 20, "{name}: only {} bytes were read", memory.size());
        for key in keys.iter().chain([&master]) {
            assert_eq!(memory.find(key), [""; 0], "{name} holds the {} key", key.role);
        }
    }

    // The node does hold keys, and the same search finds them: those of its own services' SVIDs.
    let issued = issued(&data);
    let node = Memory::read(clinic.process("node"));
    let found = node.scalars().find(|scalar| public_digest(scalar).is_some_and(|digest| issued.contains(&digest)));
    let scalar = found.expect("the private key of an SVID is in the node");
    for other in ["keeper", "control"] {
        let memory = Memory::read(clinic.process(other));
        let reversed: Vec<u8> = scalar.iter().rev().copied().collect();
        assert!(!memory.contains(&scalar) && !memory.contains(&reversed), "{other} holds the key of an SVID");
    }
}

/// SHA-256 of the public keys of all SVIDs that were issued.
fn issued(data: &Path) -> BTreeSet<String> {
    let log = std::fs::read_to_string(data.join("keeper/signing.log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let keys: BTreeSet<String> =
        lines.filter(|line| line["what"] == "x509").map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    assert!(!keys.is_empty());
    keys
}

/// SHA-256 of the public key that belongs to a private one.
fn public_digest(scalar: &[u8]) -> Option<String> {
    let pkcs8 = [&from_hex(PREFIX).unwrap(), scalar].concat();
    let key = SigningKey::from_pkcs8(Algorithm::P256, &SecretBytes::new(pkcs8)).ok()?;
    Some(to_hex(&digest::sha256(&key.verifying_key().to_spki())))
}

/// What a process has in memory that can be read.
struct Memory {
    maps: Vec<Vec<u8>>,
}

impl Memory {
    fn read(pid: u32) -> Self {
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut read = Vec::new();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, flags) = (fields.next().unwrap(), fields.next().unwrap());
            let special = line.ends_with("[vvar]") || line.ends_with("[vvar_vclock]") || line.ends_with("[vsyscall]");
            if !flags.starts_with('r') || special {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
            read.extend(Self::range(&memory, number(start), number(end)));
        }
        Self { maps: read }
    }

    /// A mapping, page by page where it cannot be read whole: what was never touched or is gone by now holds nothing.
    fn range(memory: &File, start: u64, end: u64) -> Option<Vec<u8>> {
        const STEP: u64 = 1 << 20;
        let mut bytes = Vec::new();
        let mut at = start;
        while at < end {
            let mut step = vec![0; usize::try_from(STEP.min(end - at)).unwrap()];
            match memory.read_at(&mut step, at) {
                Ok(n) if n > 0 => {
                    bytes.extend_from_slice(&step[..n]);
                    at += n as u64;
                }
                _ => {
                    let n = 4096.min(end - at);
                    bytes.resize(bytes.len() + usize::try_from(n).unwrap(), 0);
                    at += n;
                }
            }
        }
        Some(bytes).filter(|bytes| bytes.iter().any(|b| *b != 0))
    }

    fn size(&self) -> usize {
        self.maps.iter().map(Vec::len).sum()
    }

    /// In which forms a key is there.
    fn find(&self, key: &Key) -> Vec<&'static str> {
        key.forms.iter().filter(|(_, bytes)| self.contains(bytes)).map(|(form, _)| *form).collect()
    }

    fn contains(&self, needle: &[u8]) -> bool {
        self.maps.iter().any(|map| memchr::memmem::find(map, needle).is_some())
    }

    /// Everything that could be the number of a private key: 32 bytes at a word's boundary that look random, least
    /// significant byte first as the crypto library keeps it; given out most significant byte first.
    fn scalars(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let windows = self.maps.iter().flat_map(|map| (0..map.len().saturating_sub(31)).step_by(8).map(|at| &map[at..at + 32]));
        let random = |window: &&[u8]| {
            let words: Vec<&[u8]> = window.chunks(8).collect();
            let mut seen = [false; 256];
            words.iter().all(|word| word.iter().filter(|b| **b == 0).count() < 3)
                && window.iter().filter(|b| !std::mem::replace(&mut seen[usize::from(**b)], true)).count() >= 24
        };
        windows.filter(random).map(|window| window.iter().rev().copied().collect())
    }
}
