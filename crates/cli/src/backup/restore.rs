//! A backup becomes a data directory: whole, checked, and under an epoch that nobody has seen.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ringfence_control::restored;
use ringfence_keys::{Keyring, MasterSource};
use ringfence_store::Store;
use ringfence_token::Revocation;
use serde_json::json;

use super::SealArgs;
use super::archive::{self, Manifest};
use super::files::{Staged, private};
use crate::data::{DataDir, Lock};
use crate::env::Env;
use crate::view::{Done, Failure, finish, now, print, print_json};

/// Largest file of revocations that is read.
const MAX_REVOCATIONS: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    seal: SealArgs,
    /// Open and check everything, and change nothing
    #[arg(long)]
    verify: bool,
    /// Put aside the data directory that is there, under another name, and take its place
    #[arg(long, conflicts_with = "verify")]
    replace: bool,
    /// Revoke again what the proxy of some host remembers: its proxy/revocations.json; that of the replaced directory is taken anyway
    #[arg(long, value_name = "FILE")]
    revocations: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &RestoreArgs, data: &Path, env: &Env) -> ExitCode {
    finish(if args.verify { verify(args, data, env) } else { put_back(args, data, env) })
}

/// The backup opened into a folder of its own, each part checked.
fn opened(args: &RestoreArgs, data: &Path, env: &Env) -> Result<(Staged, Manifest, &'static str), Failure> {
    let source = args.seal.source(env, false)?;
    if let Some(parent) = data.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let staged = Staged::beside(data, "restore")?;
    for folder in ["control", "keeper", "member"] {
        private(&staged.path().join(folder))?;
    }
    let manifest = archive::read(&args.file, &source, staged.path())?;
    let state = staged.path().join("control/state.db");
    if state.exists() {
        runtime()?.block_on(Store::check_file(&state))?;
    }
    let keys = keys(staged.path())?;
    Ok((staged, manifest, keys))
}

/// Whether the keys in it open with the master key in it, if there is one.
fn keys(folder: &Path) -> Result<&'static str, Failure> {
    let master = folder.join("master.key");
    if !master.exists() {
        return Ok("not checked: the master key is not in the backup");
    }
    for ring in ["keeper/keyring.json", "member/keyring.json"].map(|name| folder.join(name)) {
        if ring.exists() {
            Keyring::open(&ring, &MasterSource::KeyFile { path: master.clone() })?;
        }
    }
    Ok("open with the master key in the backup")
}

fn verify(args: &RestoreArgs, data: &Path, env: &Env) -> Done {
    let (_staged, manifest, keys) = opened(args, data, env)?;
    if args.json {
        let value = json!({
            "file": args.file,
            "whole": true,
            "version": manifest.version,
            "made_at": manifest.made_at,
            "files": manifest.files.iter().map(|file| &file.name).collect::<Vec<_>>(),
            "bytes": manifest.bytes(),
            "keys": keys,
        });
        print_json(&value)?;
    } else {
        print(&format!(
            "{}: whole, {} files, {} bytes, made {} by ringfence {}; keys {keys}\n",
            args.file.display(),
            manifest.files.len(),
            manifest.bytes(),
            time(manifest.made_at),
            manifest.version,
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn put_back(args: &RestoreArgs, data: &Path, env: &Env) -> Done {
    let there = std::fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some());
    if there && !args.replace {
        return Err(Failure::Wrong(format!(
            "{} holds something already: --replace puts it aside under another name, --data DIR restores elsewhere",
            data.display()
        )));
    }
    // As long as it is held, no `up` begins there.
    let _lock: Option<Lock> = there.then(|| lock(data)).transpose()?;
    let (staged, manifest, keys) = opened(args, data, env)?;
    let mut remembered = Vec::new();
    let old = data.join("proxy/revocations.json");
    for file in args.revocations.iter().chain(old.exists().then_some(&old)) {
        remembered.extend(read_revocations(file)?);
    }
    let state = staged.path().join("control/state.db").exists();
    // Looked at in a copy: what is put aside stays as it is.
    let before = Staged::beside(data, "before")?;
    let before_state = before.path().join("state.db");
    let old_state = ringfence_control::home::file(&data.join("control"));
    let readable =
        old_state.exists() && runtime()?.block_on(Store::copy_of_file(&old_state, &before_state)).is_ok();
    let done = match state {
        true => {
            let folder = staged.path().join("control");
            let before = readable.then_some(before_state.as_path());
            Some(runtime()?.block_on(restored::go_on(
                &folder,
                manifest.made_at,
                now(),
                remembered,
                before,
            ))?)
        }
        false => None,
    };
    for folder in ["control", "keeper", "member"].map(|name| staged.path().join(name)) {
        std::fs::File::open(folder)?.sync_all()?;
    }
    let aside = if there {
        let name = data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let aside = data.with_file_name(format!("{name}.before-restore-{}", now()));
        std::fs::rename(data, &aside)?;
        Some(aside)
    } else {
        // An empty folder is in the way of a rename only where it is none.
        let _ = std::fs::remove_dir(data);
        None
    };
    staged.become_folder(data)?;
    std::fs::File::open(data.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()?;
    let elsewhere = ringfence_control::home::Note::read(&data.join("control"))?;
    if args.json {
        let value = json!({
            "data": data,
            "aside": aside,
            "made_at": manifest.made_at,
            "restored": done,
            "keys": keys,
            "database": elsewhere.map(|note| note.store),
        });
        print_json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{} is what it was at {}; keys {keys}\n", data.display(), time(manifest.made_at));
    if let Some(done) = &done {
        text += &format!(
            "what was done after revision {} is not in it; the next snapshot is of epoch {}, so every host takes it\n{} revocations were added that are not in the backup, and {} API keys are as they were since\n",
            done.from.1, done.epoch, done.replayed, done.keys
        );
        if !done.compared {
            text += "no state from before could be read: API keys that were revoked after the backup are good again, revoke them\n";
        }
    }
    if let Some(note) = elsewhere {
        text += &format!("the state is in {}, which was not in the backup\n", note.store);
    }
    if let Some(aside) = aside {
        text += &format!("what was there before is now {}\n", aside.display());
    }
    text += "start with `ringfence up`\n";
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn lock(data: &Path) -> Result<Lock, Failure> {
    let folder = DataDir::locate(data, Some(data)).map_err(|e| Failure::Cannot(e.to_string()))?;
    private(&data.join("run"))?;
    Ok(folder.lock()?)
}

/// What a proxy remembers to be revoked.
fn read_revocations(path: &Path) -> Result<Vec<Revocation>, Failure> {
    let wrong = |why: String| Failure::Wrong(format!("{}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if length > MAX_REVOCATIONS {
        return Err(wrong("it is larger than any list of revocations".to_owned()));
    }
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn time(unix: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix))
        .to_string()
}
