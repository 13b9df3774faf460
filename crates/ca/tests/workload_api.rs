//! The Workload API as its clients see it: the crate `spiffe`, the Python package `spiffe`, and who must get nothing.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringfence_ca::workload::{Limits, WorkloadEvent, wire};
use ringfence_ca::{CaError, Options};
use ringfence_keeper::protocol::Step;
use support::common::{FENCE, sign, snapshot, verify};
use support::{World, python_with_spiffe, world};
use tokio_stream::StreamExt;

const PORTAL: &str = "spiffe://clinic.example/service/portal";

async fn default_world() -> World {
    world(Options::default(), Limits::default()).await
}

fn chain(svid: &spiffe::X509Svid) -> Vec<Vec<u8>> {
    svid.cert_chain().iter().map(|c| c.as_bytes().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crate_spiffe_fetches_svids_and_bundles_and_validates_tokens() {
    let world = default_world().await;
    let _serving = world.serve("portal");
    let client = world.client("portal").await;
    let svid = client.fetch_x509_svid().await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), PORTAL);
    assert_eq!(verify(&chain(&svid), &world.ca.bundle().borrow()).unwrap().id().as_str(), PORTAL);
    let domain = spiffe::TrustDomain::new("clinic.example").unwrap();
    let bundles = client.fetch_x509_bundles().await.unwrap();
    assert_eq!(bundles.get(&domain).unwrap().authorities().len(), 1);
    let context = client.fetch_x509_context().await.unwrap();
    assert_eq!(context.default_svid().unwrap().cert_chain().len(), 2);

    let token = client.fetch_jwt_token(["billing"], None).await.unwrap();
    let svid = client.validate_jwt_token("billing", &token).await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), PORTAL);
    assert!(client.validate_jwt_token("mailer", &token).await.is_err());
    assert!(client.validate_jwt_token("billing", &token.replace('.', "..")).await.is_err());
    let keys = client.fetch_jwt_bundles().await.unwrap();
    let keys = keys.get(&domain).unwrap();
    assert!(keys.find_jwt_authority(svid.key_id()).is_some());
    // Who checks JWT-SVIDs does not learn of the key that signs our other tokens.
    let txn = world.ca.bundle().borrow().txn.clone();
    assert_eq!((txn.len(), keys.jwt_authorities().count()), (1, 1));
    assert!(keys.find_jwt_authority(&txn[0].kid).is_none());
    let foreign = "spiffe://clinic.example/service/billing".parse().unwrap();
    assert!(client.fetch_jwt_token(["billing"], Some(&foreign)).await.is_err());
    // All of it was recorded before it was given out.
    assert!(world.store.issued(0).await.unwrap().iter().any(|issued| issued.kind == "jwt"));
    assert_eq!(world.store.verify_audit().await.unwrap().records, world.store.revision());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_push_the_next_svid_and_both_roots_of_a_rotation() {
    let world = default_world().await;
    let _serving = world.serve("portal");
    let client = world.client("portal").await;
    let mut contexts = client.stream_x509_contexts().await.unwrap();
    let mut next = async || {
        let context =
            tokio::time::timeout(Duration::from_secs(90), contexts.next()).await.unwrap().unwrap().unwrap();
        let svid = context.default_svid().unwrap().clone();
        let domain = svid.spiffe_id().trust_domain().clone();
        (chain(&svid), context.bundle_set().get(&domain).unwrap().authorities().len())
    };
    let (first, roots) = next().await;
    assert_eq!(roots, 1);
    world.ca.rotate_root("test", Step::Prepare).await.unwrap();
    let (mut same, mut roots) = next().await;
    while roots == 1 {
        (same, roots) = next().await;
    }
    assert_eq!((same == first, roots), (true, 2));
    sign(&world.keeper.client, 2).await.unwrap();
    world.ca.rotate_root("test", Step::Activate).await.unwrap();
    // The bundle's generation and the SVID change; they may arrive in two messages.
    let mut now = next().await;
    while now.0 == first {
        now = next().await;
    }
    assert_eq!(now.1, 2);
    let bundle = world.ca.bundle().borrow().clone();
    verify(&first, &bundle).unwrap();
    verify(&now.0, &bundle).unwrap();
    assert!(!world.ca.maintain().await.unwrap(), "the old root is still needed");
    assert_eq!(world.ca.bundle().borrow().x509.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_is_renewed_at_half_of_its_life_while_a_stream_is_open() {
    const LIFE: u64 = 6;
    let world = world(Options { svid_life: LIFE, ..Options::default() }, Limits::default()).await;
    let _serving = world.serve("portal");
    let client = world.client("portal").await;
    let mut stream = client.stream_x509_svids().await.unwrap();
    let start = Instant::now();
    let (mut seen, mut ends) = (std::collections::BTreeSet::new(), Vec::new());
    while seen.len() < 4 {
        let svid =
            tokio::time::timeout(Duration::from_secs(90), stream.next()).await.unwrap().unwrap().unwrap();
        let peer = verify(&chain(&svid), &world.ca.bundle().borrow()).unwrap();
        if seen.insert(chain(&svid).remove(0)) {
            ends.push(peer.not_after_unix());
        }
    }
    let spent = start.elapsed();
    assert!(spent > Duration::from_secs(3), "{spent:?}");
    // Three times; none of them at the end of the one before.
    assert!(ends.windows(2).all(|two| two[1] - two[0] < LIFE), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_service_gets_another_svid_or_none_at_all_until_that_is_taken_back() {
    let world = default_world().await;
    let _serving = world.serve("portal");
    let client = world.client("portal").await;
    let token = client.fetch_jwt_token(["billing"], None).await.unwrap();
    let mut stream = client.stream_x509_svids().await.unwrap();
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(90), stream.next()).await.unwrap().unwrap();
    let first = chain(&next().await.unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();

    // What it was issued so far: it is given another at once, and what it said before is not believed.
    assert!(world.ca.set_revoked([(PORTAL.to_owned(), now)]));
    assert!(!world.ca.set_revoked([(PORTAL.to_owned(), now)]), "that is no news");
    assert_ne!(chain(&next().await.unwrap()), first);
    assert!(client.validate_jwt_token("billing", &token).await.is_err());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let token = client.fetch_jwt_token(["billing"], None).await.unwrap();
    client.validate_jwt_token("billing", &token).await.unwrap();

    // As a whole: nothing, to nobody.
    assert!(world.ca.set_revoked([(PORTAL.to_owned(), u64::MAX)]));
    // The stream ends as for a stranger, after what was on its way.
    while next().await.is_ok() {}
    assert!(
        client.fetch_x509_svid().await.is_err() && client.fetch_jwt_token(["billing"], None).await.is_err()
    );
    assert!(client.validate_jwt_token("billing", &token).await.is_err());
    assert!(world.ca.set_revoked([]));
    let again = async {
        while client.fetch_x509_svid().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), again).await.unwrap();
    client.fetch_jwt_token(["billing"], None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_package_spiffe_gets_everything_it_asks_for() {
    let world = default_world().await;
    let _serving = world.serve("portal");
    let lines = run_python(&world, &[]).await;
    let line = |name: &str| lines.iter().find_map(|line| line.get(name)).unwrap().clone();
    assert_eq!(line("x509")["id"], PORTAL, "{lines:?}");
    assert_eq!(line("x509")["chain"], 2);
    assert_eq!(line("bundles")["roots"], 1);
    assert_eq!(line("jwt")["audience"], serde_json::json!(["billing", "mailer"]));
    assert_eq!(line("validate")["id"], PORTAL);
    assert_eq!(line("jwt_bundles")["keys"], 1);
    assert!(line("foreign")["error"].is_string());
    let serial = line("x509")["serial"].as_str().unwrap().to_owned();
    assert!(world.store.issued_serial(&serial).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_in_another_network_namespace_gets_nothing() {
    let mut world = default_world().await;
    let _serving = world.serve("portal");
    let unshare: &[&str] = if rustix::process::geteuid().is_root() {
        &["unshare", "--net"]
    } else {
        &["unshare", "--map-root-user", "--net"]
    };
    let lines = run_python(&world, unshare).await;
    assert_eq!(lines.len(), 6);
    for line in &lines {
        let text = line.to_string();
        assert!(text.contains("PERMISSION_DENIED"), "{text}");
        assert!(!text.contains("spiffe://") && !text.contains("\"id\""), "{text}");
    }
    let mut reasons: Vec<String> = Vec::new();
    while !reasons.iter().any(|reason| reason.contains("not in the service's")) {
        let told = tokio::time::timeout(Duration::from_secs(60), world.events.recv()).await;
        let event = told.unwrap_or_else(|_| panic!("{reasons:?}")).unwrap();
        assert!(!matches!(event, WorkloadEvent::Attested { .. } | WorkloadEvent::Issued { .. }), "{event:?}");
        if let WorkloadEvent::Refused { reason, .. } = event {
            reasons.push(reason);
        }
    }
    while let Ok(event) = world.events.try_recv() {
        assert!(!matches!(event, WorkloadEvent::Attested { .. } | WorkloadEvent::Issued { .. }), "{event:?}");
    }
    assert_eq!(world.store.issued(0).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_left_the_fence_is_told_nothing_more() {
    let world = default_world().await;
    let _serving = world.serve("billing");
    let client = world.client("billing").await;
    client.fetch_x509_svid().await.unwrap();
    let mut stream = client.stream_x509_svids().await.unwrap();
    stream.next().await.unwrap().unwrap();
    let without = FENCE.replace(", calls: [billing]", "").replace("billing:", "payments:");
    let bundle = world.ca.bundle().borrow().as_ref().clone();
    world.ca.sign_snapshot(serde_json::to_string(&snapshot(&without, 2, bundle)).unwrap()).await.unwrap();
    world.ca.rotate_issuing("test").await.unwrap();
    let last = tokio::time::timeout(Duration::from_secs(90), stream.next()).await.unwrap().unwrap();
    assert!(format!("{:?}", last.unwrap_err()).contains("NoIdentityIssued"));
    assert!(client.fetch_x509_svid().await.is_err());
    assert!(client.fetch_jwt_token(["portal"], None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_asks_too_often_is_slowed_and_others_are_not() {
    let limits = Limits { rate: 1, burst: 5, streams: 2, connections: 3 };
    let world = world(Options::default(), limits).await;
    let _portal = world.serve("portal");
    let _billing = world.serve("billing");
    let client = world.client("portal").await;
    let (start, mut refused) = (Instant::now(), 0);
    for _ in 0..20 {
        refused += u32::from(client.fetch_x509_svid().await.is_err());
    }
    // One comes back each second.
    let may = 5 + start.elapsed().as_secs() as u32 + 1;
    assert!(refused >= 1 && refused + may >= 20, "{refused}, {may} may pass");
    world.client("billing").await.fetch_x509_svid().await.unwrap();
}

/// A connected socket is handed to another process, and the one that connected ends: the identity ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_inherited_from_a_process_that_ended_is_worth_nothing() {
    let mut world = default_world().await;
    let _serving = world.serve("portal");
    let hand_over = world.data.path().join("hand-over.sock");
    let listener = UnixListener::bind(&hand_over).unwrap();
    let script = "import socket,struct,sys\n\
        s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n\
        c=socket.socket(socket.AF_UNIX);c.connect(sys.argv[2])\n\
        socket.send_fds(c,[struct.pack('<I',4)+b'null'],[s.fileno()])\n\
        sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .args([world.socket("portal"), hand_over])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let (channel, _) = listener.accept().unwrap();
    let (_, fds) = ringfence_channel::BlockingChannel::<(), ()>::new(channel).recv().unwrap();
    let socket = UnixStream::from(fds.into_iter().next().unwrap());
    socket.set_nonblocking(true).unwrap();
    let mut socket = Some(tokio::net::UnixStream::from_std(socket).unwrap());
    let connector = tower::service_fn(move |_| {
        let socket = socket.take();
        async move { socket.map(hyper_util::rt::TokioIo::new).ok_or_else(|| std::io::Error::other("used")) }
    });
    let channel = tonic::transport::Endpoint::from_static("http://workload")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    let mut call = async || {
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(wire::X509SvidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
        let codec = tonic_prost::ProstCodec::<_, wire::X509SvidResponse>::default();
        let path = "/SpiffeWorkloadAPI/FetchX509SVID".parse().unwrap();
        grpc.server_streaming(request, path, codec).await
    };
    let mut stream = call().await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().svids[0].spiffe_id, PORTAL);
    child.kill().unwrap();
    child.wait().unwrap();
    let end = tokio::time::timeout(Duration::from_secs(90), stream.message()).await.unwrap();
    assert!(matches!(end, Ok(None)), "{end:?}");
    assert_eq!(call().await.unwrap_err().code(), tonic::Code::PermissionDenied);
    // The digest of a large program takes its time.
    let attested = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let WorkloadEvent::Attested { workload, digest, .. } = world.events.recv().await.unwrap() {
                return (workload, digest);
            }
        }
    });
    let attested = attested.await.unwrap();
    assert_eq!(attested.0.pid, child.id());
    assert!(attested.0.program.contains("python") && attested.1.unwrap().len() == 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_the_security_header_is_refused() {
    let world = default_world().await;
    let _serving = world.serve("portal");
    let path = world.socket("portal");
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel = tonic::transport::Endpoint::from_static("http://workload")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    for header in [None, Some("false")] {
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(wire::JwtBundlesRequest {});
        if let Some(value) = header {
            request.metadata_mut().insert("workload.spiffe.io", value.parse().unwrap());
        }
        let codec = tonic_prost::ProstCodec::<_, wire::JwtBundlesResponse>::default();
        let path = "/SpiffeWorkloadAPI/FetchJWTBundles".parse().unwrap();
        let outcome = grpc.server_streaming(request, path, codec).await;
        assert_eq!(outcome.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_keeper_is_away_what_was_issued_is_still_served_and_a_new_keeper_takes_over() {
    let mut world = default_world().await;
    let _serving = world.serve("portal");
    let client = world.client("portal").await;
    let before = client.fetch_x509_svid().await.unwrap();
    let World { keeper, data, ca, .. } = &mut world;
    let elsewhere = tempfile::tempdir().unwrap();
    std::mem::replace(keeper, support::common::keeper(elsewhere.path())).stop();
    assert!(matches!(ca.show().await, Err(CaError::Keeper(_))));
    let during = client.fetch_x509_svid().await.unwrap();
    assert_eq!(chain(&before), chain(&during));
    *keeper = support::common::keeper(data.path());
    ca.set_keeper(keeper.client.clone());
    ca.rotate_issuing("test").await.unwrap();
}

async fn run_python(world: &World, prefix: &[&str]) -> Vec<serde_json::Value> {
    let python = tokio::task::spawn_blocking(python_with_spiffe).await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spiffe_client.py");
    let mut words: Vec<std::ffi::OsString> = prefix.iter().map(Into::into).collect();
    words.extend([python.into(), script.into(), world.socket("portal").into()]);
    let mut command = Command::new(words.remove(0));
    command.args(words);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    std::io::stderr().write_all(&output.stderr).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
