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
    assert_eq!(roles, BTreeSet::from(["root", "issuing", "serving", "token", "txn", "snapshot"]));

    let keeper = Memory::read(clinic.process("keeper"));
    let held = keeper.find(&keys);
    for role in ["issuing", "serving", "token", "txn", "snapshot"] {
        assert!(
            held.iter().any(|(held, _)| *held == role),
            "the search finds what is there, the keeper's {role} key: {held:?}"
        );
    }
    let master = keys::master(&data);
    let others =
        [("node", clinic.process("node")), ("control", clinic.process("control")), ("up", clinic.up_pid())];
    for (name, pid) in others {
        let memory = Memory::read(pid);
        assert!(memory.size() > 4 << 20, "{name}: only {} bytes were read", memory.size());
        assert_eq!(memory.find(keys.iter().chain([&master])), BTreeSet::new(), "{name} holds a key");
    }

    // The node does hold keys, and the same search finds them: those of its own services' SVIDs.
    let issued = issued(&data);
    let node = Memory::read(clinic.process("node"));
    let found =
        node.scalars().find(|scalar| public_digest(scalar).is_some_and(|digest| issued.contains(&digest)));
    let scalar = found.expect("the private key of an SVID is in the node");
    assert!(node.contains(&scalar));
    for other in ["keeper", "control"] {
        assert!(!Memory::read(clinic.process(other)).contains(&scalar), "{other} holds the key of an SVID");
    }
}

/// SHA-256 of the public keys of all SVIDs that were issued.
fn issued(data: &Path) -> BTreeSet<String> {
    let log = std::fs::read_to_string(data.join("keeper/signing.log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let keys: BTreeSet<String> = lines
        .filter(|line| line["what"] == "x509")
        .map(|line| line["key"].as_str().unwrap().to_owned())
        .collect();
    assert!(!keys.is_empty());
    keys
}

/// SHA-256 of the public key that belongs to a private one.
fn public_digest(scalar: &[u8]) -> Option<String> {
    let pkcs8 = [&from_hex(PREFIX).unwrap(), scalar].concat();
    let key = SigningKey::from_pkcs8(Algorithm::P256, &SecretBytes::new(pkcs8)).ok()?;
    Some(to_hex(&digest::sha256(&key.verifying_key().to_spki())))
}

/// What a process has in memory that can be read, in runs of pages.
struct Memory {
    runs: Vec<Vec<u8>>,
}

impl Memory {
    fn read(pid: u32) -> Self {
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let pages = File::open(format!("/proc/{pid}/pagemap")).unwrap();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut runs = Vec::new();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, flags) = (fields.next().unwrap(), fields.next().unwrap());
            let special = ["[vvar]", "[vvar_vclock]", "[vsyscall]"].iter().any(|name| line.ends_with(name));
            if !flags.starts_with('r') || special {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
            for (start, end) in touched(&pages, number(start), number(end)) {
                let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
                // A mapping may be gone by now, and what was in it with it.
                if memory.read_exact_at(&mut bytes, start).is_ok() {
                    runs.push(bytes);
                }
            }
        }
        Self { runs }
    }

    fn size(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }

    /// Which keys are there in which forms; everything is looked for at once.
    fn find<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> BTreeSet<(&'static str, &'static str)> {
        let needles: Vec<(&str, &str, &[u8])> = keys
            .into_iter()
            .flat_map(|key| key.forms.iter().map(|(form, bytes)| (key.role, *form, &bytes[..])))
            .collect();
        let mut first = vec![Vec::new(); 1 << 16];
        for (n, (.., bytes)) in needles.iter().enumerate() {
            first[usize::from(bytes[0]) << 8 | usize::from(bytes[1])].push(n);
        }
        let mut found = BTreeSet::new();
        for run in &self.runs {
            let mut pair = 0;
            for (at, byte) in run.iter().enumerate() {
                pair = (pair << 8 | usize::from(*byte)) & 0xffff;
                for n in &first[pair] {
                    let (role, form, bytes) = needles[*n];
                    if at > 0 && run[at - 1..].starts_with(bytes) {
                        found.insert((role, form));
                    }
                }
            }
        }
        found
    }

    fn contains(&self, secret: &[u8]) -> bool {
        let reversed = secret.iter().rev().copied().collect();
        let forms = vec![("as it is", secret.to_vec()), ("reversed", reversed)];
        !self.find(&[Key { role: "secret", forms }]).is_empty()
    }

    /// Everything that could be the number of a private key: 32 bytes at a word's boundary that look random, least
    /// significant byte first as the crypto library keeps it; given out most significant byte first.
    fn scalars(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.runs.iter().flat_map(|run| {
            let words: Vec<u64> =
                run.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect();
            let mut found = Vec::new();
            for at in 0..words.len().saturating_sub(3) {
                let four = &words[at..at + 4];
                // No small numbers, no addresses, no text.
                if four.iter().all(|w| w >> 52 != 0 && *w as u32 != 0 && w & 0x8080_8080_8080_8080 != 0) {
                    let bytes: Vec<u8> = four.iter().rev().flat_map(|w| w.to_be_bytes()).collect();
                    if bytes.iter().collect::<BTreeSet<_>>().len() >= 24 {
                        found.push(bytes);
                    }
                }
            }
            found
        })
    }
}

/// The parts of a mapping that were ever touched: the rest is zero, or still in a file as it was.
fn touched(pages: &File, start: u64, end: u64) -> Vec<(u64, u64)> {
    const PAGE: u64 = 4096;
    let mut entries = vec![0; usize::try_from((end - start) / PAGE * 8).unwrap()];
    if pages.read_exact_at(&mut entries, start / PAGE * 8).is_err() {
        return Vec::new();
    }
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (n, entry) in entries.chunks_exact(8).enumerate() {
        let here = u64::from_le_bytes(entry.try_into().unwrap());
        let page = start + n as u64 * PAGE;
        // In memory, or swapped out.
        if here >> 62 != 0 {
            match found.last_mut().filter(|(_, end)| *end == page) {
                Some(last) => last.1 += PAGE,
                None => found.push((page, page + PAGE)),
            }
        }
    }
    found
}
