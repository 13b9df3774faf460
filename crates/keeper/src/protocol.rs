//! What is said on the keeper's channels.
//!
//! Two kinds: one channel to the supervisor (standard input), which introduces everybody else; and one to control, which
//! asks for signatures. Times are Unix seconds.

mod tokens;

use std::path::PathBuf;

use ringfence_keys::{MasterSource, Secret};
use ringfence_snapshot::node::ProviderKeys;
pub use ringfence_snapshot::node::{MAX_REVOCATIONS, Revocations as ToldRevocations};
use ringfence_snapshot::{Bundle, Der, SignedSnapshot};
use serde::{Deserialize, Serialize};

pub use tokens::{
    DataPurpose, Evidence, MAX_KEYS_LIFE, MAX_MINT, MAX_TXN_LIFE, MintRequest, OpenSession, RenewSession,
    SessionToken, TxnToken,
};

/// Most certificates that one request may ask for.
pub const MAX_BATCH: usize = 512;
/// Longest life of an X.509-SVID in seconds.
pub const MAX_SVID_LIFE: u64 = 24 * 3600;
/// X.509-SVIDs and certificates of the gateway begin this many seconds before they are issued, for clocks that differ.
pub const SVID_BACKDATE: u64 = 60;
/// Longest life of a JWT-SVID in seconds.
pub const MAX_JWT_LIFE: u64 = 3600;
/// Longest life of a certificate of the gateway in seconds.
pub const MAX_SERVING_LIFE: u64 = 30 * 24 * 3600;
/// Longest validity of a snapshot in seconds.
pub const MAX_SNAPSHOT_LIFE: u64 = 7 * 24 * 3600;

/// From the supervisor to the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromSupervisor {
    /// First message.
    Start(Start),
    /// The descriptor that comes with this is control's channel from now on; the one before is closed.
    Control,
    /// Seals the root key under a passphrase and answers with it. The key stays until `ForgetRoot`.
    ExportRoot {
        /// What opens it again.
        passphrase: Secret<String>,
    },
    /// Forgets the root key: the root is offline then. Refused unless `package`, read back from where it was put, opens
    /// to that very key: a package that does not would be the end of the root.
    ForgetRoot {
        /// As answered to `ExportRoot`.
        package: Der,
        /// As given to `ExportRoot`.
        passphrase: Secret<String>,
    },
    /// Brings an exported root back: for as long as this process lives, for a rotation, or for good.
    ImportRoot {
        /// As answered to `ExportRoot`.
        package: Der,
        /// As given to `ExportRoot`.
        passphrase: Secret<String>,
        /// The key is sealed and kept from now on: the root is online again.
        keep: bool,
    },
}

/// How to start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The data directory; the keeper keeps to `keeper/` in it.
    pub data: PathBuf,
    /// Where the master key comes from.
    pub master: MasterSource,
    /// Name of the fence; fixed at the first start.
    pub fence: String,
    /// Its trust domain; fixed at the first start.
    pub trust_domain: String,
}

/// From the keeper to the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToSupervisor {
    /// Answer to `Start`: it serves.
    Ready {
        /// What the operator should be told at each start.
        warnings: Vec<String>,
        /// SubjectPublicKeyInfo of the key that signs snapshots: proxies are to get it from the supervisor, not from control.
        snapshot_key: Der,
        /// Highest (epoch, revision) signed so far.
        signed: (u64, u64),
    },
    /// Answer to `ExportRoot`: keep this apart from the data directory.
    Root {
        /// The sealed root key.
        package: Der,
    },
    /// Done.
    Done,
    /// Why not.
    Failed {
        /// For the operator.
        reason: String,
    },
}

/// A request with its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Comes back in the answer; answers may come in another order than requests.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// An answer with the number of its request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number.
    pub id: u64,
    /// The reply, or why there is none.
    pub result: Result<Reply, Refusal>,
}

