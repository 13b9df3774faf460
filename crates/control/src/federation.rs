//! The process that speaks with OpenID providers: what it is told of the fence, and where the keys that it finds go.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use ringfence_channel::{Channel, ChannelError, Sender};
use ringfence_model::{Fence, Provider, TokenAlgorithm};
use ringfence_oidc::protocol::{FromFederation, ProviderConfig, ToFederation};
use ringfence_snapshot::node::ProviderKeys;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::core::now;

/// Longest key set that is passed on.
const MAX_JWKS: usize = 256 * 1024;
/// Longest that keys are believed, whatever is said, in seconds.
const MAX_LIFE: u64 = 48 * 3600;

/// Control's end of the channel to that process, and what is known from it.
#[derive(Debug)]
pub(crate) struct Federation {
    news: mpsc::Sender<FromFederation>,
    link: Option<(Sender<ToFederation>, JoinSet<()>)>,
    /// Private authorities of providers, PEM.
    authorities: BTreeMap<String, String>,
}

impl Federation {
    pub(crate) fn new(news: mpsc::Sender<FromFederation>) -> Self {
        Self { news, link: None, authorities: BTreeMap::new() }
    }

    /// The process was started, for the first time or again.
    pub(crate) async fn connect(
        &mut self,
        socket: UnixStream,
        fence: Option<&Fence>,
    ) -> Result<(), ChannelError> {
        let (sender, mut receiver) = Channel::<ToFederation, FromFederation>::new(socket)?.split();
        let (news, mut tasks) = (self.news.clone(), JoinSet::new());
        tasks.spawn(async move {
            // Nonsense ends the channel as well, and with it the process: it is started again.
            while let Ok((message, _)) = receiver.recv().await {
                if news.send(message).await.is_err() {
                    return;
                }
            }
        });
        let _ = sender.send(&ToFederation::Start { roots: None }, &[]).await;
        self.link = Some((sender, tasks));
        if let Some(fence) = fence {
            self.follow(fence).await;
        }
        Ok(())
    }

    /// Takes the private authorities of providers, read by the supervisor.
    pub(crate) fn set_authorities(&mut self, authorities: Vec<(String, String)>) {
        self.authorities = authorities.into_iter().collect();
    }

    /// Tells which providers there are.
    pub(crate) async fn follow(&self, fence: &Fence) {
        let providers = fence.providers.iter().map(|provider| self.config(provider)).collect();
        self.tell(&ToFederation::Providers(providers)).await;
    }

    /// A token names a key that is not known.
    pub(crate) async fn want_keys(&self, provider: String) {
        self.tell(&ToFederation::UnknownKey { provider, kid: String::new() }).await;
    }

    async fn tell(&self, message: &ToFederation) {
        if let Some((sender, _)) = &self.link {
            let _ = sender.send(message, &[]).await;
        }
    }

    fn config(&self, provider: &Provider) -> ProviderConfig {
        let name = |algorithm: &TokenAlgorithm| {
            let found = TokenAlgorithm::ALL.iter().find(|(_, known)| known == algorithm);
            found.map_or_else(String::new, |(name, _)| (*name).to_owned())
        };
        ProviderConfig {
            name: provider.name.clone(),
            issuer: provider.issuer.clone(),
            audiences: provider.audiences.clone(),
            client: None,
            scopes: Vec::new(),
            ca: self.authorities.get(&provider.name).cloned(),
            allow_private: provider.allow_private,
            algorithms: provider.algorithms.iter().map(name).collect(),
            opaque: false,
        }
    }
}

/// Keys as proxies get them. That process parses what the internet sends, so what it says is bounded.
pub(crate) fn keys_for(fence: &Fence, provider: &str, jwks: String, until: u64) -> Option<ProviderKeys> {
    let declared = fence.provider(provider)?;
    let (issuer, until) = (declared.issuer.clone(), until.min(now() + MAX_LIFE));
    (jwks.len() <= MAX_JWKS).then(|| ProviderKeys { provider: provider.to_owned(), issuer, jwks, until })
}
