//! Bounds, order, and who may hold what.

use super::*;

#[tokio::test]
async fn a_node_that_floods_is_held_to_its_bounds() {
    let (news, _inbox) = mpsc::channel(4);
    let mut nodes = Nodes::new(news);
    let (_theirs, ours) = UnixStream::pair().unwrap();
    nodes.connect("local", 1, ours).unwrap();
    let (key, subject) = (Der(vec![1; 64]), Subject::Svid("spiffe://x/service/a".into()));
    let turns: Vec<_> = (0..MAX_SIGNING).map_while(|_| nodes.turn("local", &subject, &key, &key)).collect();
    assert_eq!(turns.len(), MAX_SIGNING);
    assert!(nodes.turn("local", &subject, &key, &key).is_none(), "no more at once");
    drop(turns);
    assert!(nodes.turn("local", &subject, &key, &key).is_some());
    let huge = Der(vec![1; MAX_PART + 1]);
    assert!(nodes.turn("local", &subject, &huge, &key).is_none());
    assert!(nodes.turn("local", &Subject::Serving(vec!["x".repeat(MAX_NAMES)]), &key, &key).is_none());
    nodes.note("local", FromProxy::Nack { revision: 1, reason: "ü".repeat(MAX_TEXT) });
    assert!(nodes.nodes["local"].refused.as_ref().unwrap().len() <= MAX_TEXT);
}

#[test]
fn a_host_may_hold_what_runs_on_it_and_nothing_else() {
    let text = "
fence: t
trust_domain: t.example
gateway: { listen: 10.0.0.2:1, at: edge }
hosts:
  main: { mesh: 10.0.0.1:1, control: 10.0.0.1:2 }
  edge: { mesh: 10.0.0.2:2 }
  ward: { mesh: 10.0.0.3:1 }
services:
  portal: { listen: 1, routes: [{ path: / }], at: [edge, ward] }
  patients: { listen: 2, at: ward }
  beside: { listen: 3 }
external:
  mainframe: { address: 127.0.0.1:9, tls: 'off' }
";
    let fence = ringfence_model::Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
    let header = ringfence_snapshot::Header {
        epoch: 1,
        revision: 1,
        issued_at: 0,
        expires_at: 1,
        lease: 1,
        bundle: ringfence_snapshot::Bundle::default(),
    };
    let snapshot =
        ringfence_snapshot::compile(&fence, &mut ringfence_snapshot::Addresses::default(), header).unwrap();
    let all = [
        "service/portal",
        "service/patients",
        "service/beside",
        "service/mainframe",
        "gateway/t",
        "node/ward",
        "control/t",
    ];
    let holds = |node: &str| {
        let may =
            |id: &&str| may_hold(&snapshot, node, &Subject::Svid(format!("spiffe://t.example/{id}"))).is_ok();
        all.into_iter().filter(may).collect::<Vec<_>>()
    };
    assert_eq!(holds("main"), ["service/beside", "service/mainframe"]);
    assert_eq!(holds("edge"), ["service/portal", "gateway/t"]);
    assert_eq!(holds("ward"), ["service/portal", "service/patients"]);
    assert!(holds("cellar").is_empty() && holds("local").is_empty());
    let serving = Subject::Serving(vec!["localhost".into()]);
    assert!(may_hold(&snapshot, "edge", &serving).is_ok() && may_hold(&snapshot, "ward", &serving).is_err());
}

fn numbered(revision: usize) -> SignedSnapshot {
    // Larger than what a socket holds for a reader that does not read.
    SignedSnapshot { bytes: format!("{revision} {}", "x".repeat(1 << 20)), signature: vec![1].into() }
}

