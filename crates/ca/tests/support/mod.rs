//! A keeper, a store, a CA and a served Workload API socket, all real, in this process.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "tests of the keeper use the rest")]
#[path = "../../../keeper/tests/common/mod.rs"]
pub(crate) mod common;

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use ringfence_ca::workload::{Limits, Serving, WorkloadApi, WorkloadEvent, WorkloadListener};
use ringfence_ca::{Ca, Options};
use ringfence_store::{Durability, Store};
use tokio::sync::mpsc;

pub(crate) struct World {
    pub(crate) data: tempfile::TempDir,
    pub(crate) keeper: common::Keeper,
    pub(crate) store: Store,
    pub(crate) ca: Ca,
    pub(crate) api: WorkloadApi,
    pub(crate) events: mpsc::Receiver<WorkloadEvent>,
}

pub(crate) async fn world(options: Options, limits: Limits) -> World {
    let data = tempfile::tempdir().unwrap();
    let keeper = common::serving(data.path()).await;
    let store = Store::open(&data.path().join("state.db"), Durability::Full).await.unwrap();
    let ca = Ca::start(keeper.client.clone(), store.clone(), options).await.unwrap();
    let (api, events) = WorkloadApi::new(ca.clone(), limits);
    World { data, keeper, store, ca, api, events }
}

impl World {
    pub(crate) fn socket(&self, service: &str) -> PathBuf {
        self.data.path().join(format!("{service}.sock"))
    }

    /// Serves the socket of `service`, whose network is the one of this test.
    pub(crate) fn serve(&self, service: &str) -> Serving {
        let listener = UnixListener::bind(self.socket(service)).unwrap();
        let netns_inode = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        self.api.serve(WorkloadListener { service: service.into(), listener, netns_inode }).unwrap()
    }

    pub(crate) async fn client(&self, service: &str) -> spiffe::WorkloadApiClient {
        spiffe::WorkloadApiClient::connect_to(format!("unix:{}", self.socket(service).display()))
            .await
            .unwrap()
    }
}

/// A Python with the package `spiffe`: the one that `cargo xtask test` puts first on the path, or keeps under `target`.
pub(crate) fn python_with_spiffe() -> &'static PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
        let has = |python: &PathBuf| {
            let check = "import importlib.metadata as m; assert m.version('spiffe') == '0.3.2'";
            Command::new(python).args(["-c", check]).output().is_ok_and(|o| o.status.success())
        };
        let found = [PathBuf::from("python3"), target.join("venv/bin/python3")].into_iter().find(has);
        found.expect(
            "no Python has the package spiffe 0.3.2: run the tests by `cargo xtask test`, which installs it",
        )
    })
}
