//! Who gets how far: a server on a real socket, honest hosts and others.

#[path = "../../tls/tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::CertificateParams;
use ringfence_keys::{Algorithm, SigningKey, possession};
use ringfence_snapshot::node::{FromProxy, ToProxy};
use ringfence_spiffe::{KeyAlgorithm, LeafKey, SpiffeId};
use ringfence_tls::{Identity, Mesh, introduction_client_config};
use support::Authority;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::message::Json;
use crate::{CallError, Callee, ComeBackAsk, JoinAsk, Request, Trust, Welcome, come_back_subject, serve};

const SOON: Duration = Duration::from_secs(30);

/// An identity of any kind.
fn identity(authority: &Authority, id: &SpiffeId) -> Identity {
    let key = LeafKey::generate(KeyAlgorithm::P256).unwrap();
    let params: CertificateParams = authority.params(id.as_str());
    Identity::new(id.clone(), vec![authority.sign(&params, &key)], &key).unwrap()
}

fn mesh_of(authority: &Authority, id: &SpiffeId) -> Mesh {
    let mesh = Mesh::new(authority.bundles(1));
    mesh.put_identity(identity(authority, id));
    mesh
}

fn node(authority: &Authority, name: &str) -> SpiffeId {
    SpiffeId::node(&authority.trust_domain, name).unwrap()
}

fn control(authority: &Authority) -> SpiffeId {
    SpiffeId::control(&authority.trust_domain, "clinic").unwrap()
}

/// Control's door, shown as `own`; and who came, by what they said.
async fn door(authority: &Authority, own: SpiffeId) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (visitor, mut visits) = mpsc::channel(8);
    let (came, who) = mpsc::channel(8);
    let trust = Trust {
        trust_domain: authority.trust_domain.as_str().into(),
        fence: "clinic".into(),
        roots: vec![authority.root.to_vec().into()],
        challenge: String::new(),
    };
    tokio::spawn(serve(listener, mesh_of(authority, &own), own, visitor));
    tokio::spawn(async move {
        let welcome = Welcome { chain: Vec::new(), not_after: 7, snapshot_key: Vec::new().into() };
        while let Some(visit) = visits.recv().await {
            match visit {
                Request::Trust(answer) => drop(answer.send(trust.clone())),
                Request::Join { ask, answer, .. } => {
                    came.send(format!("join {}", ask.token.expose())).await.unwrap();
                    let good = ask.token.expose() == "good";
                    answer.send(if good { Ok(welcome.clone()) } else { Err(crate::Refused) }).unwrap();
                }
                Request::ComeBack { host, answer, .. } => {
                    came.send(format!("back {host}")).await.unwrap();
                    answer.send(Ok(welcome.clone())).unwrap();
                }
                Request::Session { sealed, mut frames, outgoing, answer } => {
                    came.send(format!("session {}", sealed.host)).await.unwrap();
                    answer.send(Ok(())).unwrap();
                    let came = came.clone();
                    tokio::spawn(async move {
                        while let Some(said) = frames.next().await {
                            came.send(format!("{said:?}")).await.unwrap();
                            outgoing.send(&ToProxy::Renew).await.unwrap();
                        }
                        came.send("left".into()).await.unwrap();
                    });
                }
            }
        }
    });
    (address, who)
}

#[tokio::test]
async fn a_host_proves_control_before_it_says_anything_and_control_answers_once_it_is_asked() {
    let authority = Authority::new("clinic.example");
    let (address, mut came) = door(&authority, control(&authority)).await;
    let introduced = Callee(address).introduce().await.unwrap();
    assert_eq!(introduced.bundle().unwrap().x509_authorities(), authority.bundle(1).x509_authorities());
    let mut proven = introduced.prove(&authority.bundle(1)).unwrap();
    let ask = |token: &str| JoinAsk {
        token: ringfence_keys::Secret::new(token.into()),
        spki: Vec::new().into(),
        proof: Vec::new().into(),
    };
    assert_eq!(proven.join(&ask("good")).await.unwrap().not_after, 7);
    assert!(matches!(proven.join(&ask("bad")).await, Err(CallError::Refused)));
    assert_eq!([came.recv().await.unwrap(), came.recv().await.unwrap()], ["join good", "join bad"]);

    // Whoever answers with another authority's word, or with the SVID of a host, is nobody.
    let other = Authority::new("clinic.example");
    let introduced = Callee(address).introduce().await.unwrap();
    assert!(matches!(introduced.prove(&other.bundle(1)), Err(CallError::Stranger(..))));
    let (rogue, _) = door(&authority, node(&authority, "ward")).await;
    let introduced = Callee(rogue).introduce().await.unwrap();
    assert!(matches!(introduced.prove(&authority.bundle(1)), Err(CallError::Stranger(..))));
    let host = mesh_of(&authority, &node(&authority, "lab"));
    let called = Callee(rogue).connect(&host, &node(&authority, "lab"), &control(&authority)).await;
    assert!(matches!(called, Err(CallError::Stranger(..))), "{called:?}");
}

