//! The root's key out of the keeper and back, with a keeper of this command's own: the fence must not run.
//!
//! Not over the control socket, because control must never see the passphrase or the package, and because who may end a
//! root's life is whoever has the data directory and the master key, not whoever can open a socket.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ringfence_channel::{BlockingChannel, cloexec_pair};
use ringfence_event::{Entity, Event, Kind, Writer, WriterOptions};
use ringfence_keeper::Supervised;
use ringfence_keeper::protocol::{Answer, Call, Reply, Request, Stage, Start, Status};
use ringfence_keys::{Secret, file};
use ringfence_model::Fence;
use ringfence_snapshot::Der;
use serde_json::json;

use super::offline_until;
use crate::args::MasterArgs;
use crate::data::{DataDir, Lock};
use crate::env::Env;
use crate::prompt;
use crate::up;
use crate::view::Failure;

/// Largest package that is read.
const MAX_PACKAGE: u64 = 64 * 1024;
/// How long the keeper may take to end once it is told to.
const GRACE: Duration = Duration::from_secs(5);

/// Which fence is meant, and what opens its keys.
pub(super) struct Place<'a> {
    pub(super) fence: &'a Path,
    pub(super) data: &'a Path,
    pub(super) master: &'a MasterArgs,
    pub(super) env: &'a Env,
}

/// What became of the root.
pub(super) struct Moved {
    root: String,
    package: PathBuf,
    issuing_until: Option<String>,
}

/// Takes the root offline.
pub(super) fn export(place: &Place<'_>, out: &Path) -> Result<Moved, Failure> {
    let keeper = Keeper::start(place)?;
    let root = keeper.root()?;
    if !keeper.status()?.roots.iter().any(|r| r.id == root && r.online) {
        return Err(Failure::Cannot("the root is offline already".into()));
    }
    let out = std::path::absolute(out)?;
    let folder = out.parent().and_then(|folder| folder.canonicalize().ok());
    let Some(folder) = folder else {
        return Err(Failure::Wrong(format!("{} is in no folder that exists", out.display())));
    };
    if folder.starts_with(place.data.canonicalize()?) {
        let why = "is inside the data directory: whoever copies that would have the root too; name a file elsewhere";
        return Err(Failure::Wrong(format!("{} {why}", out.display())));
    }
    let cannot = |e: std::io::Error| Failure::Cannot(format!("cannot write {}: {e}", out.display()));
    // Before anybody types a passphrase, and never over something that is there.
    let mut sink = file::create_private(&out).map_err(cannot)?;
    let written = (|| {
        let passphrase = chosen_passphrase(place.env)?;
        let package = keeper.supervised.export_root(passphrase.clone())?;
        sink.write_all(&package.0).and_then(|()| sink.sync_all()).map_err(cannot)?;
        file::sync_directory(&folder).map_err(cannot)?;
        // What is there, not what was meant to be.
        Ok((read(&out)?, passphrase))
    })();
    let (package, passphrase) = match written {
        Ok(written) => written,
        Err(failure) => {
            let _ = std::fs::remove_file(&out);
            return Err(failure);
        }
    };
    if let Err(e) = keeper.supervised.forget_root(package, passphrase) {
        let why =
            format!("{e}; {} holds a copy of the root's key: delete it, or keep it as secret", out.display());
        return Err(Failure::Cannot(why));
    }
    keeper.event(&root, 4, "taken offline by the operator: its key is in a package elsewhere");
    let issuing_until = offline_until(&keeper.status()?);
    Ok(Moved { root, package: out, issuing_until })
}

/// Brings the root back for good.
pub(super) fn import(place: &Place<'_>, package: &Path) -> Result<Moved, Failure> {
    let (bytes, keeper) = (read(package)?, Keeper::start(place)?);
    let root = keeper.root()?;
    keeper.supervised.import_root(bytes, passphrase(place.env)?, true)?;
    keeper.event(&root, 1, "brought back by the operator: its key is with the keeper");
    Ok(Moved { root, package: package.to_owned(), issuing_until: None })
}

/// A new issuing CA, signed by a root that is back for this moment only.
pub(super) fn rotate(place: &Place<'_>, package: &Path) -> Result<Status, Failure> {
    let (bytes, keeper) = (read(package)?, Keeper::start(place)?);
    keeper.supervised.import_root(bytes, passphrase(place.env)?, false)?;
    let status = keeper.ask(Request::RotateIssuing)?;
    keeper.event(&keeper.root()?, 3, "signed a new issuing CA from its package; it is offline as before");
    Ok(status)
}

