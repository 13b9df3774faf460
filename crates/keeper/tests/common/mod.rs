//! A keeper on a thread of this process, over the same channels as in its own, and a small fence for it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfence_keeper::protocol::{Start, X509Request};
use ringfence_keeper::{Client, ClientError, Supervised, main_loop};
use ringfence_keys::{Algorithm, MasterSource, SigningKey, possession};
use ringfence_model::Fence;
use ringfence_snapshot::{Addresses, Bundle, Der, Header, SignedSnapshot, Snapshot, compile};
use ringfence_spiffe::{
    BundleSet, CertificateDer, Role, SvidError, TrustBundle, TrustDomain, UnixTime, VerifiedPeer,
};

pub(crate) const FENCE: &str = "
fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, hosts: [clinic.example] }
services:
  portal: { run: [portal], listen: 9000, routes: [{ path: / }], calls: [billing] }
  billing: { run: [billing], listen: 9003 }
";

pub(crate) struct Keeper {
    pub(crate) supervised: Supervised,
    pub(crate) client: Client,
    thread: std::thread::JoinHandle<()>,
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn start_message(data: &Path) -> Start {
    Start {
        data: data.to_owned(),
        master: MasterSource::KeyFile { path: data.join("master.key") },
        fence: "clinic".into(),
        trust_domain: "clinic.example".into(),
    }
}

pub(crate) fn keeper(data: &Path) -> Keeper {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || main_loop(theirs, |_| Ok(())).unwrap());
    let supervised = Supervised::start(ours, start_message(data)).unwrap();
    let client = Client::new(supervised.introduce_control().unwrap()).unwrap();
    Keeper { supervised, client, thread }
}

/// A keeper that has signed a first snapshot.
pub(crate) async fn serving(data: &Path) -> Keeper {
    let keeper = keeper(data);
    sign(&keeper.client, 1).await.unwrap();
    keeper
}

impl Keeper {
    /// Ends it as a supervisor does.
    pub(crate) fn stop(self) {
        drop(self.supervised);
        self.thread.join().unwrap();
    }
}

pub(crate) fn snapshot(fence: &str, revision: u64, bundle: Bundle) -> Snapshot {
    let fence = Fence::parse(vec![("ringfence.yaml", fence)]).unwrap();
    let header =
        Header { epoch: 1, revision, issued_at: now(), expires_at: now() + 3600, lease: 600, bundle };
    compile(&fence, &mut Addresses::default(), header).unwrap()
}

pub(crate) async fn sign(client: &Client, revision: u64) -> Result<SignedSnapshot, ClientError> {
    let bundle = client.bundle().await?;
    client.sign_snapshot(serde_json::to_string(&snapshot(FENCE, revision, bundle)).unwrap()).await
}

pub(crate) fn request(key: &SigningKey, id: &str, ttl: u64) -> X509Request {
    X509Request {
        id: id.into(),
        spki: Der(key.verifying_key().to_spki()),
        proof: Der(possession::prove(key, id).unwrap()),
        ttl,
    }
}

/// Asks for one SVID; answers the chain and its serial number.
pub(crate) async fn svid(
    client: &Client,
    algorithm: Algorithm,
    id: &str,
    ttl: u64,
) -> Result<(Vec<Vec<u8>>, String), String> {
    let key = SigningKey::generate(algorithm).unwrap();
    let (issuers, results) =
        client.issue_x509(vec![request(&key, id, ttl)]).await.map_err(|e| e.to_string())?;
    let leaf = results.into_iter().next().unwrap().map_err(|e| e.to_string())?;
    let chain = std::iter::once(leaf.certificate).chain(issuers).map(|der| der.0).collect();
    Ok((chain, leaf.serial))
}

pub(crate) fn verify(chain: &[Vec<u8>], bundle: &Bundle) -> Result<VerifiedPeer, SvidError> {
    let roots = bundle.x509.iter().map(|der| CertificateDer::from(der.0.clone())).collect();
    let domain = TrustDomain::new("clinic.example").unwrap();
    let bundle = TrustBundle::new(domain, roots, Vec::new(), bundle.generation, None).unwrap();
    let bundles = BundleSet::new(1, [Arc::new(bundle)]);
    let chain: Vec<CertificateDer<'_>> =
        chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    ringfence_spiffe::verify_svid(
        &chain,
        &bundles,
        Role::Client,
        UnixTime::since_unix_epoch(Duration::from_secs(now())),
    )
}
