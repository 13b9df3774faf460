//! The keeper's CAs and keys: one file of public facts and sealed keys, replaced whole at each change.
//!
//! `Stored` is the truth; what signs is rebuilt from it. So a crash between two steps of a rotation leaves one of the two,
//! and no code path holds a key that the file does not know.

use std::path::Path;

use ringfence_keys::{
    Algorithm, Keyring, Purpose, SealError, Secret, SecretBytes, SigningKey, VerifyingKey, file, to_hex,
};
use ringfence_snapshot::{Bundle, Der, JwtKey};
use ringfence_spiffe::TrustDomain;
use ringfence_token::KeySet;
use serde::{Deserialize, Serialize};

use crate::certificate::{
    Ca, CertificateError, Signer, Validity, ca_params, key_id, self_signed, subordinate,
};
use crate::protocol::{AuthorityStatus, Stage};

const FORMAT: u32 = 1;
const LIMIT: u64 = 4 * 1024 * 1024;
/// Life of a root in seconds.
pub(crate) const ROOT_LIFE: u64 = 10 * 365 * 24 * 3600;
/// Life of an issuing CA in seconds; renewed at half of it.
pub(crate) const ISSUING_LIFE: u64 = 60 * 24 * 3600;

/// What is in `keeper/authority.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) format: u32,
    pub(crate) fence: String,
    pub(crate) trust_domain: String,
    pub(crate) generation: u64,
    pub(crate) roots: Vec<Record>,
    pub(crate) issuing: Vec<Record>,
    pub(crate) serving: Vec<Record>,
    /// Sign JWT-SVIDs.
    pub(crate) tokens: Vec<Record>,
    /// Sign transaction and session tokens; folders of older versions get one when they are opened.
    #[serde(default)]
    pub(crate) txn: Vec<Record>,
    pub(crate) snapshot: Record,
    /// What keys for data are derived from, sealed; folders of older versions get it when they are opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
    /// Longest lives given out: how long an authority is needed after it stopped signing.
    pub(crate) lives: Lives,
}

/// Longest lives given out, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lives {
    pub(crate) x509: u64,
    pub(crate) serving: u64,
    pub(crate) jwt: u64,
    #[serde(default)]
    pub(crate) txn: u64,
}

/// A CA or key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) spki: Der,
    /// The CA's certificate and name; keys that are no CA have neither.
    pub(crate) certificate: Option<Der>,
    pub(crate) name: String,
    /// Sealed; absent once it has no more use here.
    pub(crate) key: Option<String>,
    pub(crate) stage: Stage,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    /// For one that is retiring: when the last thing it signed has ended.
    pub(crate) needed_until: Option<u64>,
}

/// Why the keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("{path} is damaged ({why}); restore the keeper's folder from a backup", path = .0, why = .1)]
    Damaged(String, String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Key(#[from] ringfence_keys::KeyError),
}

/// What signs at the moment.
pub(crate) struct Signers {
    pub(crate) issuing: Ca,
    pub(crate) issuing_until: u64,
    pub(crate) issuers: Vec<Der>,
    pub(crate) serving: Ca,
    pub(crate) serving_until: u64,
    pub(crate) token: SigningKey,
    pub(crate) token_id: String,
    pub(crate) txn: SigningKey,
    pub(crate) txn_id: String,
    /// What verifies sessions, those that were signed by keys on their way out included.
    pub(crate) txn_keys: KeySet,
    pub(crate) snapshot: SigningKey,
    pub(crate) data: SecretBytes,
}

/// The name of the secret that keys for data are derived from.
const DATA: &str = "data";

/// A new one, sealed.
fn new_data_secret(keyring: &Keyring) -> String {
    let secret = Secret::new(ringfence_keys::random::<32>().to_vec());
    to_hex(&keyring.seal(Purpose::Derivation, DATA, 1, &secret))
}

/// The kinds of record, which name the seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Root,
    Issuing,
    Serving,
    Token,
    Txn,
    Snapshot,
}

impl Role {
    const fn purpose(self) -> Purpose {
        match self {
            Self::Root | Self::Issuing | Self::Serving => Purpose::Authority,
            Self::Token | Self::Txn => Purpose::Token,
            Self::Snapshot => Purpose::Snapshot,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::Serving => "serving",
            Self::Token => "token",
            Self::Txn => "txn",
            Self::Snapshot => "snapshot",
        }
    }

    /// What new keys are. Ed25519 where only who speaks it with us verifies; SPIFFE knows no EdDSA for JWT-SVIDs, and few TLS clients know it
    /// for certificates.
    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Root | Self::Issuing | Self::Serving | Self::Token => Algorithm::P256,
            Self::Txn | Self::Snapshot => Algorithm::Ed25519,
        }
    }
}