impl Moved {
    pub(super) fn say(&self, json: bool) -> ExitCode {
        let package = self.package.display();
        if json {
            let online = self.issuing_until.is_none();
            let value = json!({ "root": self.root, "online": online, "package": self.package, "issuing_until": self.issuing_until });
            println!("{value}");
        } else if let Some(until) = &self.issuing_until {
            println!(
                "the root's key is in {package} and nowhere else: keep the file and its passphrase, each apart from this machine"
            );
            println!(
                "the fence runs as before; only a new issuing CA needs the root, and the present one ends {until}"
            );
            println!("before then stop `up` and run: ringfence ca rotate issuing --package FILE");
        } else {
            println!("the root's key is with the keeper again; {package} and its passphrase still open it");
        }
        ExitCode::SUCCESS
    }
}

/// A keeper of our own, on a data directory that nobody else works in.
struct Keeper {
    supervised: Supervised,
    data: DataDir,
    _process: Ending,
    _lock: Lock,
}

impl Keeper {
    fn start(place: &Place<'_>) -> Result<Self, Failure> {
        // It will hold a passphrase: nobody of the same user is to look into it.
        ringfence_channel::sys::set_undumpable()?;
        let fence = Fence::load(place.fence).map_err(|d| Failure::Wrong(d.to_string()))?;
        if !place.data.join("keeper/authority.json").exists() {
            let why = "there are no keys yet: start the fence once with `ringfence up`, or name its data directory with --data DIR";
            return Err(Failure::Cannot(format!("{}: {why}", place.data.display())));
        }
        let data = DataDir::locate(place.fence, Some(place.data))?;
        let lock = data.lock()?;
        let master = up::master(&place.master.choice(), &data, place.env)?;
        let (ours, theirs) = cloexec_pair()?;
        let child = Command::new("/proc/self/exe")
            .arg("keeper")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let process = Ending(child);
        let start = Start {
            data: data.root().to_owned(),
            master,
            fence: fence.name.clone(),
            trust_domain: fence.trust_domain.clone(),
        };
        Ok(Self { supervised: Supervised::start(ours, start)?, data, _process: process, _lock: lock })
    }

    /// As control asks.
    fn ask(&self, request: Request) -> Result<Status, Failure> {
        let channel = BlockingChannel::<Call, Answer>::new(self.supervised.introduce_control()?);
        channel.send(&Call { id: 1, request }, &[])?;
        match channel.recv()?.0.result? {
            Reply::Status(status) => Ok(*status),
            _ => Err(Failure::Cannot("the keeper answered something else than was asked".into())),
        }
    }

    fn status(&self) -> Result<Status, Failure> {
        self.ask(Request::Status)
    }

    /// The active root's identifier.
    fn root(&self) -> Result<String, Failure> {
        let roots = self.status()?.roots;
        let root = roots.into_iter().find(|root| root.stage == Stage::Active);
        root.map(|root| root.id).ok_or_else(|| Failure::Cannot("no root is active".into()))
    }

    /// Told like all that is done with an authority; what was done stays done if it cannot be.
    fn event(&self, root: &str, activity: u8, message: &str) {
        match Writer::open(&self.data.events(), "ca", WriterOptions::default()) {
            Ok(writer) => {
                let entity =
                    Entity { entity: "root", name: root, uid: None, activity, granted: true, message };
                writer.emitter().emit(&Event::new(Kind::Entity(entity)));
            }
            Err(e) => eprintln!("ringfence: the event could not be written: {e}"),
        }
    }
}

/// A keeper that ends by itself once its channel is closed.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let until = Instant::now() + GRACE;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.0.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn read(package: &Path) -> Result<Der, Failure> {
    match file::read_bounded(package, MAX_PACKAGE, 0o077) {
        Ok(Some(bytes)) => Ok(Der(bytes)),
        Ok(None) => Err(Failure::Wrong(format!("{} does not exist", package.display()))),
        Err(e) => Err(Failure::Cannot(e.to_string())),
    }
}

/// The passphrase of a package that exists.
fn passphrase(env: &Env) -> Result<Secret<String>, Failure> {
    match &env.root_passphrase {
        Some(passphrase) => Ok(Secret::new(passphrase.clone())),
        None => ask("passphrase of the exported root: "),
    }
}

/// One for a package that is to be made: typed twice, because nobody can see it.
fn chosen_passphrase(env: &Env) -> Result<Secret<String>, Failure> {
    if env.root_passphrase.is_some() {
        return passphrase(env);
    }
    let (once, twice) = (ask("passphrase for the exported root: ")?, ask("the same again: ")?);
    if ringfence_keys::constant_time_eq(once.expose().as_bytes(), twice.expose().as_bytes()) {
        return Ok(once);
    }
    Err(Failure::Wrong("the two passphrases differ; nothing was changed".into()))
}

fn ask(question: &str) -> Result<Secret<String>, Failure> {
    let asked = prompt::passphrase(question).map_err(|e| {
        Failure::Cannot(format!(
            "cannot read the passphrase ({e}): use a terminal, or set RINGFENCE_ROOT_PASSPHRASE"
        ))
    });
    asked.map(Secret::new)
}
