//! The process that speaks with OpenID providers: what it is told of the fence, and where the keys that it finds go.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ringfence_channel::{Channel, ChannelError, Sender};
use ringfence_model::{Fence, Provider, TokenAlgorithm};
use ringfence_oidc::protocol::{
    ClientConfig, EntitiesConfig, EntitiesNews, FromFederation, ProviderConfig, ToFederation,
};
use ringfence_snapshot::node::ProviderKeys;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::asker::Asker;
use crate::beside::Provider as Beside;
use crate::core::now;

/// Providers that may wait to be asked for keys.
const MAX_WANTED: usize = 64;
/// Longest key set that is passed on.
const MAX_JWKS: usize = 256 * 1024;
/// Longest that keys are believed, whatever is said, in seconds.
const MAX_LIFE: u64 = 48 * 3600;

/// Control's end of the channel to that process, and what is known from it.
#[derive(Debug)]
pub(crate) struct Federation {
    news: mpsc::Sender<FromFederation>,
    /// The providers that there are, for whoever tells that process.
    providers: watch::Sender<Arc<Vec<ProviderConfig>>>,
    /// The server of entity data, for the same.
    entities: watch::Sender<Option<EntitiesConfig>>,
    /// The authority of our own gateway, PEM, and the providers that are reached over it.
    gateway: String,
    behind: BTreeSet<String>,
    link: Option<Link>,
    asker: Asker,
}

/// The channel to one life of that process.
#[derive(Debug)]
struct Link {
    /// Providers whose keys are missing.
    wanted: mpsc::Sender<String>,
    /// Hearing and telling; they end with it.
    _tasks: JoinSet<()>,
}

impl Federation {
    pub(crate) fn new(news: mpsc::Sender<FromFederation>) -> Self {
        Self {
            news,
            providers: watch::Sender::default(),
            entities: watch::Sender::default(),
            gateway: String::new(),
            behind: BTreeSet::new(),
            link: None,
            asker: Asker::default(),
        }
    }

    /// The process was started, for the first time or again.
    pub(crate) fn connect(&mut self, socket: UnixStream) -> Result<(), ChannelError> {
        let (sender, mut receiver) = Channel::<ToFederation, FromFederation>::new(socket)?.split();
        let (news, asker, mut tasks) = (self.news.clone(), self.asker.clone(), JoinSet::new());
        tasks.spawn(async move {
            // Nonsense ends the channel as well, and with it the process: it is started again.
            while let Ok((message, _)) = receiver.recv().await {
                if let FromFederation::Answer { request, outcome } = message {
                    asker.answered(request, outcome);
                } else if news.send(message).await.is_err() {
                    return;
                }
            }
        });
        let (wanted, missing) = mpsc::channel(MAX_WANTED);
        tasks.spawn(tell(
            sender,
            self.providers.subscribe(),
            self.entities.subscribe(),
            missing,
            self.asker.connect(),
        ));
        self.link = Some(Link { wanted, _tasks: tasks });
        Ok(())
    }

    /// Tells which providers there are, and who we are there.
    pub(crate) fn follow(&mut self, fence: &Fence, beside: &BTreeMap<String, Beside>) {
        let behind = fence.providers.iter().filter(|provider| provider.is_behind_gateway());
        self.behind = behind.map(|provider| provider.name.clone()).collect();
        let config = |provider: &Provider| {
            let mut config = config(provider, beside.get(&provider.name));
            if provider.is_behind_gateway() {
                config.ca = Some(self.gateway.clone());
            }
            config
        };
        self.providers.send_replace(Arc::new(fence.providers.iter().map(config).collect()));
    }

    /// For whoever asks on behalf of a request.
    pub(crate) fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Takes the authority of our own gateway, which changes with a rotation.
    pub(crate) fn set_gateway_authority(&mut self, pem: &str) {
        if self.gateway == pem {
            return;
        }
        pem.clone_into(&mut self.gateway);
        if !self.behind.is_empty() {
            self.providers.send_modify(|providers| {
                for provider in Arc::make_mut(providers).iter_mut().filter(|p| self.behind.contains(&p.name))
                {
                    provider.ca = Some(pem.to_owned());
                }
            });
        }
    }

    /// Has a server asked for entity data, or none.
    pub(crate) fn ask_for_entities(&self, server: Option<EntitiesConfig>) {
        self.entities.send_if_modified(|known| {
            let other = *known != server;
            *known = server;
            other
        });
    }

    /// Says after a while that a server did not answer, whatever became of the process that asks.
    pub(crate) fn remind_of_entities(&self, url: String, after: Duration) {
        let news = self.news.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let reason = format!("its server did not answer within {} s", after.as_secs());
            let _ = news.send(FromFederation::Entities { url, news: EntitiesNews::Trouble(reason) }).await;
        });
    }

    /// A token names a key that is not known.
    pub(crate) fn want_keys(&self, provider: String) {
        if let Some(link) = &self.link {
            // Full is as good as asked: it will come to those that wait there.
            let _ = link.wanted.try_send(provider);
        }
    }
}

