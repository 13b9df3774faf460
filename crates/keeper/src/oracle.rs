//! The oracle: requests in, signatures or refusals out. Knows nothing of channels.

mod offline;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ringfence_keys::{
    Keyring, KeyringError, MasterSource, SecretBytes, SigningKey, VerifyingKey, digest, file, to_hex,
};
use ringfence_snapshot::{Bundle, Der, SignedSnapshot};
use ringfence_spiffe::TrustDomain;
use ringfence_token::Spec;

use crate::authority::{AuthorityError, Record, Role, Signers, Stored, active};
use crate::believed::Believed;
use crate::certificate::Signer;
use crate::clock::now;
use crate::folder::{lock, make_folder, read_current};
use crate::issue::{self, Done, life};
use crate::log::{Entry, Log, LogError};
use crate::policy::{Allowed, check_snapshot};
use crate::protocol::{
    Answer, Call, Counts, JwtRequest, MAX_BATCH, MAX_JWT_LIFE, MAX_SERVING_LIFE, MAX_SVID_LIFE, Refusal,
    RefusalCode, Reply, Request, ServingRequest, Status, X509Request,
};
use crate::rotation;

/// Why the keeper does not start. Nothing on disk was changed by any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The keys.
    #[error("{0}")]
    Authority(String),
    /// Another keeper runs on this folder.
    #[error("another keeper runs on {}; stop it first", .0.display())]
    Busy(PathBuf),
    /// The folder belongs to another fence.
    #[error(
        "{path} holds the keys of fence {fence}, trust domain {trust_domain}; use another data directory, or change the fence back",
        path = .path.display()
    )]
    OtherFence {
        /// The folder.
        path: PathBuf,
        /// Its fence.
        fence: String,
        /// Its trust domain.
        trust_domain: String,
    },
    /// The disk.
    #[error("{path}: {why}", path = .0.display(), why = .1)]
    Io(PathBuf, std::io::Error),
    /// The master key.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The last snapshot signed, without which old ones could be signed again.
    #[error("{} is damaged; restore the keeper's folder from a backup, or have a snapshot of a higher epoch made", .0.display())]
    Snapshot(PathBuf),
}

impl From<AuthorityError> for OpenError {
    fn from(e: AuthorityError) -> Self {
        Self::Authority(e.to_string())
    }
}

/// The counter of refusals.
const REFUSED: usize = 5;

/// Holds the keys and answers.
pub struct Oracle {
    folder: PathBuf,
    keyring: Keyring,
    state: RwLock<Arc<State>>,
    /// One change of state at a time.
    change: Mutex<()>,
    log: Mutex<Log>,
    /// What is said of transaction tokens.
    minting: Mutex<Log>,
    believed: Believed,
    /// A root key that was brought back from outside, with its record's id.
    imported: Mutex<Option<(String, SecretBytes)>>,
    counters: [AtomicU64; 8],
    /// Held for the life of the process.
    _lock: std::fs::File,
}

pub(crate) struct State {
    stored: Stored,
    pub(crate) signers: Arc<Signers>,
    trust_domain: TrustDomain,
    current: Option<Arc<Allowed>>,
    signed: (u64, u64),
}

impl Oracle {
    /// Opens the keeper's folder (`DATA/keeper`), or makes it at the first start.
    ///
    /// # Errors
    /// [`OpenError`], with the next step for the operator.
    pub fn open(
        data: &Path,
        master: &MasterSource,
        fence: &str,
        trust_domain: &str,
    ) -> Result<Self, OpenError> {
        let folder = data.join("keeper");
        let at = |e: std::io::Error| OpenError::Io(folder.clone(), e);
        let trust_domain = TrustDomain::new(trust_domain).map_err(|e| OpenError::Authority(e.to_string()))?;
        make_folder(&folder).map_err(at)?;
        let lock = lock(&folder)?;
        let keyring = Keyring::open(&folder.join("keyring.json"), master)?;
        let path = folder.join("authority.json");
        let mut stored = match Stored::read(&path)? {
            Some(stored) => stored,
            None => {
                let stored = Stored::create(&keyring, fence, &trust_domain, now())?;
                stored.write(&path)?;
                stored
            }
        };
        if stored.fence != fence || stored.trust_domain != trust_domain.as_str() {
            return Err(OpenError::OtherFence {
                path: folder,
                fence: stored.fence,
                trust_domain: stored.trust_domain,
            });
        }
        if stored.complete(&keyring, now())? {
            stored.write(&path)?;
        }
        let signers = Arc::new(stored.signers(&keyring)?);
        let (current, signed) =
            read_current(&folder.join("snapshot.json"), &signers.snapshot, &trust_domain)?;
        let log = Log::open(&folder.join("signing.log"))?;
        let minting = Log::open(&folder.join("minting.log"))?.unsynced();
        Ok(Self {
            keyring,
            state: RwLock::new(Arc::new(State {
                stored,
                signers,
                trust_domain,
                current: current.map(Arc::new),
                signed,
            })),
            change: Mutex::default(),
            log: Mutex::new(log),
            minting: Mutex::new(minting),
            believed: Believed::new(),
            imported: Mutex::default(),
            counters: Default::default(),
            _lock: lock,
            folder,
        })
    }