/// What control may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What the keeper holds.
    Status,
    /// Whom to believe, as it belongs into the next snapshot.
    Bundle,
    /// Signs a snapshot, which is the current one from then on.
    SignSnapshot {
        /// JSON of a [`ringfence_snapshot::Snapshot`].
        bytes: String,
    },
    /// Certificates of the mesh.
    IssueX509 {
        /// At most [`MAX_BATCH`].
        requests: Vec<X509Request>,
    },
    /// A certificate of the gateway for clients outside.
    IssueServing(ServingRequest),
    /// A JWT-SVID.
    SignJwtSvid(JwtRequest),
    /// A new issuing CA under the active root; the old one's certificates stay valid.
    RotateIssuing,
    /// One step of changing the root of the mesh.
    RotateRoot(Step),
    /// One step of changing the root of the gateway's serving CA.
    RotateServing(Step),
    /// One step of changing the key that signs JWT-SVIDs.
    RotateToken(Step),
    /// One step of changing the key that signs transaction and session tokens.
    RotateTxn(Step),
    /// A key for data that others keep.
    DataKey(DataPurpose),
    /// The keys of a provider of the current snapshot, in place of those before.
    ProviderKeys(ProviderKeys),
    /// What was revoked. Until the whole list was said once, the keeper makes no token for anybody.
    Revocations(ToldRevocations),
    /// A session of somebody who signed in.
    OpenSession(OpenSession),
    /// The same session anew.
    RenewSession(RenewSession),
    /// Transaction tokens.
    MintTxn {
        /// At most [`MAX_MINT`].
        requests: Vec<MintRequest>,
    },
}

/// The steps of a rotation with overlap, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Makes the new one and puts it into the bundle; nothing is signed with it yet.
    Prepare,
    /// Signs with the new one; the old one stays in the bundle. Refused before a snapshot with the new one was signed.
    Activate,
    /// Drops the old ones from the bundle. Refused while something that they signed may still be valid, unless `force`.
    Retire {
        /// Drop them all the same, because they are not to be believed any more.
        force: bool,
    },
}

/// Asks for an X.509-SVID.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct X509Request {
    /// For whom.
    pub id: String,
    /// SubjectPublicKeyInfo of the new key.
    pub spki: Der,
    /// [`ringfence_keys::possession::prove`] over `id`.
    pub proof: Der,
    /// Life in seconds, at most [`MAX_SVID_LIFE`].
    pub ttl: u64,
}

/// Asks for a certificate of the gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServingRequest {
    /// DNS names and IP addresses, which the gateway of the current snapshot must have.
    pub hosts: Vec<String>,
    /// SubjectPublicKeyInfo of the new key.
    pub spki: Der,
    /// [`ringfence_keys::possession::prove`] over [`serving_subject`].
    pub proof: Der,
    /// Life in seconds, at most [`MAX_SERVING_LIFE`].
    pub ttl: u64,
}

/// What the proof of possession for a gateway certificate is over.
#[must_use]
pub fn serving_subject(hosts: &[String]) -> String {
    format!("serving:{}", hosts.join(","))
}

/// Asks for a JWT-SVID.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtRequest {
    /// For whom.
    pub id: String,
    /// For which audiences, at least one.
    pub audiences: Vec<String>,
    /// Life in seconds, at most [`MAX_JWT_LIFE`].
    pub ttl: u64,
}

/// What the keeper answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Status`, and to each rotation.
    Status(Box<Status>),
    /// To `Bundle`.
    Bundle(Bundle),
    /// To `SignSnapshot`.
    Snapshot(SignedSnapshot),
    /// To `IssueX509`.
    X509 {
        /// The issuing CAs from the leaf's issuer up, without the root.
        issuers: Vec<Der>,
        /// One per request, in its order.
        results: Vec<Result<Leaf, Refusal>>,
    },
    /// To `IssueServing`: the chain is the leaf alone, the serving root is with the clients.
    Serving(Leaf),
    /// To `SignJwtSvid`.
    Jwt {
        /// The token.
        token: String,
        /// When it ends.
        expires_at: u64,
    },
    /// To `DataKey`.
    DataKey {
        /// The key.
        key: Secret<[u8; 32]>,
    },
    /// To `ProviderKeys` and `Revocations`.
    Done,
    /// To `OpenSession` and `RenewSession`.
    Session(Box<SessionToken>),
    /// To `MintTxn`.
    Minted {
        /// One per request, in its order.
        results: Vec<Result<TxnToken, Refusal>>,
    },
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// DER.
    pub certificate: Der,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// Start of its validity.
    pub not_before: u64,
    /// End of its validity.
    pub not_after: u64,
}

