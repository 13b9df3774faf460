//! The federation process: takes messages of control, keeps providers, answers.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringfence_channel::{BlockingChannel, ChannelError, Receiver, Sender};
use ringfence_tls::EgressRoots;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::entities::Upkeep;
use crate::fetch::Fetcher;
use crate::protocol::{
    EntitiesConfig, FromFederation, MAX_PROVIDERS, ProviderConfig, Refusal, RefusalCode, ToFederation,
};
use crate::provider::{Pace, Provider};
use crate::request::Request;

/// Most requests that are under way at once.
const MAX_REQUESTS: usize = 256;
/// Messages that wait to be sent.
const QUEUE: usize = 256;
/// Largest file of public roots.
const MAX_ROOTS: u64 = 8 * 1024 * 1024;
/// Where systems keep public roots.
const ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why the federation process ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OidcError {
    /// The channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Control said something that makes no sense here.
    #[error("control broke the protocol: {0}")]
    Protocol(&'static str),
    /// The runtime.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Confinement.
    #[error("cannot confine the federation process: {0}")]
    Confine(io::Error),
}

/// Runs the federation process until control is gone. `confine` is called before anything is read from the network and before a
/// second thread exists, with the folder of the public roots, the one thing besides programs and names that is read.
///
/// # Errors
/// [`OidcError`]: the supervisor starts it again.
pub fn run(channel: UnixStream, confine: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), OidcError> {
    let channel = BlockingChannel::<FromFederation, ToFederation>::new(channel);
    let (ToFederation::Start { roots }, _) = channel.recv()? else {
        return Err(OidcError::Protocol("the first message is not Start"));
    };
    let roots = roots.unwrap_or_else(public_roots);
    confine(roots.parent().unwrap_or_else(|| Path::new("/"))).map_err(OidcError::Confine)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work(channel, &roots, Pace::new()));
    // A name that is being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

fn public_roots() -> PathBuf {
    let found = ROOTS.iter().map(Path::new).find(|path| path.exists());
    found.unwrap_or_else(|| Path::new(ROOTS[0])).to_owned()
}

async fn work(
    channel: BlockingChannel<FromFederation, ToFederation>,
    roots: &Path,
    pace: Pace,
) -> Result<(), OidcError> {
    let (sender, mut inbox) = channel.into_async()?.split();
    let (news, queue) = mpsc::channel(QUEUE);
    tokio::spawn(send(sender, queue));
    let _ = news.send(FromFederation::Ready).await;
    let public = read_roots(roots);
    let mut federation = Federation { providers: BTreeMap::new(), entities: None, public, pace, news };
    serve(&mut inbox, &mut federation).await
}

async fn serve(inbox: &mut Receiver<ToFederation>, federation: &mut Federation) -> Result<(), OidcError> {
    let places = Arc::new(Semaphore::new(MAX_REQUESTS));
    loop {
        let message = match inbox.recv().await {
            Ok((message, _)) => message,
            Err(ChannelError::Closed) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let (request, name, what) = match message {
            ToFederation::Start { .. } => return Err(OidcError::Protocol("Start came twice")),
            ToFederation::Providers(configs) => {
                federation.replace(configs)?;
                continue;
            }
            ToFederation::Entities(config) => {
                federation.ask_for_entities(config);
                continue;
            }
            ToFederation::UnknownKey { provider, .. } => {
                if let Some(kept) = federation.providers.get(&provider) {
                    kept.provider.unknown_key();
                }
                continue;
            }
            other => Request::split(other).ok_or(OidcError::Protocol("it is no request"))?,
        };
        let news = federation.news.clone();
        let provider = federation.providers.get(&name).map(|kept| kept.provider.clone());
        let place = places.clone().try_acquire_owned();
        tokio::spawn(async move {
            let outcome = match (&place, provider) {
                (Err(_), _) => Err(Refusal::new(
                    RefusalCode::Busy,
                    "too many requests to OpenID providers are under way",
                )),
                (_, None) => {
                    Err(Refusal::new(RefusalCode::Malformed, format!("there is no provider `{name}`")))
                }
                (Ok(_), Some(provider)) => what.work(&provider).await,
            };
            let _ = news.send(FromFederation::Answer { request, outcome }).await;
            drop(place);
        });
    }
}

struct Federation {
    providers: BTreeMap<String, Kept>,
    /// The server of entity data, and who asks it.
    entities: Option<(EntitiesConfig, AbortOnDrop)>,
    public: Result<EgressRoots, String>,
    pace: Pace,
    news: mpsc::Sender<FromFederation>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Kept {
    provider: Arc<Provider>,
    /// The configuration as text, to tell whether it changed.
    text: Zeroizing<String>,
    upkeep: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

impl Federation {
    fn replace(&mut self, configs: Vec<ProviderConfig>) -> Result<(), OidcError> {
        if configs.len() > MAX_PROVIDERS {
            return Err(OidcError::Protocol("there are too many providers"));
        }
        let mut old = std::mem::take(&mut self.providers);
        for config in configs {
            let text = serde_json::to_string(&config).map_err(ChannelError::from)?;
            let text = Zeroizing::new(text);
            let name = config.name.clone();
            let kept = match old.remove(&name) {
                Some(kept) if kept.text == text => kept,
                _ => self.start(config, text),
            };
            self.providers.insert(name, kept);
        }
        Ok(())
    }

    /// Asks this server from now on, anew only if something about it changed.
    fn ask_for_entities(&mut self, config: Option<EntitiesConfig>) {
        if self.entities.as_ref().map(|(known, _)| known) == config.as_ref() {
            return;
        }
        self.entities = config.map(|config| {
            let fetcher = self.fetcher(config.ca.as_deref(), config.allow_private);
            let upkeep = Upkeep::new(config.clone(), fetcher, self.news.clone());
            (config, AbortOnDrop(tokio::spawn(upkeep.run())))
        });
    }

    fn fetcher(&self, ca: Option<&str>, allow_private: bool) -> Fetcher {
        let roots = match ca {
            Some(pem) => EgressRoots::from_pem(pem.as_bytes()).map_err(|e| e.to_string()),
            None => self.public.clone(),
        };
        Fetcher::new(roots, allow_private)
    }

    fn start(&self, config: ProviderConfig, text: Zeroizing<String>) -> Kept {
        let fetcher = self.fetcher(config.ca.as_deref(), config.allow_private);
        let provider = Arc::new(Provider::new(config, fetcher, self.pace, self.news.clone()));
        let upkeep = tokio::spawn({
            let provider = provider.clone();
            async move { provider.upkeep().await }
        });
        Kept { provider, text, upkeep }
    }
}

fn read_roots(path: &Path) -> Result<EgressRoots, String> {
    use std::io::Read as _;
    let failed = |e: &dyn std::error::Error| format!("{}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let mut pem = Vec::new();
    file.take(MAX_ROOTS).read_to_end(&mut pem).map_err(|e| failed(&e))?;
    EgressRoots::from_pem(&pem).map_err(|e| failed(&e))
}

async fn send(sender: Sender<FromFederation>, mut queue: mpsc::Receiver<FromFederation>) {
    while let Some(message) = queue.recv().await {
        if sender.send(&message, &[]).await.is_err() {
            // The reader notices too, and ends the process.
            return;
        }
    }
}
