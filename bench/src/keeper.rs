//! A real keeper, as a process of its own, for contenders that exchange tokens for transaction tokens.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ringfence_channel::cloexec_pair;
use ringfence_keeper::protocol::{MintRequest, Start, ToldRevocations};
use ringfence_keeper::{Client, Supervised, main_loop};
use ringfence_keys::MasterSource;
use ringfence_model::Fence;
use ringfence_snapshot::node::{Mint, NoAnswer, NoAnswerCode, ProviderKeys, Told};
use ringfence_snapshot::{Addresses, Content, Header, JwtKey, compile};
use tokio::runtime::Runtime;

use crate::certs::LIFE;
use crate::machine;

/// Ends with this.
pub(crate) struct Keeper {
    child: Child,
    client: Client,
    runtime: Runtime,
    _supervised: Supervised,
    /// The keys that it signs transaction tokens with.
    pub(crate) keys: Vec<JwtKey>,
}

/// What the process does.
pub(crate) fn serve() -> io::Result<()> {
    main_loop(ringfence_channel::stdin_channel()?, |_| Ok(())).map_err(io::Error::other)
}

impl Keeper {
    /// Starts one that knows this fence, with the files that it names, and the provider's keys.
    pub(crate) fn start(
        data: &Path,
        fence: &Fence,
        files: Vec<Content>,
        keys: ProviderKeys,
        now: u64,
    ) -> io::Result<Self> {
        let (ours, theirs) = cloexec_pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("keeper").stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn()?;
        drop(command);
        let start = Start {
            data: data.to_owned(),
            master: MasterSource::KeyFile { path: data.join("master.key") },
            fence: fence.name.clone(),
            trust_domain: fence.trust_domain.clone(),
        };
        let supervised = Supervised::start(ours, start).map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let control = supervised.introduce_control().map_err(io::Error::other)?;
        let (client, keys) = runtime.block_on(async {
            let client = Client::new(control).map_err(io::Error::other)?;
            let bundle = client.bundle().await.map_err(io::Error::other)?;
            let signed = bundle.txn.clone();
            let life = LIFE.as_secs();
            let header =
                Header { epoch: 1, revision: 1, issued_at: now, expires_at: now + life, lease: life, bundle };
            let mut snapshot = compile(fence, &mut Addresses::default(), header).map_err(io::Error::other)?;
            snapshot.content = files;
            client.sign_snapshot(serde_json::to_string(&snapshot)?).await.map_err(io::Error::other)?;
            client.provider_keys(keys).await.map_err(io::Error::other)?;
            let none = ToldRevocations::Part { first: true, last: true, entries: Vec::new() };
            client.revocations(none).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((client, signed))
        })?;
        Ok(Self { child, client, runtime, _supervised: supervised, keys })
    }

    /// Control's part of an exchange.
    pub(crate) fn mint(&self, ask: Mint) -> Result<Told, NoAnswer> {
        let refused = |reason: String| NoAnswer::new(NoAnswerCode::Denied, reason);
        let request = MintRequest { ask, evidence: None };
        let results =
            self.runtime.block_on(self.client.mint(vec![request])).map_err(|e| refused(e.to_string()))?;
        match results.into_iter().next() {
            Some(Ok(minted)) => {
                Ok(Told::Minted { token: minted.token.expose().clone(), expires_at: minted.expires_at })
            }
            Some(Err(refusal)) => Err(refused(refusal.to_string())),
            None => Err(refused("the keeper gave no answer".to_owned())),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(error) = machine::stop(&mut self.child) {
            eprintln!("bench: the keeper did not stop: {error}");
        }
    }
}