#[tokio::test]
async fn whoever_floods_from_one_address_takes_a_few_places_and_gives_them_back() {
    let authority = Authority::new("clinic.example");
    let (address, _came) = door(&authority, control(&authority)).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    // All places of this address are taken by connections that say nothing.
    let refused = tokio::time::timeout(SOON, async { while Callee(address).introduce().await.is_ok() {} });
    refused.await.unwrap();
    drop(idle);
    let again = tokio::time::timeout(SOON, async { while Callee(address).introduce().await.is_err() {} });
    again.await.unwrap();
}

#[tokio::test]
async fn a_host_comes_back_by_the_challenge_of_its_own_connection() {
    let authority = Authority::new("clinic.example");
    let (address, mut came) = door(&authority, control(&authority)).await;
    let key = SigningKey::generate(Algorithm::P256).unwrap();
    let id = node(&authority, "ward");
    let ask = |challenge: &str| ComeBackAsk {
        host: "ward".into(),
        spki: key.verifying_key().to_spki().into(),
        answer: possession::prove(&key, &come_back_subject(id.as_str(), challenge)).unwrap().into(),
        proof: Vec::new().into(),
    };
    let first = Callee(address).introduce().await.unwrap();
    let challenge = first.trust().challenge.clone();
    let mut first = first.prove(&authority.bundle(1)).unwrap();
    let second = Callee(address).introduce().await.unwrap();
    assert_ne!(second.trust().challenge, challenge);
    let mut second = second.prove(&authority.bundle(1)).unwrap();
    // What was seen on one connection is worth nothing on another; nor is what was signed for somebody else.
    assert!(matches!(second.come_back(&ask(&challenge)).await, Err(CallError::Nonsense(_))));
    let mut stolen = ask(&challenge);
    stolen.host = "lab".into();
    assert!(matches!(first.come_back(&stolen).await, Err(CallError::Nonsense(_))));
    first.come_back(&ask(&challenge)).await.unwrap();
    assert_eq!(came.recv().await.unwrap(), "back ward");
}

#[tokio::test]
async fn a_session_is_for_hosts_alone_and_carries_messages_both_ways() {
    let authority = Authority::new("clinic.example");
    let (address, mut came) = door(&authority, control(&authority)).await;
    // A service's SVID, or the gateway's, is valid and not a host's.
    for id in [authority.id("portal"), SpiffeId::gateway(&authority.trust_domain, "clinic").unwrap()] {
        let refused = async {
            let known = Callee(address).connect(&mesh_of(&authority, &id), &id, &control(&authority)).await?;
            known.session().await
        };
        assert!(refused.await.is_err(), "{id}");
    }
    // Nor is a host of somebody else's.
    let other = Authority::new("clinic.example");
    let mesh = Mesh::new(authority.bundles(1));
    mesh.put_identity(identity(&other, &node(&other, "ward")));
    let refused = async {
        let known = Callee(address).connect(&mesh, &node(&other, "ward"), &control(&authority)).await?;
        known.session().await
    };
    assert!(refused.await.is_err());
    // Without any, what a stranger may ask is all there is.
    let mut stranger = crate::client::stranger(address, introduction_client_config().unwrap()).await;
    let session = stranger.session(tokio_stream::once(Json::default())).await;
    assert_eq!(session.unwrap_err().code(), tonic::Code::Unauthenticated);

    let id = node(&authority, "ward");
    let known = Callee(address).connect(&mesh_of(&authority, &id), &id, &control(&authority)).await.unwrap();
    let mut session = known.session().await.unwrap();
    assert_eq!(came.recv().await.unwrap(), "session ward");
    session.way().send(&FromProxy::Ack { revision: 3 }).await.unwrap();
    assert_eq!(came.recv().await.unwrap(), "Ok(Ack { revision: 3 })");
    let told = tokio::time::timeout(SOON, session.next()).await.unwrap();
    assert!(matches!(told, Some(Ok(ToProxy::Renew))), "{told:?}");
    drop(session);
    let left = tokio::time::timeout(SOON, came.recv()).await.unwrap().unwrap();
    assert!(left == "left" || left.starts_with("Err"), "{left}");
    assert!(came.try_recv().is_err(), "nobody else came");
}