impl Stored {
    /// Makes all keys of a new fence.
    pub(crate) fn create(
        keyring: &Keyring,
        fence: &str,
        trust_domain: &TrustDomain,
        now: u64,
    ) -> Result<Self, AuthorityError> {
        let (root, signer) = new_root(keyring, Role::Root, trust_domain, Stage::Active, now)?;
        let issuing = new_issuing(keyring, trust_domain, &root, signer, now)?;
        let (serving, _) = new_root(keyring, Role::Serving, trust_domain, Stage::Active, now)?;
        Ok(Self {
            format: FORMAT,
            fence: fence.to_owned(),
            trust_domain: trust_domain.as_str().to_owned(),
            generation: 1,
            roots: vec![root],
            issuing: vec![issuing],
            serving: vec![serving],
            tokens: vec![new_key(keyring, Role::Token, Stage::Active, now)?],
            txn: vec![new_key(keyring, Role::Txn, Stage::Active, now)?],
            snapshot: new_key(keyring, Role::Snapshot, Stage::Active, now)?,
            data: Some(new_data_secret(keyring)),
            lives: Lives::default(),
        })
    }

    /// Makes what an older version did not have yet; answers whether there was any.
    pub(crate) fn complete(&mut self, keyring: &Keyring, now: u64) -> Result<bool, AuthorityError> {
        let (data, txn) = (self.data.is_none(), self.txn.is_empty());
        if data {
            self.data = Some(new_data_secret(keyring));
        }
        if txn {
            self.txn.push(new_key(keyring, Role::Txn, Stage::Active, now)?);
            self.generation += 1;
        }
        Ok(data || txn)
    }

    /// What keys for data are derived from.
    pub(crate) fn data_secret(&self, keyring: &Keyring) -> Result<SecretBytes, AuthorityError> {
        let missing = || AuthorityError::Damaged("keeper/authority.json".into(), "no data secret".into());
        let blob = self.data.as_deref().and_then(ringfence_keys::from_hex).ok_or_else(missing)?;
        Ok(keyring.open_sealed(Purpose::Derivation, DATA, 1, &blob)?)
    }

    pub(crate) fn read(path: &Path) -> Result<Option<Self>, AuthorityError> {
        let damaged = |why: String| AuthorityError::Damaged(path.display().to_string(), why);
        let Some(text) = file::read_bounded(path, LIMIT, 0o077)? else { return Ok(None) };
        let stored: Self = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if stored.format != FORMAT {
            return Err(damaged(format!("format {}, this ringfence reads {FORMAT}", stored.format)));
        }
        Ok(Some(stored))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), AuthorityError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from)?;
        text.push(b'\n');
        Ok(file::replace(path, &text)?)
    }

    /// Unseals what signs.
    pub(crate) fn signers(&self, keyring: &Keyring) -> Result<Signers, AuthorityError> {
        let (issuing, serving) = (active(&self.issuing)?, active(&self.serving)?);
        let (token, txn) = (active(&self.tokens)?, active(&self.txn)?);
        let certificate = |record: &Record| {
            record
                .certificate
                .clone()
                .ok_or_else(|| AuthorityError::Damaged(record.id.clone(), "no certificate".into()))
        };
        let mut txn_keys = Vec::with_capacity(self.txn.len());
        for record in &self.txn {
            txn_keys.push((record.id.clone(), VerifyingKey::from_spki(&record.spki.0)?));
        }
        Ok(Signers {
            issuing: issuing.ca(Signer(issuing.unseal(keyring, Role::Issuing)?))?,
            issuing_until: issuing.not_after,
            issuers: vec![certificate(issuing)?],
            serving: serving.ca(Signer(serving.unseal(keyring, Role::Serving)?))?,
            serving_until: serving.not_after,
            token: token.unseal(keyring, Role::Token)?,
            token_id: token.id.clone(),
            txn: txn.unseal(keyring, Role::Txn)?,
            txn_id: txn.id.clone(),
            txn_keys: KeySet::from_keys(txn_keys),
            data: self.data_secret(keyring)?,
            snapshot: self.snapshot.unseal(keyring, Role::Snapshot)?,
        })
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let certificates =
            |records: &[Record]| records.iter().filter_map(|r| r.certificate.clone()).collect();
        let keys = |records: &[Record]| {
            records.iter().map(|r| JwtKey { kid: r.id.clone(), spki: r.spki.clone() }).collect()
        };
        Bundle {
            generation: self.generation,
            x509: certificates(&self.roots),
            jwt: keys(&self.tokens),
            txn: keys(&self.txn),
            serving: certificates(&self.serving),
        }
    }
}

impl Record {
    /// The key, from its seal.
    pub(crate) fn unseal(&self, keyring: &Keyring, role: Role) -> Result<SigningKey, AuthorityError> {
        Ok(SigningKey::from_pkcs8(self.algorithm, &self.unseal_bytes(keyring, role)?)?)
    }

