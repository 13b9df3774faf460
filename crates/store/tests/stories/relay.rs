//! A network that does what a story asks of it: it stands between a store and a server, and looks out for the commit.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What becomes of the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server gets it and answers; then the connection ends.
    AnswerLost,
    /// The server never gets it: the connection ends at both sides.
    QuestionLost,
    /// The server never gets it, and does not learn either that its client is gone.
    Partition,
}

#[derive(Default)]
struct State {
    fate: Mutex<Option<Fate>>,
    /// Nobody gets through any more once a fate was met.
    closes: AtomicBool,
    closed: AtomicBool,
    met: AtomicU32,
    /// Ends of connections whose other side is gone.
    dangling: Mutex<Vec<UnixStream>>,
}

/// The relay, with a socket of its own.
pub(crate) struct Relay {
    folder: TempDir,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    pub(crate) fn to(socket: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("rf-relay-").tempdir_in("/tmp").unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let (target, state) = (socket.join(".s.PGSQL.5432"), Arc::new(State::default()));
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = UnixStream::connect(&target).await else { continue };
                tokio::spawn(relay(client, server, shared.clone()));
            }
        });
        Self { folder, state, accepting }
    }

    pub(crate) fn socket(&self) -> &Path {
        self.folder.path()
    }

    /// The next commit meets this; then, if `closes`, nobody gets through until [`Relay::reopen`].
    pub(crate) fn next_commit(&self, fate: Fate, closes: bool) {
        *self.state.fate.lock().unwrap() = Some(fate);
        self.state.closes.store(closes, Ordering::SeqCst);
    }

    pub(crate) fn reopen(&self) {
        self.state.closed.store(false, Ordering::SeqCst);
    }

    /// How many commits met their fate.
    pub(crate) fn met(&self) -> u32 {
        self.state.met.load(Ordering::SeqCst)
    }
}

async fn relay(mut client: UnixStream, mut server: UnixStream, state: Arc<State>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let data = &up[..length];
                let commits = data.windows(7).any(|window| window == b"COMMIT\0");
                let fate = if commits { state.fate.lock().unwrap().take() } else { None };
                if let Some(fate) = fate {
                    if state.closes.load(Ordering::SeqCst) {
                        state.closed.store(true, Ordering::SeqCst);
                    }
                    match fate {
                        Fate::AnswerLost => {
                            let _ = server.write_all(data).await;
                            let _ = server.read(&mut down).await;
                        }
                        Fate::QuestionLost => {}
                        Fate::Partition => state.dangling.lock().unwrap().push(server),
                    }
                    state.met.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if server.write_all(data).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&down[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
