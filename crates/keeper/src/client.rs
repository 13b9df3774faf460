//! Control's end: many requests under way at once over one channel.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_channel::{Channel, ChannelError, Receiver, Sender};
use ringfence_keys::Secret;
use ringfence_snapshot::node::ProviderKeys;
use ringfence_snapshot::{Bundle, SignedSnapshot};
use tokio::sync::{mpsc, oneshot};

use crate::protocol::{
    Answer, Call, DataPurpose, JwtRequest, Leaf, MintRequest, OpenSession, Refusal, RenewSession, Reply,
    Request, ServingRequest, SessionToken, Status, Step, ToldRevocations, TxnToken, X509Request,
};

/// Requests that wait to be sent.
const QUEUE: usize = 64;

/// A handle on the keeper; clones share the channel.
#[derive(Clone, Debug)]
pub struct Client {
    calls: mpsc::Sender<(Request, oneshot::Sender<Result<Reply, ClientError>>)>,
}

/// Why there is no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The keeper is gone; the supervisor starts another and introduces it.
    #[error("the keeper is not reachable; it is being restarted")]
    Gone,
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A reply to another question.
    #[error("the keeper answered something else than was asked")]
    Unexpected,
}

type Waiting = Arc<Mutex<Pending>>;

#[derive(Default)]
struct Pending {
    next: u64,
    gone: bool,
    waiting: HashMap<u64, oneshot::Sender<Result<Reply, ClientError>>>,
}

