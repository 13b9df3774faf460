//! What a proxy and control may ask the keeper to sign transaction tokens for: no signature of anybody is here, so nothing that needs one yields a
//! token, and what control alone vouches for yields one that is bounded and says what it was made of.
#![no_main]

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use ringfence_keeper::Oracle;
use ringfence_keeper::protocol::{Call, MAX_TXN_LIFE, MintRequest, Reply, Request, ToldRevocations};
use ringfence_keys::{Algorithm, MasterSource, SigningKey, VerifyingKey};
use ringfence_model::Fence;
use ringfence_snapshot::node::{ProviderKeys, Shown};
use ringfence_snapshot::{Addresses, Header, Identity, compile};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{KeySet, Profile};

const FENCE: &str = "
fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, hosts: [clinic.example] }
providers:
  staff:
    issuer: https://id.clinic.example
    audiences: [clinic]
    client: { id: portal, secret: { env: STAFF } }
    login: {}
    opaque: introspect
services:
  portal: { run: [portal], listen: 9000, routes: [{ path: /, accept: [{ login: staff }, { token: staff }, api_key] }] }
";

struct Keeper {
    oracle: Oracle,
    keys: KeySet,
    domain: TrustDomain,
}

static KEEPER: LazyLock<Keeper> = LazyLock::new(|| {
    let data = std::env::temp_dir().join(format!("ringfence-fuzz-mint-{}", std::process::id()));
    std::fs::create_dir_all(&data).unwrap();
    let master = MasterSource::KeyFile { path: data.join("master.key") };
    let oracle = Oracle::open(&data, &master, "clinic", "clinic.example").unwrap();
    let ask = |request| oracle.answer(vec![Call { id: 1, request }]).remove(0).result.unwrap();
    let Reply::Bundle(bundle) = ask(Request::Bundle) else { panic!("a bundle was asked for") };
    let keys = bundle.jwt.iter().map(|k| (k.kid.clone(), VerifyingKey::from_spki(&k.spki.0).unwrap()));
    let keys = KeySet::from_keys(keys);
    let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap();
    let header =
        Header { epoch: 1, revision: 1, issued_at: now(), expires_at: now() + 86_400, lease: 600, bundle };
    let snapshot = compile(&fence, &mut Addresses::default(), header).unwrap();
    ask(Request::SignSnapshot { bytes: serde_json::to_string(&snapshot).unwrap() });
    ask(Request::Revocations(ToldRevocations::Part { first: true, last: true, entries: Vec::new() }));
    let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
    let jwks = KeySet::from_keys([("k".to_owned(), key.verifying_key().clone())]).to_json("sig");
    let issuer = "https://id.clinic.example".to_owned();
    ask(Request::ProviderKeys(ProviderKeys { provider: "staff".into(), issuer, jwks, until: u64::MAX }));
    Keeper { oracle, keys, domain: TrustDomain::new("clinic.example").unwrap() }
});

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fuzz_target!(|data: &[u8]| {
    let Ok(requests) = serde_json::from_slice::<Vec<MintRequest>>(data) else { return };
    let vouched: Vec<bool> =
        requests.iter().map(|r| matches!(r.ask.shown, Shown::ApiKey(_) | Shown::Opaque { .. })).collect();
    let keeper = &*KEEPER;
    let answer = keeper.oracle.answer(vec![Call { id: 1, request: Request::MintTxn { requests } }]).remove(0);
    let results = match answer.result {
        Ok(Reply::Minted { results }) => results,
        Ok(reply) => panic!("not asked for: {reply:?}"),
        Err(_) => return,
    };
    for (result, vouched) in results.into_iter().zip(vouched) {
        let Ok(token) = result else { continue };
        assert!(vouched, "a token for a credential that nobody signed");
        assert!(token.expires_at <= now() + MAX_TXN_LIFE);
        let verified =
            Profile::txn_token(&keeper.domain).verify(token.token.expose(), &keeper.keys, now()).unwrap();
        let identity = Identity::of_transaction(&verified).unwrap();
        assert!(matches!(identity.provider.as_str(), "api_key" | "staff"));
        assert_eq!(verified.workload(), Some("spiffe://clinic.example/gateway/clinic"));
        assert!(verified.scopes().eq(identity.scopes.iter().map(String::as_str)));
    }
});
