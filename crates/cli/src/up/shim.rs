//! The supervisor's link to one shim: requests answered in order, updates whenever they come.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use ringfence_channel::{Channel, ChannelError};
use ringfence_sandbox::protocol::{Hello, Reply, Request, Status};
use tokio::sync::{mpsc, oneshot};

type Answer = (Reply, Vec<OwnedFd>);

/// A shim that answers.
#[derive(Clone, Debug)]
pub(crate) struct ShimLink {
    requests: mpsc::Sender<(Request, oneshot::Sender<Answer>)>,
}

/// What a shim tells without being asked.
#[derive(Debug)]
pub(crate) enum ShimNews {
    Update(String, Status),
    /// The link ended.
    Gone(String),
}

/// A request that a shim did not carry out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("the shim is gone")]
    Gone,
    #[error("the shim refused: {0}")]
    Refused(String),
    #[error("the shim answered something else")]
    Confused,
}

impl ShimLink {
    /// Takes over a connected socket. News of this shim go to `news` under the name of its service.
    pub(crate) fn new(
        service: &str,
        socket: UnixStream,
        news: mpsc::Sender<ShimNews>,
    ) -> Result<Self, ChannelError> {
        let channel = Channel::<Request, Reply>::new(socket)?;
        let (requests, queue) = mpsc::channel(64);
        tokio::spawn(drive(service.to_owned(), channel, queue, news));
        Ok(Self { requests })
    }

    pub(crate) async fn hello(&self) -> Result<Hello, ShimError> {
        match self.ask(Request::Hello).await? {
            (Reply::Hello(hello), _) => Ok(hello),
            _ => Err(ShimError::Confused),
        }
    }

    /// Asks for something that is only done.
    pub(crate) async fn command(&self, request: Request) -> Result<(), ShimError> {
        self.ask(request).await.map(drop)
    }

    /// Asks for something that is answered with descriptors.
    pub(crate) async fn descriptors(&self, request: Request) -> Result<Vec<OwnedFd>, ShimError> {
        match self.ask(request).await? {
            (_, fds) if fds.is_empty() => Err(ShimError::Confused),
            (_, fds) => Ok(fds),
        }
    }

    async fn ask(&self, request: Request) -> Result<Answer, ShimError> {
        let (answer, wait) = oneshot::channel();
        self.requests.send((request, answer)).await.map_err(|_| ShimError::Gone)?;
        match wait.await.map_err(|_| ShimError::Gone)? {
            (Reply::Refused { reason }, _) => Err(ShimError::Refused(reason)),
            answer => Ok(answer),
        }
    }
}

async fn drive(
    service: String,
    channel: Channel<Request, Reply>,
    mut queue: mpsc::Receiver<(Request, oneshot::Sender<Answer>)>,
    news: mpsc::Sender<ShimNews>,
) {
    let (sender, mut receiver) = channel.split();
    let mut waiting: VecDeque<oneshot::Sender<Answer>> = VecDeque::new();
    loop {
        tokio::select! {
            received = receiver.recv() => match received {
                Ok((Reply::Update(status), _)) => drop(news.send(ShimNews::Update(service.clone(), status)).await),
                Ok(answer) => if let Some(asked) = waiting.pop_front() { let _ = asked.send(answer); },
                Err(_) => break,
            },
            request = queue.recv() => {
                let Some((request, answer)) = request else { break };
                waiting.push_back(answer);
                if sender.send(&request, &[]).await.is_err() { break }
            }
        }
    }
    let _ = news.send(ShimNews::Gone(service)).await;
}
