//! Ringfence: the product's own binary in its role `node`, one data-plane thread, started and fed as `up` and control do it.
//! The harness plays the supervisor and control, and the keeper too as far as it only certifies keys; the node cannot tell. A real keeper
//! makes transaction tokens.

use std::fmt::Display;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfence_channel::{BlockingChannel, cloexec_pair};
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_model::{Fence, content};
use ringfence_proxy::protocol::shim::{FromShim, ToShim};
use ringfence_proxy::protocol::{FromNode, ListenerKind, Start, ToNode};
use ringfence_snapshot::node::{Ask, FromProxy, Issued, ProviderKeys, Revocations, Subject, ToProxy};
use ringfence_snapshot::{
    Addresses, Bundle, Content, ContentPart, Der, Digest, Header, Policies, SignedSnapshot, Text, compile,
};
use socket2::{Domain, Socket, Type};

use super::{Contender, Held, Launch, Setup};
use crate::case::Case;
use crate::certs::{Certs, LIFE, NAME, UPSTREAM};
use crate::install;
use crate::keeper::Keeper;
use crate::tokens::{AUDIENCE, GROUP, ISSUER, SCOPE};

const PATIENCE: Duration = Duration::from_secs(60);
const BACKLOG: i32 = 1024;
/// What the mesh asks for when it wants the service `upstream`.
const CALLEE: &str = "upstream.bench.example";
const PROVIDER: &str = "staff";
const POLICIES: &str = "bench.cedar";
/// What the fence names beside it: the folder of the rule set, and the description of the API.
const RULES: &str = "crs";
const DESCRIPTION: &str = "patients.yaml";

/// The gateway before an external service, or the sidecar before a fenced one: one process, as the others.
pub(super) struct Gateway;

/// Gateway, mesh and sidecar before a fenced service: mTLS between the two, in one process.
pub(super) struct Mesh;

impl Contender for Gateway {
    fn name(&self) -> &'static str {
        "ringfence"
    }

    fn version(&self) -> io::Result<String> {
        version()
    }

    fn launch(&self, setup: &Setup<'_>) -> io::Result<Launch> {
        if setup.case == Case::Sidecar {
            let port = setup.upstream.port();
            return launch(
                setup,
                &format!(
                    "services:\n  load:\n    run: [load]\n    calls: [upstream]\n  upstream:\n    run: [upstream]\n    listen: {port}\n"
                ),
            );
        }
        let tls = if setup.case.mutual_behind() { "spiffe" } else { "off" };
        let upstream = setup.upstream;
        let service = format!("external:\n  upstream:\n    address: {upstream}\n    tls: {tls}\n");
        launch(setup, &service)
    }

    fn takes(&self, _case: Case) -> bool {
        true
    }

    fn server_name(&self, case: Case) -> &'static str {
        if case == Case::Sidecar { CALLEE } else { NAME }
    }

    fn countable(&self) -> bool {
        true
    }
}

impl Contender for Mesh {
    fn name(&self) -> &'static str {
        "ringfence-mesh"
    }

    fn version(&self) -> io::Result<String> {
        version()
    }

    fn launch(&self, setup: &Setup<'_>) -> io::Result<Launch> {
        let port = setup.upstream.port();
        launch(setup, &format!("services:\n  upstream:\n    run: [upstream]\n    listen: {port}\n"))
    }

    fn takes(&self, case: Case) -> bool {
        matches!(case, Case::Tls | Case::H2 | Case::Grpc | Case::Token)
    }
}

fn version() -> io::Result<String> {
    let said = install::version(&binary()?, "--version")?;
    Ok(said.trim().rsplit(' ').next().unwrap_or_default().to_owned())
}

/// Beside the harness, of the same build.
fn binary() -> io::Result<PathBuf> {
    let binary = std::env::current_exe()?.with_file_name("ringfence");
    if binary.is_file() {
        return Ok(binary);
    }
    Err(io::Error::other("no ringfence beside this program: `cargo xtask bench` builds both"))
}

