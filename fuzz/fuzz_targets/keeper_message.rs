//! What control may say to the keeper: without a snapshot nothing of it yields a signature.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_keeper::Oracle;
use ringfence_keeper::protocol::{Call, FromSupervisor, Reply, Request};
use ringfence_keys::MasterSource;

static ORACLE: LazyLock<Oracle> = LazyLock::new(|| {
    let data = std::env::temp_dir().join(format!("ringfence-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&data).unwrap();
    let master = MasterSource::KeyFile { path: data.join("master.key") };
    Oracle::open(&data, &master, "clinic", "clinic.example").unwrap()
});

fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<FromSupervisor>(data);
    let Ok(call) = serde_json::from_slice::<Call>(data) else { return };
    // Rotations are allowed, and each is several writes to disk: they have their own tests.
    let rotation = matches!(
        call.request,
        Request::RotateIssuing | Request::RotateRoot(_) | Request::RotateServing(_) | Request::RotateToken(_)
    );
    if rotation {
        return;
    }
    for answer in ORACLE.answer(vec![call]) {
        match answer.result {
            Ok(Reply::X509 { results, .. }) => assert!(results.iter().all(Result::is_err)),
            Ok(Reply::Minted { results }) => assert!(results.iter().all(Result::is_err)),
            // A key for data signs nothing; keys of providers need a snapshot that names them.
            Ok(Reply::Status(_) | Reply::Bundle(_) | Reply::DataKey { .. } | Reply::Done) | Err(_) => {}
            Ok(reply) => panic!("signed without a snapshot: {reply:?}"),
        }
    }
});
