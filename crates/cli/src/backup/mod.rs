//! `backup` and `restore`: the state of a fence in one sealed file, and back.
//!
//! A backup is made beside a running fence: the database as it is at one moment, then the keeper's files, which may only be newer.
//! It is sealed by a passphrase or key of its own, since the keys that it holds are what it would otherwise be sealed by.

mod archive;
mod files;
mod restore;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ringfence_control::home::Note;
use ringfence_keys::{MasterSource, Secret};
use serde_json::json;

use self::archive::Manifest;
use crate::env::Env;
use crate::view::{Done, Failure, finish, now, print, print_json};

pub(crate) use self::restore::{RestoreArgs, run as restore};

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    seal: SealArgs,
    /// Leave the plain master key file out: without it, the keys in the backup open only where it is kept
    #[arg(long)]
    without_master_key: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What seals a backup.
#[derive(Debug, Args)]
pub(crate) struct SealArgs {
    /// Seal with the key in this file (64 hexadecimal digits, mode 0600) instead of a passphrase, which is asked for or taken from
    /// RINGFENCE_BACKUP_PASSPHRASE
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl SealArgs {
    /// Where the key comes from; a passphrase for a new backup is asked for twice.
    fn source(&self, env: &Env, new: bool) -> Result<MasterSource, Failure> {
        if let Some(path) = &self.key {
            return Ok(MasterSource::KeyFile { path: path.clone() });
        }
        if let Some(passphrase) = &env.backup_passphrase {
            return Ok(MasterSource::Passphrase { passphrase: Secret::new(passphrase.clone()) });
        }
        let asked = |question: &str| {
            crate::prompt::passphrase(question).map_err(|e| {
                Failure::Wrong(format!(
                    "no passphrase: {e}; set RINGFENCE_BACKUP_PASSPHRASE or name a key with --key FILE"
                ))
            })
        };
        let passphrase = asked("passphrase of the backup: ")?;
        if new && asked("the same again: ")? != passphrase {
            return Err(Failure::Wrong("the two passphrases are not the same".to_owned()));
        }
        Ok(MasterSource::Passphrase { passphrase: Secret::new(passphrase) })
    }
}

pub(crate) fn run(args: &BackupArgs, data: &Path, env: &Env) -> ExitCode {
    finish(make(args, data, env))
}

fn make(args: &BackupArgs, data: &Path, env: &Env) -> Done {
    if args.file.exists() {
        return Err(Failure::Wrong(format!("{} exists already: choose another name", args.file.display())));
    }
    if !data.join("keeper/authority.json").exists() && !data.join("member/member.json").exists() {
        return Err(Failure::Cannot(format!(
            "there is no fence in {}: name the data directory with --data DIR",
            data.display()
        )));
    }
    let source = args.seal.source(env, true)?;
    let elsewhere = Note::read(&data.join("control"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let staged = runtime.block_on(files::stage(data, !args.without_master_key))?;
    let manifest = Manifest::of(&staged, now())?;
    archive::write(&args.file, &source, &manifest, staged.path())?;
    let master = manifest.has("master.key");
    if args.json {
        let value = json!({
            "file": args.file,
            "made_at": manifest.made_at,
            "files": manifest.files.len(),
            "bytes": manifest.bytes(),
            "master_key": master,
            "database": elsewhere.as_ref().map(|note| &note.store),
        });
        print_json(&value)?;
    } else {
        print(&format!(
            "{}: {} files, {} bytes, sealed\n",
            args.file.display(),
            manifest.files.len(),
            manifest.bytes()
        ))?;
        eprintln!(
            "{}",
            if master {
                "the plain master key is in it: whoever has the file and its passphrase or key has every key of the fence"
            } else {
                "no master key is in it: what opens the keys (file, passphrase, credential) must be kept elsewhere"
            }
        );
        if let Some(note) = &elsewhere {
            eprintln!("the state is in {}, which is NOT in it: back that up by its own means", note.store);
        }
    }
    Ok(ExitCode::SUCCESS)
}