fn launch(setup: &Setup<'_>, service: &str) -> io::Result<Launch> {
    let protocol = if setup.case == Case::Grpc { "grpc" } else { "http" };
    let tls = if setup.case.tls() { "" } else { "\n  tls: off" };
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let (gateway, gateway_socket) =
        listening(if setup.case == Case::Sidecar { anywhere } else { setup.listen })?;
    let mesh = listening(if setup.case == Case::Sidecar { setup.listen } else { anywhere })?;
    let (access, accept) = if setup.case.tokens() {
        let provider = format!(
            "providers:\n  {PROVIDER}: {{ issuer: {ISSUER}, audiences: [{AUDIENCE}], claims: {{ groups: groups }} }}\n"
        );
        let accept = format!(", accept: [{{ token: {PROVIDER} }}], require: {{ scopes: [{SCOPE}] }}");
        (format!("{provider}policies: [{POLICIES}]\n"), accept)
    } else {
        (String::new(), String::new())
    };
    let chain = setup.case == Case::Chain;
    let (service, accept) = if chain {
        (
            format!("{service}    openapi: {DESCRIPTION}\n"),
            format!("{accept}, limit: [{{ by: user, rate: 1000000/1s }}]"),
        )
    } else {
        (service.to_owned(), accept)
    };
    // Of the peers only the one with rules looks for attacks.
    let waf = match (setup.case.paranoia(), &setup.rules) {
        (Some(paranoia), Some(_)) => {
            format!("mode: enforce, crs: {RULES}, paranoia: {paranoia}, body: {{ inspect: 16MiB }}")
        }
        _ => "mode: off".to_owned(),
    };
    let fence = format!(
        "fence: bench\ntrust_domain: bench.example\nwaf: {{ {waf} }}\ngateway:\n  listen: {gateway}{tls}\n{access}{service}    protocol: {protocol}\n    \
         routes: [{{ path: /{accept} }}]\n"
    );
    // What the node of an earlier run had seen was signed by another key.
    let data = empty(setup.folder.join("data"))?;
    let (ours, theirs) = cloexec_pair()?;
    let program = if setup.counted_in.is_some() { std::env::current_exe()? } else { binary()? };
    let mut command = setup.program(&program)?;
    command.arg("node").stdin(Stdio::from(OwnedFd::from(theirs)));
    let supervisor = Supervisor {
        channel: BlockingChannel::new(ours),
        key: SigningKey::generate(Algorithm::Ed25519).map_err(other)?,
        certs: setup.certs.clone(),
        keys: setup.case.tokens().then(|| ProviderKeys {
            provider: PROVIDER.to_owned(),
            issuer: ISSUER.to_owned(),
            jwks: setup.tokens.jwks.clone(),
            until: setup.tokens.until,
        }),
        data,
        folder: setup.rules.as_deref().map(|rules| fence_folder(&setup.folder, rules)).transpose()?,
        chain,
    };
    Ok(Launch { command, then: Box::new(move || supervisor.bring_up(&fence, mesh, gateway_socket)) })
}

struct Supervisor {
    channel: BlockingChannel<ToNode, FromNode>,
    key: SigningKey,
    certs: Arc<Certs>,
    /// Of the provider, where there is one.
    keys: Option<ProviderKeys>,
    data: PathBuf,
    /// The folder with the files that the fence names.
    folder: Option<PathBuf>,
    chain: bool,
}