fn config(provider: &Provider, beside: Option<&Beside>) -> ProviderConfig {
    let name = |algorithm: &TokenAlgorithm| {
        let found = TokenAlgorithm::ALL.iter().find(|(_, known)| known == algorithm);
        found.map_or_else(String::new, |(name, _)| (*name).to_owned())
    };
    let credential = beside.and_then(|beside| beside.credential.clone());
    ProviderConfig {
        name: provider.name.clone(),
        issuer: provider.issuer.clone(),
        audiences: provider.audiences.clone(),
        client: provider
            .client
            .as_ref()
            .zip(credential)
            .map(|(client, credential)| ClientConfig { id: client.id.clone(), credential }),
        scopes: provider.login.as_ref().map_or_else(Vec::new, |login| login.scopes.clone()),
        ca: beside.and_then(|beside| beside.ca.clone()),
        allow_private: provider.allow_private,
        algorithms: provider.algorithms.iter().map(name).collect(),
        opaque: provider.introspect,
    }
}

/// Tells that process whatever is newest, as fast as it reads: control does not wait for it, since it parses what the internet
/// sends and may be another's by then.
async fn tell(
    sender: Sender<ToFederation>,
    mut providers: watch::Receiver<Arc<Vec<ProviderConfig>>>,
    mut entities: watch::Receiver<Option<EntitiesConfig>>,
    mut wanted: mpsc::Receiver<String>,
    mut questions: mpsc::Receiver<ToFederation>,
) {
    let mut next = ToFederation::Start { roots: None };
    providers.mark_changed();
    entities.mark_changed();
    while sender.send(&next, &[]).await.is_ok() {
        let asked = async {
            tokio::select! {
                Some(provider) = wanted.recv() => Some(ToFederation::UnknownKey { provider, kid: String::new() }),
                question = questions.recv() => question,
            }
        };
        // Whom a question is about is told before it.
        next = tokio::select! {
            biased;
            Ok(()) = providers.changed() => {
                ToFederation::Providers(Vec::clone(&providers.borrow_and_update()))
            }
            Ok(()) = entities.changed() => ToFederation::Entities(entities.borrow_and_update().clone()),
            Some(question) = asked => question,
            else => return,
        };
    }
}

/// Keys as proxies get them, if they are of the issuer that the provider has now. That process parses what the internet sends,
/// so what it says is bounded.
pub(crate) fn keys_for(fence: &Fence, keys: ProviderKeys) -> Option<ProviderKeys> {
    let declared = fence.provider(&keys.provider)?;
    let until = keys.until.min(now() + MAX_LIFE);
    let fits = keys.jwks.len() <= MAX_JWKS && declared.issuer == keys.issuer;
    fits.then_some(ProviderKeys { until, ..keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(issuer: &str) -> Fence {
        let text = format!(
            "fence: t\ntrust_domain: t.example\nproviders: {{ staff: {{ issuer: {issuer} }} }}\nservices: {{ a: {{ }} }}\n"
        );
        Fence::parse(vec![("ringfence.yaml", text)]).unwrap()
    }

    #[test]
    fn keys_are_those_of_the_issuer_that_is_declared_now_and_no_longer_than_two_days() {
        let keys = |issuer: &str| ProviderKeys {
            provider: "staff".into(),
            issuer: issuer.into(),
            jwks: "{}".into(),
            until: u64::MAX,
        };
        let fence = fence("https://b.example");
        assert_eq!(
            keys_for(&fence, keys("https://a.example")),
            None,
            "they were on their way when it changed"
        );
        let taken = keys_for(&fence, keys("https://b.example")).unwrap();
        assert!(taken.until <= now() + MAX_LIFE);
        let huge = ProviderKeys { jwks: "x".repeat(MAX_JWKS + 1), ..keys("https://b.example") };
        assert_eq!(keys_for(&fence, huge), None);
        assert_eq!(
            keys_for(&fence, ProviderKeys { provider: "x".into(), ..keys("https://b.example") }),
            None
        );
    }

    #[tokio::test]
    async fn a_process_that_does_not_read_holds_up_nobody_and_gets_the_newest_in_the_end() {
        let (news, _inbox) = mpsc::channel(1);
        let mut federation = Federation::new(news);
        let (theirs, ours) = UnixStream::pair().unwrap();
        federation.connect(ours).unwrap();
        let flood = async {
            for n in 0..2_000 {
                federation.want_keys("staff".to_owned());
                federation.follow(&fence(&format!("https://{}.example", n % 7)), &BTreeMap::new());
                tokio::task::yield_now().await;
            }
            federation.follow(&fence("https://last.example"), &BTreeMap::new());
        };
        tokio::time::timeout(Duration::from_secs(60), flood).await.expect("nothing waits");
        let mut channel = Channel::<FromFederation, ToFederation>::new(theirs).unwrap();
        let newest = async {
            loop {
                if let ToFederation::Providers(all) = channel.recv().await.unwrap().0
                    && all.iter().any(|p| p.issuer == "https://last.example")
                {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), newest).await.expect("the newest arrives");
    }
}
