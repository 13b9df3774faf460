//! The federation process, here a thread, with this test as control.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringfence_channel::BlockingChannel;
use ringfence_oidc::OidcError;
use ringfence_oidc::protocol::{
    ClientConfig, Credential, FromFederation, Outcome, ProviderConfig, Refusal, SignedIn, ToFederation,
};

pub(crate) struct Federation {
    channel: BlockingChannel<ToFederation, FromFederation>,
    socket: UnixStream,
    inbox: Receiver<FromFederation>,
    /// What was said and not asked for yet.
    news: Vec<FromFederation>,
    next: u64,
    thread: Option<JoinHandle<Result<(), OidcError>>>,
}

impl Federation {
    pub(crate) fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reading = ours.try_clone().unwrap();
        let thread = std::thread::spawn(move || ringfence_oidc::run(theirs, |_| Ok(())));
        let (said, inbox) = sync_channel(1024);
        std::thread::spawn(move || {
            let channel = BlockingChannel::<ToFederation, FromFederation>::new(reading);
            while let Ok((message, _)) = channel.recv() {
                if said.send(message).is_err() {
                    return;
                }
            }
        });
        let socket = ours.try_clone().unwrap();
        let channel = BlockingChannel::new(ours);
        let mut federation = Self { channel, socket, inbox, news: Vec::new(), next: 0, thread: Some(thread) };
        federation.tell(&ToFederation::Start { roots: Some(PathBuf::from("/nowhere/roots.pem")) });
        federation.wait(|m| matches!(m, FromFederation::Ready).then_some(()));
        federation
    }

    pub(crate) fn tell(&self, message: &ToFederation) {
        self.channel.send(message, &[]).unwrap();
    }

    /// Asks with a message made from its number.
    pub(crate) fn ask(&mut self, make: impl FnOnce(u64) -> ToFederation) -> Result<Outcome, Refusal> {
        let number = self.ask_later(make);
        self.answer(number)
    }

    pub(crate) fn ask_later(&mut self, make: impl FnOnce(u64) -> ToFederation) -> u64 {
        self.next += 1;
        self.tell(&make(self.next));
        self.next
    }

    pub(crate) fn answer(&mut self, number: u64) -> Result<Outcome, Refusal> {
        self.wait(|m| match m {
            FromFederation::Answer { request, outcome } if *request == number => Some(outcome.clone()),
            _ => None,
        })
    }

    /// Waits for a message that `pick` takes something from; that message is used up.
    pub(crate) fn wait<T>(&mut self, pick: impl Fn(&FromFederation) -> Option<T>) -> T {
        let found = self.wait_for(Duration::from_secs(60), pick);
        found.unwrap_or_else(|| panic!("nothing of the kind was said in time, but {:#?}", self.news))
    }

    pub(crate) fn wait_for<T>(
        &mut self,
        time: Duration,
        pick: impl Fn(&FromFederation) -> Option<T>,
    ) -> Option<T> {
        let found = self.news.iter().enumerate().find_map(|(at, m)| pick(m).map(|found| (at, found)));
        if let Some((at, found)) = found {
            self.news.remove(at);
            return Some(found);
        }
        let end = Instant::now() + time;
        loop {
            match self.inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => match pick(&message) {
                    Some(found) => return Some(found),
                    None => self.news.push(message),
                },
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => panic!("the federation process is gone"),
            }
        }
    }

    pub(crate) fn trouble(&mut self, name: &str) -> Option<String> {
        self.wait(|m| match m {
            FromFederation::Trouble { provider, reason } if provider == name => Some(reason.clone()),
            _ => None,
        })
    }

    /// Generation and key set.
    pub(crate) fn keys(&mut self, name: &str) -> (u64, String) {
        self.wait(|m| match m {
            FromFederation::Keys { provider, generation, jwks, .. } if provider == name => {
                Some((*generation, jwks.clone()))
            }
            _ => None,
        })
    }

    pub(crate) fn begin(&mut self, provider: &str, redirect_uri: &str) -> Begun {
        let outcome = self.ask(|request| ToFederation::Begin {
            request,
            provider: provider.into(),
            redirect_uri: redirect_uri.into(),
            prompt: None,
            acr_values: vec![],
            max_age: None,
        });
        let Ok(Outcome::Begun { url, state, nonce, verifier }) = outcome else { panic!("{outcome:?}") };
        Begun { url, state, nonce, verifier: verifier.expose().clone(), redirect_uri: redirect_uri.into() }
    }

    pub(crate) fn complete(
        &mut self,
        provider: &str,
        begun: &Begun,
        code: &str,
        iss: Option<&str>,
    ) -> Result<SignedIn, Refusal> {
        let outcome = self.ask(|request| complete(request, provider, begun, code, iss));
        signed_in(outcome)
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        // Others hold the socket too; shut down, both sides see the end.
        let _ = self.socket.shutdown(Shutdown::Both);
        let end = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            end.unwrap().unwrap();
        }
    }
}

/// A sign-in that was begun.
#[derive(Clone)]
pub(crate) struct Begun {
    pub(crate) url: String,
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: String,
    pub(crate) redirect_uri: String,
}

pub(crate) fn complete(
    request: u64,
    provider: &str,
    begun: &Begun,
    code: &str,
    iss: Option<&str>,
) -> ToFederation {
    ToFederation::Complete {
        request,
        provider: provider.into(),
        code: secret(code),
        iss: iss.map(str::to_owned),
        verifier: secret(&begun.verifier),
        nonce: begun.nonce.clone(),
        redirect_uri: begun.redirect_uri.clone(),
        max_age: None,
        acr_values: vec![],
    }
}

pub(crate) fn signed_in(outcome: Result<Outcome, Refusal>) -> Result<SignedIn, Refusal> {
    match outcome? {
        Outcome::SignedIn(signed_in) => Ok(*signed_in),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn secret(text: &str) -> ringfence_keys::Secret<String> {
    ringfence_keys::Secret::new(text.to_owned())
}

/// A provider at a loopback address, with the client `clinic-gateway`.
pub(crate) fn config(name: &str, issuer: &str) -> ProviderConfig {
    ProviderConfig {
        name: name.into(),
        issuer: issuer.into(),
        audiences: vec!["clinic".into()],
        client: Some(ClientConfig {
            id: "clinic-gateway".into(),
            credential: Credential::Secret(secret("a secret/with +odd% signs")),
        }),
        scopes: vec!["openid".into(), "profile".into(), "read".into()],
        ca: None,
        allow_private: true,
        algorithms: vec!["EdDSA".into(), "ES256".into(), "RS256".into()],
        opaque: true,
    }
}