/// What the keeper holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Name of the fence.
    pub fence: String,
    /// Trust domain.
    pub trust_domain: String,
    /// Generation of the bundle.
    pub generation: u64,
    /// Highest (epoch, revision) signed.
    pub signed: (u64, u64),
    /// When the current snapshot ends, 0 without one.
    pub snapshot_expires_at: u64,
    /// Roots of the mesh.
    pub roots: Vec<AuthorityStatus>,
    /// Issuing CAs, newest first.
    pub issuing: Vec<AuthorityStatus>,
    /// Roots of the serving CA.
    pub serving: Vec<AuthorityStatus>,
    /// Keys that sign JWT-SVIDs.
    pub tokens: Vec<AuthorityStatus>,
    /// Keys that sign transaction and session tokens.
    pub txn: Vec<AuthorityStatus>,
    /// Answered and refused since start.
    pub counts: Counts,
    /// Entries and hash of the signing log's end, for control to keep elsewhere.
    pub log: (u64, String),
    /// The same of the log of transaction tokens.
    pub minting: (u64, String),
}

/// How often what was done since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// X.509-SVIDs.
    pub x509: u64,
    /// Certificates of the gateway.
    pub serving: u64,
    /// JWT-SVIDs.
    pub jwt: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Rotation steps.
    pub rotations: u64,
    /// Session tokens.
    pub sessions: u64,
    /// Transaction tokens.
    pub txn: u64,
    /// Refusals of any kind.
    pub refused: u64,
}

/// A CA or key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// Hexadecimal key identifier, `kid` of a token key.
    pub id: String,
    /// Where it is in its life.
    pub stage: Stage,
    /// Whether the private key is with the keeper.
    pub online: bool,
    /// Start of its validity.
    pub not_before: u64,
    /// End of its validity.
    pub not_after: u64,
}

/// Where a CA or key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// In the bundle, signs nothing yet.
    Prepared,
    /// Signs.
    Active,
    /// In the bundle until what it signed has ended.
    Retiring,
}

/// Why the keeper refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the keeper refuses: {reason}")]
pub struct Refusal {
    /// What kind of refusal.
    pub code: RefusalCode,
    /// For the operator.
    pub reason: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// There is no snapshot in force that could allow anything.
    NoSnapshot,
    /// The current snapshot does not allow it.
    NotAllowed,
    /// The credential does not hold: forged, over, revoked, or of another kind.
    Denied,
    /// The request makes no sense.
    Malformed,
    /// An older revision than one that was signed.
    Rollback,
    /// A rotation step out of order or too early; or something that the keeper must be told first.
    NotNow,
    /// The root key is kept elsewhere.
    RootOffline,
    /// The disk or the crypto library failed; nothing was issued.
    Internal,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    pub(crate) fn internal(e: impl std::fmt::Display) -> Self {
        Self::new(RefusalCode::Internal, e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_with_a_member_that_we_do_not_know_is_refused() {
        let call = |request| format!(r#"{{"id":1,"request":{request}}}"#);
        assert!(serde_json::from_str::<Call>(&call(r#""status""#)).is_ok());
        let svid = r#"{"issue_x509":{"requests":[{"id":"a","spki":"","proof":"","ttl":1,"ca":true}]}}"#;
        assert!(serde_json::from_str::<Call>(&call(svid)).is_err());
        assert!(serde_json::from_str::<Call>(&call(r#"{"rotate_root":"retire"}"#)).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = serde_json::from_slice::<Call>(&bytes);
            let _ = serde_json::from_slice::<FromSupervisor>(&bytes);
        }
    }
}