/// Revisions and calls to renew (0) as they come, until the revision `last`.
async fn taken(channel: &mut Channel<FromProxy, ToProxy>, last: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    while taken.last() != Some(&last) {
        let next = tokio::time::timeout(Duration::from_secs(60), channel.recv());
        taken.push(match next.await.unwrap().unwrap().0 {
            ToProxy::Snapshot(signed) => signed.bytes.split_once(' ').unwrap().0.parse().unwrap(),
            ToProxy::Renew => 0,
            other => panic!("nothing was asked: {other:?}"),
        });
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_come_in_order_the_newest_wins_and_a_node_that_does_not_read_holds_up_nobody() {
    let (news, _inbox) = mpsc::channel(4);
    let mut nodes = Nodes::new(news);
    let connect = |nodes: &mut Nodes, name: &str| {
        let (theirs, ours) = UnixStream::pair().unwrap();
        nodes.connect(name, 1, ours).unwrap();
        Channel::<FromProxy, ToProxy>::new(theirs).unwrap()
    };
    let (mut slow, mut fast) = (connect(&mut nodes, "slow"), connect(&mut nodes, "fast"));
    nodes.publish(&numbered(1), Vec::new(), None);
    assert_eq!(taken(&mut fast, 1).await, [1]);
    for revision in 2..200 {
        nodes.publish(&numbered(revision), Vec::new(), None);
        if revision % 50 == 0 {
            let taken = taken(&mut fast, revision).await;
            assert!(taken.is_sorted(), "{taken:?}");
        }
    }
    nodes.publish(&numbered(200), Vec::new(), None);
    nodes.renew();
    let all = taken(&mut slow, 0).await;
    let (renew, snapshots) = all.split_last().unwrap();
    assert_eq!((*renew, snapshots.last()), (0, Some(&200)), "renewal comes after the snapshot it is for");
    assert!(snapshots.is_sorted() && snapshots.len() <= 3, "it is not told what is over: {snapshots:?}");
    // One that comes late gets what is in force, once; its earlier channel is given up.
    let mut again = connect(&mut nodes, "slow");
    assert_eq!(taken(&mut again, 200).await, [200]);
    assert!(matches!(slow.recv().await, Err(ChannelError::Closed)));
    nodes.publish(&numbered(201), Vec::new(), None);
    assert_eq!(taken(&mut again, 201).await, [201]);
}

#[tokio::test]
async fn a_proxy_is_brought_the_files_that_it_lacks_and_no_others() {
    let (news, _inbox) = mpsc::channel(64);
    let mut nodes = Nodes::new(news);
    let (theirs, ours) = UnixStream::pair().unwrap();
    nodes.connect("local", 1, ours).unwrap();
    let mut proxy = Channel::<FromProxy, ToProxy>::new(theirs).unwrap();
    let hello = |content: &[&[u8]]| FromProxy::Hello {
        version: "1".into(),
        seen: (0, 0),
        content: content.iter().map(|bytes| Digest::of(bytes)).collect(),
    };
    let parcel = |files: &[&[u8]]| files.iter().map(|bytes| (Digest::of(bytes), Arc::from(*bytes))).collect();
    // Files until the next snapshot.
    async fn brought(proxy: &mut Channel<FromProxy, ToProxy>) -> Vec<Vec<u8>> {
        let mut files: Vec<Vec<u8>> = Vec::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(30), proxy.recv()).await.unwrap() {
                Ok((ToProxy::Content(part), _)) if part.offset == 0 => files.push(part.bytes.0),
                Ok((ToProxy::Content(part), _)) => files.last_mut().unwrap().extend(part.bytes.0),
                Ok((ToProxy::Snapshot(_), _)) => return files,
                other => panic!("{other:?}"),
            }
        }
    }
    let large = vec![7; 600 << 10];
    nodes.publish(&numbered(1), parcel(&[b"a", b"b", &large]), None);
    nodes.note("local", hello(&[b"b", b"old"]));
    assert_eq!(brought(&mut proxy).await, [b"a".to_vec(), large.clone()]);
    nodes.publish(&numbered(2), parcel(&[b"a", b"b", b"c"]), None);
    assert_eq!(brought(&mut proxy).await, [b"c"]);
    nodes.note("local", FromProxy::Nack { revision: 2, reason: "no".into() });
    nodes.publish(&numbered(3), parcel(&[b"a"]), None);
    assert_eq!(brought(&mut proxy).await, [b"a"], "whoever refused gets all of it again");
    nodes.publish(&numbered(4), Vec::new(), None);
    assert_eq!(brought(&mut proxy).await, Vec::<Vec<u8>>::new());
    nodes.publish(&numbered(5), parcel(&[b"a"]), None);
    assert_eq!(brought(&mut proxy).await, [b"a"], "it was forgotten with the snapshot before");
}