impl Supervisor {
    /// Leads the node to where it serves the fence; it ends with the channel that is kept.
    fn bring_up(mut self, fence: &str, mesh: (SocketAddr, OwnedFd), gateway: OwnedFd) -> io::Result<Held> {
        self.channel.set_timeout(Some(PATIENCE)).map_err(other)?;
        let (mesh, mesh_socket) = mesh;
        self.say(
            &ToNode::Start(Start {
                snapshot_key: Der(self.key.verifying_key().to_spki()),
                data_dir: self.data.clone(),
                threads: 1,
                node: "bench".to_owned(),
                mesh,
            }),
            None,
        )?;
        self.hear(|message| matches!(message, FromNode::Ready))?;
        let mut fence = Fence::parse(vec![("ringfence.yaml", fence)]).map_err(other)?;
        fence.folder = self.folder.clone().unwrap_or_default();
        let files = content::read(&fence).map_err(other)?;
        let named: Vec<Content> = files.iter().map(|(name, bytes)| Content::of(name, bytes)).collect();
        let keeper = match &self.keys {
            Some(keys) => {
                let data = empty(self.data.with_file_name("keeper"))?;
                Some(Keeper::start(&data, &fence, named.clone(), keys.clone(), now()?)?)
            }
            None => None,
        };
        let signed = self.signed(&fence, named, keeper.as_ref())?;
        let (control, theirs) = cloexec_pair()?;
        self.say(&ToNode::Control, Some(theirs.into()))?;
        let (answers, certs) = (BlockingChannel::new(control), self.certs.clone());
        let nothing = Revocations::Part { first: true, last: true, entries: Vec::new() };
        answers.send(&ToProxy::Revocations(nothing), &[]).map_err(other)?;
        for bytes in files.values() {
            for part in ContentPart::all(Digest::of(bytes), bytes) {
                answers.send(&ToProxy::Content(part), &[]).map_err(other)?;
            }
        }
        answers.send(&ToProxy::Snapshot(signed), &[]).map_err(other)?;
        if let Some(keys) = self.keys.take() {
            answers.send(&ToProxy::Keys(keys), &[]).map_err(other)?;
        }
        spawn("control", move || control_part(&answers, &certs, keeper.as_ref()))?;
        self.hear(|message| matches!(message, FromNode::Applied { .. }))?;
        let (shim, theirs) = cloexec_pair()?;
        self.say(&ToNode::Shim { service: "upstream".to_owned() }, Some(theirs.into()))?;
        spawn("shim", move || supply(shim))?;
        self.say(&ToNode::ShimReady { service: "upstream".to_owned() }, None)?;
        for (kind, socket) in [(ListenerKind::Mesh, mesh_socket), (ListenerKind::Gateway, gateway)] {
            self.say(&ToNode::Listener { kind: kind.clone() }, Some(socket))?;
            self.hear(|message| *message == FromNode::Listening { kind: kind.clone() })?;
        }
        // Certificates are asked for beside all this; a first request would wait for them.
        std::thread::sleep(Duration::from_millis(500));
        Ok(Box::new(self.channel))
    }

    fn say(&self, message: &ToNode, socket: Option<OwnedFd>) -> io::Result<()> {
        let sockets: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        self.channel.send(message, &sockets).map_err(other)
    }

    fn hear(&self, wanted: impl Fn(&FromNode) -> bool) -> io::Result<()> {
        loop {
            match self.channel.recv().map_err(other)? {
                (FromNode::Refused { reason }, _) => return Err(io::Error::other(reason)),
                (message, _) if wanted(&message) => return Ok(()),
                _ => {}
            }
        }
    }

    fn signed(
        &self,
        fence: &Fence,
        named: Vec<Content>,
        keeper: Option<&Keeper>,
    ) -> io::Result<SignedSnapshot> {
        let now = now()?;
        let root = Der(self.certs.authority().to_vec());
        let txn = keeper.map(|keeper| keeper.keys.clone()).unwrap_or_default();
        let bundle = Bundle { generation: 1, x509: vec![root], txn, ..Bundle::default() };
        let life = LIFE.as_secs();
        let header =
            Header { epoch: 1, revision: 1, issued_at: now, expires_at: now + life, lease: life, bundle };
        let mut snapshot = compile(fence, &mut Addresses::default(), header).map_err(other)?;
        snapshot.policies = fence.policies.clone().map(|declared| Policies {
            files: vec![Text { name: POLICIES.to_owned(), text: policy(self.chain) }],
            entities: None,
            position: declared.position,
        });
        snapshot.content = named;
        let bytes = serde_json::to_string(&snapshot)?;
        let signature = Der(self.key.sign(&SignedSnapshot::message(&bytes)).map_err(other)?);
        Ok(SignedSnapshot { bytes, signature })
    }
}