    /// The folder that it writes to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The key that verifies snapshots.
    #[must_use]
    pub fn snapshot_key(&self) -> VerifyingKey {
        self.state().signers.snapshot.verifying_key().clone()
    }

    /// Highest (epoch, revision) signed.
    #[must_use]
    pub fn signed(&self) -> (u64, u64) {
        self.state().signed
    }

    /// Answers a batch. What was signed is in the log, on disk, before this returns; transaction tokens are in theirs, on its way there.
    pub fn answer(&self, calls: Vec<Call>) -> Vec<Answer> {
        let (mut done, mut minted) = (Vec::new(), Vec::new());
        let mut answers: Vec<Answer> = Vec::with_capacity(calls.len());
        for Call { id, request } in calls {
            let before = done.len();
            let result = self.one(request, &mut done, &mut minted);
            if result.is_err() {
                done.truncate(before);
                self.counters[REFUSED].fetch_add(1, Ordering::Relaxed);
            }
            answers.push(Answer { id, result });
        }
        let entries: Vec<Entry<'_>> = done.iter().map(Done::entry).collect();
        let logged = self.log.lock().unwrap_or_else(PoisonError::into_inner).append(&entries, now());
        match logged.and_then(|()| self.log_minted(&minted)) {
            Ok(()) => self.count(&done, minted.len()),
            Err(e) => {
                let reason = format!("the signing log cannot be written ({e}): free some space");
                for answer in &mut answers {
                    answer.result = Err(Refusal::new(RefusalCode::Internal, reason.clone()));
                }
            }
        }
        answers
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn one(
        &self,
        request: Request,
        done: &mut Vec<Done>,
        minted: &mut Vec<String>,
    ) -> Result<Reply, Refusal> {
        match request {
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            Request::Bundle => Ok(Reply::Bundle(self.state().stored.bundle())),
            Request::SignSnapshot { bytes } => self.sign_snapshot(bytes, done),
            Request::IssueX509 { requests } => self.issue_x509(&requests, done),
            Request::IssueServing(request) => self.issue_serving(&request, done),
            Request::SignJwtSvid(request) => self.sign_jwt(&request, done),
            Request::RotateIssuing => self.rotate("issuing", done, |stored| {
                let key = Signer(self.root_key(stored)?);
                rotation::rotate_issuing(stored, &self.keyring, key, now())
            }),
            Request::RotateRoot(step) => self.rotate("root", done, |stored| {
                rotation::rotate_root(stored, &self.keyring, step, &self.announced(), now())
            }),
            Request::RotateServing(step) => self.rotate("serving", done, |stored| {
                rotation::rotate_serving(stored, &self.keyring, step, &self.announced(), now())
            }),
            Request::RotateToken(step) => self.rotate("token", done, |stored| {
                rotation::rotate_token(stored, &self.keyring, step, &self.announced(), now())
            }),
            Request::RotateTxn(step) => self.rotate("txn", done, |stored| {
                rotation::rotate_txn(stored, &self.keyring, step, &self.announced(), now())
            }),
            Request::DataKey(purpose) => self.data_key(purpose, done),
            Request::ProviderKeys(keys) => self.provider_keys(keys),
            Request::Revocations(told) => self.revocations(told),
            Request::OpenSession(request) => self.open_session(request, done),
            Request::RenewSession(request) => self.renew_session(request, done),
            Request::MintTxn { requests } => self.mint(requests, minted),
        }
    }

    fn sign_snapshot(&self, bytes: String, done: &mut Vec<Done>) -> Result<Reply, Refusal> {
        let _turn = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        let snapshot = SignedSnapshot::parse_unverified(&bytes)
            .map_err(|e| Refusal::new(RefusalCode::Malformed, e.to_string()))?;
        let stored = &state.stored;
        let whose = (stored.fence.as_str(), stored.trust_domain.as_str());
        check_snapshot(&snapshot, whose, &stored.bundle(), state.signed, now())?;
        let signature =
            state.signers.snapshot.sign(&SignedSnapshot::message(&bytes)).map_err(Refusal::internal)?;
        let signed = SignedSnapshot { bytes, signature: Der(signature) };
        // On disk before anybody can have it: this is what makes revisions never repeat.
        let text = serde_json::to_vec(&signed).map_err(Refusal::internal)?;
        file::replace(&self.folder.join("snapshot.json"), &text).map_err(Refusal::internal)?;
        let allowed = Allowed::of(&snapshot, &state.trust_domain);
        let revision = allowed.revision;
        done.push(Done {
            what: "snapshot",
            subject: snapshot.fence,
            serial: to_hex(&digest::sha256(signed.bytes.as_bytes())),
            key: String::new(),
            until: snapshot.expires_at,
            revision,
        });
        self.put(State {
            stored: state.stored.clone(),
            signers: state.signers.clone(),
            trust_domain: state.trust_domain.clone(),
            current: Some(Arc::new(allowed)),
            signed: revision,
        });
        self.follow(&self.state());
        Ok(Reply::Snapshot(signed))
    }

    fn issue_x509(&self, requests: &[X509Request], done: &mut Vec<Done>) -> Result<Reply, Refusal> {
        if requests.len() > MAX_BATCH {
            return Err(Refusal::new(
                RefusalCode::Malformed,
                format!("at most {MAX_BATCH} certificates at a time"),
            ));
        }
        let longest = requests.iter().map(|r| r.ttl).max().unwrap_or(0).min(MAX_SVID_LIFE);
        let state = self.remember_life(longest, |lives| &mut lives.x509)?;
        let now = now();
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            let result = issue::issue_x509(&state, request, now).map(|(leaf, entry)| {
                done.push(entry);
                leaf
            });
            if result.is_err() {
                self.counters[REFUSED].fetch_add(1, Ordering::Relaxed);
            }
            results.push(result);
        }
        Ok(Reply::X509 { issuers: state.signers.issuers.clone(), results })
    }