impl Client {
    /// Speaks over `socket`, which [`crate::Supervised::introduce_control`] gave. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn new(socket: UnixStream) -> Result<Self, ChannelError> {
        let (sender, receiver) = Channel::<Call, Answer>::new(socket)?.split();
        let (calls, queue) = mpsc::channel(QUEUE);
        let waiting = Waiting::default();
        tokio::spawn(send(sender, queue, waiting.clone()));
        tokio::spawn(receive(receiver, waiting));
        Ok(Self { calls })
    }

    /// Asks, and waits for the reply.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call(&self, request: Request) -> Result<Reply, ClientError> {
        let (answer, reply) = oneshot::channel();
        self.calls.send((request, answer)).await.map_err(|_| ClientError::Gone)?;
        reply.await.map_err(|_| ClientError::Gone)?
    }

    /// What the keeper holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        match self.call(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Whom to believe.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn bundle(&self) -> Result<Bundle, ClientError> {
        match self.call(Request::Bundle).await? {
            Reply::Bundle(bundle) => Ok(bundle),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Has a snapshot (JSON) signed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sign_snapshot(&self, bytes: String) -> Result<SignedSnapshot, ClientError> {
        match self.call(Request::SignSnapshot { bytes }).await? {
            Reply::Snapshot(signed) => Ok(signed),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Has X.509-SVIDs issued: the issuers' certificates, and one result per request.
    ///
    /// # Errors
    /// [`ClientError`] when none was looked at.
    pub async fn issue_x509(
        &self,
        requests: Vec<X509Request>,
    ) -> Result<(Vec<ringfence_snapshot::Der>, Vec<Result<Leaf, Refusal>>), ClientError> {
        let asked = requests.len();
        match self.call(Request::IssueX509 { requests }).await? {
            Reply::X509 { issuers, results } if results.len() == asked => Ok((issuers, results)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Has a certificate of the gateway issued.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn issue_serving(&self, request: ServingRequest) -> Result<Leaf, ClientError> {
        match self.call(Request::IssueServing(request)).await? {
            Reply::Serving(leaf) => Ok(leaf),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Has a JWT-SVID signed: the token, and when it ends.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sign_jwt(&self, request: JwtRequest) -> Result<(String, u64), ClientError> {
        match self.call(Request::SignJwtSvid(request)).await? {
            Reply::Jwt { token, expires_at } => Ok((token, expires_at)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// A new issuing CA.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rotate_issuing(&self) -> Result<Status, ClientError> {
        self.rotate(Request::RotateIssuing).await
    }

    /// A step of changing the root of the mesh.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rotate_root(&self, step: Step) -> Result<Status, ClientError> {
        self.rotate(Request::RotateRoot(step)).await
    }

    /// A step of changing the root of the serving CA.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rotate_serving(&self, step: Step) -> Result<Status, ClientError> {
        self.rotate(Request::RotateServing(step)).await
    }

    /// A step of changing the key that signs JWT-SVIDs.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rotate_token(&self, step: Step) -> Result<Status, ClientError> {
        self.rotate(Request::RotateToken(step)).await
    }

    /// A step of changing the key that signs transaction and session tokens.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rotate_txn(&self, step: Step) -> Result<Status, ClientError> {
        self.rotate(Request::RotateTxn(step)).await
    }

    /// The key for data of this purpose.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn data_key(&self, purpose: DataPurpose) -> Result<Secret<[u8; 32]>, ClientError> {
        match self.call(Request::DataKey(purpose)).await? {
            Reply::DataKey { key } => Ok(key),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Tells the keys of a provider. A keeper that was started anew must be told again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn provider_keys(&self, keys: ProviderKeys) -> Result<(), ClientError> {
        self.done(Request::ProviderKeys(keys)).await
    }

    /// Tells what was revoked. A keeper that was started anew must be told the whole list again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revocations(&self, told: ToldRevocations) -> Result<(), ClientError> {
        self.done(Request::Revocations(told)).await
    }

    /// Has a session signed for whoever signed in.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open_session(&self, request: OpenSession) -> Result<SessionToken, ClientError> {
        self.session(Request::OpenSession(request)).await
    }

    /// Has the same session signed anew.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn renew_session(&self, request: RenewSession) -> Result<SessionToken, ClientError> {
        self.session(Request::RenewSession(request)).await
    }

    /// Has transaction tokens signed: one result per request, in order.
    ///
    /// # Errors
    /// [`ClientError`] when none was looked at.
    pub async fn mint(
        &self,
        requests: Vec<MintRequest>,
    ) -> Result<Vec<Result<TxnToken, Refusal>>, ClientError> {
        let asked = requests.len();
        match self.call(Request::MintTxn { requests }).await? {
            Reply::Minted { results } if results.len() == asked => Ok(results),
            _ => Err(ClientError::Unexpected),
        }
    }

    async fn session(&self, request: Request) -> Result<SessionToken, ClientError> {
        match self.call(request).await? {
            Reply::Session(session) => Ok(*session),
            _ => Err(ClientError::Unexpected),
        }
    }

    async fn done(&self, request: Request) -> Result<(), ClientError> {
        match self.call(request).await? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    async fn rotate(&self, request: Request) -> Result<Status, ClientError> {
        match self.call(request).await? {
            Reply::Status(status) => Ok(*status),
            _ => Err(ClientError::Unexpected),
        }
    }
}

async fn send(
    sender: Sender<Call>,
    mut queue: mpsc::Receiver<(Request, oneshot::Sender<Result<Reply, ClientError>>)>,
    waiting: Waiting,
) {
    while let Some((request, answer)) = queue.recv().await {
        let id = {
            let mut pending = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.gone {
                let _ = answer.send(Err(ClientError::Gone));
                continue;
            }
            pending.next += 1;
            let id = pending.next;
            pending.waiting.insert(id, answer);
            id
        };
        if let Err(e) = sender.send(&Call { id, request }, &[]).await {
            // A request that is too large fails alone; a broken socket fails the reader, which tells everybody.
            let failed = waiting.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&id);
            let error = match e {
                ChannelError::TooLarge(_) => ClientError::Refused(Refusal {
                    code: crate::protocol::RefusalCode::Malformed,
                    reason: e.to_string(),
                }),
                _ => ClientError::Gone,
            };
            if let Some(answer) = failed {
                let _ = answer.send(Err(error));
            }
        }
    }
}

async fn receive(mut receiver: Receiver<Answer>, waiting: Waiting) {
    while let Ok((Answer { id, result }, _)) = receiver.recv().await {
        let answer = waiting.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&id);
        if let Some(answer) = answer {
            let _ = answer.send(result.map_err(ClientError::Refused));
        }
    }
    let mut pending = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    pending.gone = true;
    for (_, answer) in pending.waiting.drain() {
        let _ = answer.send(Err(ClientError::Gone));
    }
}