/// Who may read what, the same that Envoy is told; and write, where that is measured.
fn policy(write: bool) -> String {
    let (actions, target) = if write {
        ("action in [Action::\"GET\", Action::\"POST\"]", "/patients*")
    } else {
        ("action == Action::\"GET\"", "/patients/*")
    };
    format!(
        "permit(principal in Group::\"{PROVIDER}/{GROUP}\", {actions}, resource in Service::\"upstream\")\n\
         when {{ context.scopes.contains(\"{SCOPE}\") && context.target like \"{target}\" }};\n"
    )
}

/// A folder with the rule set and the description of the API.
fn fence_folder(own: &Path, rules: &Path) -> io::Result<PathBuf> {
    let folder = empty(own.join("fence"))?;
    fs::write(folder.join(DESCRIPTION), include_str!("../patients.yaml"))?;
    fs::create_dir_all(folder.join(RULES).join("rules"))?;
    fs::copy(rules.join("crs-setup.conf.example"), folder.join(RULES).join("crs-setup.conf"))?;
    for file in fs::read_dir(rules.join("rules"))? {
        let file = file?;
        fs::copy(file.path(), folder.join(RULES).join("rules").join(file.file_name()))?;
    }
    Ok(folder)
}

/// Control's part: certificates and transaction tokens for whatever the node asks for, until it is gone.
fn control_part(
    channel: &BlockingChannel<ToProxy, FromProxy>,
    certs: &Certs,
    keeper: Option<&Keeper>,
) -> io::Result<()> {
    let mut dropped = 0;
    loop {
        match channel.recv().map_err(other)?.0 {
            FromProxy::Sign { request, subject, spki, .. } => {
                let names = match subject {
                    // The load checks names, not SPIFFE IDs.
                    Subject::Svid(id) if id == UPSTREAM => vec![id, CALLEE.to_owned()],
                    Subject::Svid(id) => vec![id],
                    Subject::Serving(hosts) => hosts,
                };
                let leaf = certs.issue(&names, &spki.0)?;
                let not_after = now()? + LIFE.as_secs();
                let outcome = Ok(Issued { chain: vec![Der(leaf.to_vec())], not_after });
                channel.send(&ToProxy::Signed { request, outcome }, &[]).map_err(other)?;
            }
            FromProxy::Ask { request, ask: Ask::Mint(mint) } => {
                let Some(keeper) = keeper else { return Err(other("nobody makes transaction tokens")) };
                let outcome = keeper.mint(*mint);
                if let Err(refused) = &outcome {
                    eprintln!("bench: no transaction token: {refused}");
                }
                channel.send(&ToProxy::Answer { request, outcome }, &[]).map_err(other)?;
            }
            FromProxy::Stats(stats) if stats.events.1 > dropped => {
                eprintln!("bench: ringfence dropped {} of its events", stats.events.1 - dropped);
                dropped = stats.events.1;
            }
            FromProxy::Nack { reason, .. } => eprintln!("bench: ringfence refuses its snapshot: {reason}"),
            _ => {}
        }
    }
}

/// The shim's part: sockets, here of this network.
fn supply(socket: UnixStream) -> io::Result<()> {
    let channel = BlockingChannel::<FromShim, ToShim>::new(socket);
    loop {
        let (ToShim::Sockets { count }, _) = channel.recv().map_err(other)?;
        let made = (0..count).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).map(OwnedFd::from));
        let made: Vec<OwnedFd> = made.collect::<io::Result<_>>()?;
        let sockets: Vec<_> = made.iter().map(AsFd::as_fd).collect();
        channel.send(&FromShim::Sockets { count }, &sockets).map_err(other)?;
    }
}

/// A thread that ends with its channel, which is no failure.
fn spawn(name: &str, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(work())).map(drop)
}

fn listening(address: SocketAddr) -> io::Result<(SocketAddr, OwnedFd)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP address"))?;
    Ok((address, socket.into()))
}

fn now() -> io::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_err(other)?.as_secs())
}

/// The folder, without what an earlier run left there.
fn empty(folder: PathBuf) -> io::Result<PathBuf> {
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(&folder)?,
    }
    Ok(folder)
}

fn other(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}