    fn issue_serving(&self, request: &ServingRequest, done: &mut Vec<Done>) -> Result<Reply, Refusal> {
        let state = self.remember_life(request.ttl.min(MAX_SERVING_LIFE), |lives| &mut lives.serving)?;
        let (leaf, entry) = issue::issue_serving(&state, request, now())?;
        done.push(entry);
        Ok(Reply::Serving(leaf))
    }

    fn sign_jwt(&self, request: &JwtRequest, done: &mut Vec<Done>) -> Result<Reply, Refusal> {
        let ttl = life(request.ttl, MAX_JWT_LIFE)?;
        let state = self.remember_life(ttl, |lives| &mut lives.jwt)?;
        let now = now();
        let current = state.current()?;
        let subject = current.identity(&request.id, now)?;
        let spec =
            Spec { subject: &subject, audiences: &request.audiences, issued_at: now, expires_at: now + ttl };
        let token = ringfence_token::mint(&state.signers.token, &state.signers.token_id, &spec)
            .map_err(|e| Refusal::new(RefusalCode::Malformed, e.to_string()))?;
        done.push(Done {
            what: "jwt",
            subject: request.id.clone(),
            serial: to_hex(&digest::sha256(token.as_bytes())),
            key: String::new(),
            until: now + ttl,
            revision: current.revision,
        });
        Ok(Reply::Jwt { token, expires_at: now + ttl })
    }

