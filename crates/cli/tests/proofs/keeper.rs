//! Control under full control of an attacker: the test speaks its channel to the real keeper, and asks for everything.

use std::io::Write;
use std::time::Duration;

use ringfence_channel::BlockingChannel;
use ringfence_keeper::protocol::{
    Answer, Call, JwtRequest, MAX_BATCH, MAX_JWT_LIFE, MAX_SERVING_LIFE, MAX_SVID_LIFE, RefusalCode, Reply,
    Request, ServingRequest, Step, X509Request,
};
use ringfence_snapshot::SignedSnapshot;
use ringfence_snapshot::node::Subject;
use serde_json::{Value, json};

use crate::rig::{PORTAL, Rig, Wish};

/// Control's end of its channel.
pub(crate) struct Taken(BlockingChannel<Call, Answer>);

impl Taken {
    pub(crate) fn over(rig: &Rig) -> Self {
        let channel = BlockingChannel::new(rig.supervised.introduce_control().unwrap());
        channel.set_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(channel)
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Reply, RefusalCode> {
        self.0.send(&Call { id: 7, request }, &[]).unwrap();
        self.0.recv().unwrap().0.result.map_err(|refusal| refusal.code)
    }

    /// Says something that no control says; the channel ends with it.
    pub(crate) fn say(self, nonsense: &str) {
        let length = u32::try_from(nonsense.len()).unwrap().to_le_bytes();
        self.0.socket().write_all(&[&length[..], nonsense.as_bytes()].concat()).unwrap();
        assert!(self.0.recv().is_err(), "{nonsense}");
    }

    fn svid(&self, id: &str, ttl: u64) -> Result<(), RefusalCode> {
        let (Wish { spki, proof, .. }, _) = Wish::svid(id);
        let request = X509Request { id: id.into(), spki, proof, ttl };
        match self.ask(Request::IssueX509 { requests: vec![request] })? {
            Reply::X509 { results, .. } => {
                results.into_iter().next().unwrap().map(drop).map_err(|refusal| refusal.code)
            }
            other => panic!("{other:?}"),
        }
    }

    fn sign(&self, snapshot: &Value) -> Result<(), RefusalCode> {
        self.ask(Request::SignSnapshot { bytes: snapshot.to_string() }).map(drop)
    }
}

/// The snapshot in force, with a higher revision.
fn next(signed: &SignedSnapshot) -> Value {
    let mut snapshot: Value = serde_json::from_str(&signed.bytes).unwrap();
    snapshot["revision"] = json!(snapshot["revision"].as_u64().unwrap() + 1);
    snapshot
}

#[test]
fn a_taken_over_control_gets_nothing_signed_that_its_last_snapshot_does_not_allow() {
    let mut rig = Rig::new("taken");
    let control = rig.control();
    let signed = control.node().snapshot();
    let taken = Taken::over(&rig);
    assert_eq!(taken.svid(PORTAL, 60), Ok(()));
    for id in [
        "spiffe://clinic.example/service/ledger",
        "spiffe://bank.example/service/portal",
        "spiffe://clinic.example/node/local",
        "spiffe://clinic.example/gateway/other",
    ] {
        assert_eq!(taken.svid(id, 60), Err(RefusalCode::NotAllowed), "{id}");
    }
    for ttl in [0, MAX_SVID_LIFE + 1, u64::MAX] {
        assert_eq!(taken.svid(PORTAL, ttl), Err(RefusalCode::Malformed), "{ttl}");
    }
    let serving = |hosts: &[&str], ttl| {
        let Wish { subject: Subject::Serving(hosts), spki, proof } = Wish::serving(hosts) else {
            unreachable!()
        };
        taken.ask(Request::IssueServing(ServingRequest { hosts, spki, proof, ttl })).map(drop)
    };
    assert_eq!(serving(&["127.0.0.1"], 60), Ok(()));
    assert_eq!(serving(&["bank.example"], 60), Err(RefusalCode::NotAllowed));
    assert_eq!(serving(&["127.0.0.1"], MAX_SERVING_LIFE + 1), Err(RefusalCode::Malformed));
    let jwt = |id: &str, audiences: &[&str], ttl| {
        let audiences = audiences.iter().map(|a| (*a).to_owned()).collect();
        taken.ask(Request::SignJwtSvid(JwtRequest { id: id.into(), audiences, ttl })).map(drop)
    };
    assert_eq!(jwt(PORTAL, &["billing"], 60), Ok(()));
    assert_eq!(jwt("spiffe://bank.example/service/portal", &["billing"], 60), Err(RefusalCode::NotAllowed));
    assert_eq!(jwt(PORTAL, &[], 60), Err(RefusalCode::Malformed));
    assert_eq!(jwt(PORTAL, &["billing"], MAX_JWT_LIFE + 1), Err(RefusalCode::Malformed));

    // Snapshots: the same again, an older one, another fence's, one with somebody else's authority, an endless one.
    let same: Value = serde_json::from_str(&signed.bytes).unwrap();
    assert_eq!(taken.sign(&same), Err(RefusalCode::Rollback));
    let change = |member: &str, value: Value| {
        let mut snapshot = next(&signed);
        snapshot[member] = value;
        taken.sign(&snapshot)
    };
    assert_eq!(change("revision", json!(0)), Err(RefusalCode::Rollback));
    assert_eq!(change("epoch", json!(0)), Err(RefusalCode::Rollback));
    assert_eq!(change("fence", json!("other")), Err(RefusalCode::NotAllowed));
    assert_eq!(change("trust_domain", json!("bank.example")), Err(RefusalCode::NotAllowed));
    assert_eq!(change("expires_at", json!(u64::MAX)), Err(RefusalCode::Malformed));
    assert_eq!(change("unknown", json!(1)), Err(RefusalCode::Malformed));
    for (group, authority) in
        [("x509", &same["bundle"]["serving"][0]), ("serving", &same["bundle"]["x509"][0])]
    {
        let mut snapshot = next(&signed);
        snapshot["bundle"][group].as_array_mut().unwrap().push(authority.clone());
        assert_eq!(taken.sign(&snapshot), Err(RefusalCode::NotAllowed), "{group}");
    }
    // Nor does a key of one kind of token become one of the other.
    for (group, other) in [("jwt", "txn"), ("txn", "jwt")] {
        let mut snapshot = next(&signed);
        snapshot["bundle"][group] = same["bundle"][other].clone();
        assert_eq!(taken.sign(&snapshot), Err(RefusalCode::NotAllowed), "{group}");
    }
    let mut snapshot = next(&signed);
    snapshot["bundle"]["jwt"][0]["spki"] = same["bundle"]["x509"][0].clone();
    assert_eq!(taken.sign(&snapshot), Err(RefusalCode::NotAllowed));
    // Nothing of all that became the snapshot in force; one that is in order does.
    assert_eq!(taken.svid(PORTAL, 60), Ok(()));
    assert_eq!(taken.sign(&next(&signed)), Ok(()));
    // What signs next must have been announced.
    assert_eq!(taken.ask(Request::RotateRoot(Step::Activate)).unwrap_err(), RefusalCode::NotNow);
    assert_eq!(
        taken.ask(Request::RotateRoot(Step::Retire { force: false })).unwrap_err(),
        RefusalCode::NotNow
    );
    let crowd =
        vec![
            X509Request { id: PORTAL.into(), spki: Vec::new().into(), proof: Vec::new().into(), ttl: 1 };
            MAX_BATCH + 1
        ];
    assert_eq!(taken.ask(Request::IssueX509 { requests: crowd }).unwrap_err(), RefusalCode::Malformed);
    assert!(rig.keeper.lives());
}

#[test]
fn nonsense_ends_the_channel_of_whoever_says_it_and_the_keeper_goes_on() {
    let mut rig = Rig::new("nonsense");
    let control = rig.control();
    drop(control);
    for bytes in [&u32::MAX.to_le_bytes()[..], b"\x04\0\0\0nope", b"\x02\0\0\0{}", b"\xff\0\0\0{"] {
        let taken = Taken::over(&rig);
        taken.0.socket().write_all(bytes).unwrap();
        taken.0.socket().shutdown(std::net::Shutdown::Write).unwrap();
        assert!(taken.0.recv().is_err(), "{bytes:02x?}");
        assert_eq!(Taken::over(&rig).svid(PORTAL, 60), Ok(()), "after {bytes:02x?}");
    }
    // One that asks without taking answers blocks itself, and is over when the next is introduced.
    let deaf = Taken::over(&rig);
    deaf.0.socket().set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut asked = 0;
    while asked < 100_000 && deaf.0.send(&Call { id: 1, request: Request::Bundle }, &[]).is_ok() {
        asked += 1;
    }
    let grown = rig.keeper.resident();
    assert!(grown < 300 * 1024, "the keeper has {grown} kB after {asked} requests");
    assert_eq!(Taken::over(&rig).svid(PORTAL, 60), Ok(()));
    assert!(rig.keeper.lives());
}