    pub(crate) fn unseal_bytes(&self, keyring: &Keyring, role: Role) -> Result<SecretBytes, AuthorityError> {
        let missing =
            || AuthorityError::Damaged(format!("{} {}", role.label(), self.id), "its key is not here".into());
        let blob = self.key.as_deref().and_then(ringfence_keys::from_hex).ok_or_else(missing)?;
        Ok(keyring.open_sealed(role.purpose(), &format!("{}/{}", role.label(), self.id), 1, &blob)?)
    }

    /// Keeps the key, sealed.
    pub(crate) fn seal_bytes(&mut self, keyring: &Keyring, role: Role, secret: &SecretBytes) {
        let name = format!("{}/{}", role.label(), self.id);
        self.key = Some(to_hex(&keyring.seal(role.purpose(), &name, 1, secret)));
    }

    /// The CA of this record, with its key.
    pub(crate) fn ca(&self, signer: Signer) -> Result<Ca, AuthorityError> {
        let validity = Validity { not_before: self.not_before, not_after: self.not_after };
        // Name and key identifier are all that a signature takes from these.
        let params = ca_params(&self.name, None, 0, signer.0.verifying_key(), validity)?;
        Ok(Ca::new(params, signer))
    }

    pub(crate) fn status(&self) -> AuthorityStatus {
        AuthorityStatus {
            id: self.id.clone(),
            stage: self.stage,
            online: self.key.is_some(),
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }

    /// Stops signing at `now`: the private key goes, the public half stays for `life` seconds.
    pub(crate) fn demote(&mut self, now: u64, life: u64) {
        self.stage = Stage::Retiring;
        self.key = None;
        self.needed_until = Some(now + life);
    }
}

/// The record that signs.
pub(crate) fn active(records: &[Record]) -> Result<&Record, AuthorityError> {
    records
        .iter()
        .find(|r| r.stage == Stage::Active)
        .ok_or_else(|| AuthorityError::Damaged("keeper/authority.json".into(), "nothing is active".into()))
}

/// A new root, of the mesh or of the serving CA.
pub(crate) fn new_root(
    keyring: &Keyring,
    role: Role,
    trust_domain: &TrustDomain,
    stage: Stage,
    now: u64,
) -> Result<(Record, Signer), AuthorityError> {
    let signer = Signer(SigningKey::generate(role.algorithm())?);
    let public = signer.0.verifying_key();
    let validity = Validity::starting(now, ROOT_LIFE, u64::MAX);
    let mesh = role == Role::Root;
    // Names differ between roots, so that a verifier never tries the wrong one first.
    let what = if mesh { "mesh root" } else { "gateway root" };
    let name = format!("{what} {}", &to_hex(&key_id(public))[..8]);
    let uri = trust_domain.id();
    let params = ca_params(&name, mesh.then_some(uri.as_str()), u8::from(mesh), public, validity)?;
    let certificate = self_signed(&params, &signer)?;
    let mut record = record(keyring, role, &signer.0, stage, validity)?;
    record.certificate = Some(Der(certificate));
    record.name = name;
    Ok((record, signer))
}

/// A new issuing CA under `root`.
pub(crate) fn new_issuing(
    keyring: &Keyring,
    trust_domain: &TrustDomain,
    root: &Record,
    root_key: Signer,
    now: u64,
) -> Result<Record, AuthorityError> {
    let key = SigningKey::generate(Role::Issuing.algorithm())?;
    let public = key.verifying_key();
    let validity = Validity::starting(now, ISSUING_LIFE, root.not_after);
    let name = format!("mesh issuing {}", &to_hex(&key_id(public))[..8]);
    let uri = trust_domain.id();
    let params = ca_params(&name, Some(uri.as_str()), 0, public, validity)?;
    let certificate = subordinate(&root.ca(root_key)?, &params, public)?;
    let mut record = record(keyring, Role::Issuing, &key, Stage::Active, validity)?;
    record.certificate = Some(Der(certificate));
    record.name = name;
    Ok(record)
}

/// A new key that is no CA.
pub(crate) fn new_key(
    keyring: &Keyring,
    role: Role,
    stage: Stage,
    now: u64,
) -> Result<Record, AuthorityError> {
    let key = SigningKey::generate(role.algorithm())?;
    record(keyring, role, &key, stage, Validity { not_before: now, not_after: now + ROOT_LIFE })
}

fn record(
    keyring: &Keyring,
    role: Role,
    key: &SigningKey,
    stage: Stage,
    validity: Validity,
) -> Result<Record, AuthorityError> {
    let public: &VerifyingKey = key.verifying_key();
    let id = to_hex(&key_id(public));
    let sealed = keyring.seal(role.purpose(), &format!("{}/{id}", role.label()), 1, &key.to_pkcs8()?);
    Ok(Record {
        algorithm: key.algorithm(),
        spki: Der(public.to_spki()),
        certificate: None,
        name: String::new(),
        key: Some(to_hex(&sealed)),
        stage,
        not_before: validity.not_before,
        not_after: validity.not_after,
        needed_until: None,
        id,
    })
}
