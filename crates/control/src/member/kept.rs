//! What a host keeps of its membership.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ringfence_join::JoinToken;
use ringfence_keys::{Algorithm, Keyring, Purpose, Secret, SigningKey, from_hex, to_hex};
use ringfence_snapshot::{Der, SignedSnapshot};
use ringfence_spiffe::{TrustBundle, TrustDomain};
use serde::{Deserialize, Serialize};

const FILE: &str = "member.json";
const SNAPSHOT: &str = "snapshot.json";
/// Largest file that is read.
const MAX_FILE: u64 = 64 << 20;
/// Which format is written.
const FORMAT: u32 = 1;

/// What is known of this host, as it lies on disk; its key is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) format: u32,
    pub(super) host: String,
    pub(super) trust_domain: String,
    /// Name of the fence; empty until control said it.
    pub(super) fence: String,
    pub(super) controls: Vec<SocketAddr>,
    /// Whom to believe; none before the host joined.
    pub(super) roots: Vec<Der>,
    pub(super) snapshot_key: Option<Der>,
    pub(super) key: String,
    pub(super) chain: Vec<Der>,
    pub(super) not_after: u64,
}

impl Kept {
    /// Of a host that has not joined yet, with a new key.
    pub(super) fn new(token: &JoinToken, keyring: &Keyring) -> Result<(Self, SigningKey), String> {
        let key = SigningKey::generate(Algorithm::P256).map_err(|e| e.to_string())?;
        let pkcs8 = key.to_pkcs8().map_err(|e| e.to_string())?;
        let sealed = keyring.seal(Purpose::Host, token.host(), 1, &Secret::new(pkcs8.expose().clone()));
        let kept = Self {
            format: FORMAT,
            host: token.host().to_owned(),
            trust_domain: token.trust_domain().as_str().to_owned(),
            fence: String::new(),
            controls: token.controls().to_vec(),
            roots: Vec::new(),
            snapshot_key: None,
            key: to_hex(&sealed),
            chain: Vec::new(),
            not_after: 0,
        };
        Ok((kept, key))
    }

    /// What lies in `folder`.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let Some(text) = read(&folder.join(FILE))? else { return Ok(None) };
        let kept: Self = serde_json::from_slice(&text).map_err(io::Error::other)?;
        if kept.format != FORMAT {
            return Err(io::Error::other(format!("{FILE} is of another version of ringfence")));
        }
        Ok(Some(kept))
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        write(&folder.join(FILE), &serde_json::to_vec(self).map_err(io::Error::other)?)
    }

    /// The host's key.
    pub(super) fn key(&self, keyring: &Keyring) -> Result<SigningKey, String> {
        let sealed = from_hex(&self.key).ok_or("the host's key is damaged")?;
        let pkcs8 = keyring.open_sealed(Purpose::Host, &self.host, 1, &sealed).map_err(|e| e.to_string())?;
        SigningKey::from_pkcs8(Algorithm::P256, &pkcs8).map_err(|e| e.to_string())
    }

    /// Whether control let this host in before.
    pub(super) fn belongs(&self) -> bool {
        !self.roots.is_empty() && self.snapshot_key.is_some()
    }

    /// Whom to believe.
    pub(super) fn bundle(&self) -> Result<TrustBundle, String> {
        let trust_domain = TrustDomain::new(&self.trust_domain).map_err(|e| e.to_string())?;
        let roots = self.roots.iter().map(|der| der.0.clone().into()).collect();
        TrustBundle::new(trust_domain, roots, Vec::new(), 1, None).map_err(|e| e.to_string())
    }
}

/// The last snapshot that was taken.
pub(super) fn last_snapshot(folder: &Path) -> Option<SignedSnapshot> {
    serde_json::from_slice(&read(&folder.join(SNAPSHOT)).ok()??).ok()
}

pub(super) fn keep_snapshot(folder: &Path, signed: &SignedSnapshot) -> io::Result<()> {
    write(&folder.join(SNAPSHOT), &serde_json::to_vec(signed).map_err(io::Error::other)?)
}

/// The name of the host that keeps its membership in this data directory, and where its control is, if it is one.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn of(data: &Path) -> io::Result<Option<(String, Vec<SocketAddr>)>> {
    Ok(Kept::read(&folder(data))?.map(|kept| (kept.host, kept.controls)))
}

/// Where a membership is kept in a data directory.
#[must_use]
pub fn folder(data: &Path) -> PathBuf {
    data.join("member")
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE => Err(io::Error::other("it is too large")),
        Ok(_) => std::fs::read(path).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Durably, or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}