    fn rotate(
        &self,
        what: &'static str,
        done: &mut Vec<Done>,
        step: impl FnOnce(&mut Stored) -> Result<(), Refusal>,
    ) -> Result<Reply, Refusal> {
        let _turn = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stored = self.state().stored.clone();
        step(&mut stored)?;
        let generation = stored.generation;
        self.keep(stored)?;
        done.push(Done {
            what: "rotate",
            subject: what.to_owned(),
            serial: generation.to_string(),
            key: String::new(),
            until: 0,
            revision: self.signed(),
        });
        Ok(Reply::Status(Box::new(self.status())))
    }

    /// The state, after it is on disk that something may live for `life` seconds: retiring waits for the longest.
    fn remember_life(
        &self,
        life: u64,
        which: impl Fn(&mut crate::authority::Lives) -> &mut u64,
    ) -> Result<Arc<State>, Refusal> {
        let state = self.state();
        if *which(&mut state.stored.lives.clone()) >= life {
            return Ok(state);
        }
        let _turn = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stored = self.state().stored.clone();
        let longest = which(&mut stored.lives);
        *longest = life.max(*longest);
        self.keep(stored)?;
        Ok(self.state())
    }

    /// Writes a changed state and works with it from now on. The caller holds `change`.
    fn keep(&self, stored: Stored) -> Result<(), Refusal> {
        let signers = stored.signers(&self.keyring)?;
        stored.write(&self.folder.join("authority.json"))?;
        let old = self.state();
        self.put(State {
            stored,
            signers: Arc::new(signers),
            trust_domain: old.trust_domain.clone(),
            current: old.current.clone(),
            signed: old.signed,
        });
        Ok(())
    }

    fn put(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    /// The bundle of the snapshot in force.
    fn announced(&self) -> Bundle {
        self.state().current.as_ref().map(|current| current.bundle.clone()).unwrap_or_default()
    }

    fn root_key(&self, stored: &Stored) -> Result<SigningKey, Refusal> {
        let root = active(&stored.roots)?;
        if root.key.is_some() {
            return Ok(root.unseal(&self.keyring, Role::Root)?);
        }
        let imported = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
        match imported.as_ref().filter(|(id, _)| *id == root.id) {
            Some((_, secret)) => SigningKey::from_pkcs8(root.algorithm, secret).map_err(Refusal::internal),
            None => {
                let reason = "the root key is kept offline; stop `ringfence up` and run `ringfence ca rotate issuing --package FILE` with the exported root";
                Err(Refusal::new(RefusalCode::RootOffline, reason))
            }
        }
    }

    fn log_change(&self, what: &'static str, subject: &str) -> Result<(), Refusal> {
        let entry =
            Entry { what, subject, serial: "", key: String::new(), until: 0, revision: self.signed() };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.append(&[entry], now()).map_err(Refusal::internal)
    }

    fn count(&self, done: &[Done], minted: usize) {
        self.counters[7].fetch_add(minted as u64, Ordering::Relaxed);
        for entry in done {
            let counter = match entry.what {
                "x509" => 0,
                "serving" => 1,
                "jwt" => 2,
                "snapshot" => 3,
                "rotate" => 4,
                "session" => 6,
                _ => continue,
            };
            self.counters[counter].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn status(&self) -> Status {
        let state = self.state();
        let stored = &state.stored;
        let list = |records: &[Record]| records.iter().map(|r| r.status()).collect();
        let [x509, serving, jwt, snapshots, rotations, refused, sessions, txn] =
            self.counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        let end = |log: &Mutex<Log>| {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            (log.tail().entries, to_hex(&log.tail().hash))
        };
        Status {
            fence: stored.fence.clone(),
            trust_domain: stored.trust_domain.clone(),
            generation: stored.generation,
            signed: state.signed,
            snapshot_expires_at: state.current.as_ref().map_or(0, |current| current.expires_at),
            roots: list(&stored.roots),
            issuing: list(&stored.issuing),
            serving: list(&stored.serving),
            tokens: list(&stored.tokens),
            txn: list(&stored.txn),
            counts: Counts { x509, serving, jwt, snapshots, rotations, refused, sessions, txn },
            log: end(&self.log),
            minting: end(&self.minting),
        }
    }
}

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oracle").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn current(&self) -> Result<&Allowed, Refusal> {
        let missing = || Refusal::new(RefusalCode::NoSnapshot, "no snapshot was signed yet");
        self.current.as_deref().ok_or_else(missing)
    }
}
