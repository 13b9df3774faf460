//! `ringfence content`: rules that others publish, brought beside the fence. Nothing that came over a network is used before its digest
//! is the one that was known beforehand.

mod archive;
mod download;
mod install;
mod pin;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use ringfence_control::inspect::{Files, rules};
use ringfence_model::{Fence, Mode, Position, Waf};
use ringfence_snapshot::Digest;
use serde_json::json;

use self::archive::MAX_ARCHIVE;
use self::pin::CRS;
use crate::data::fence_folder;
use crate::view::{Done, Failure, finish, print, print_json};

/// The folder of a rule set unless the fence or whoever asks says another.
const FOLDER: &str = "crs";

#[derive(Debug, Args)]
pub(crate) struct ContentArgs {
    #[command(subcommand)]
    command: ContentCommand,
}

#[derive(Debug, Subcommand)]
enum ContentCommand {
    /// Bring a release of a rule set, checked by its SHA-256, in place of the one that is there
    Fetch(Fetch),
}

#[derive(Debug, Args)]
struct Fetch {
    /// What to bring
    what: What,
    /// Where from: an https URL of a mirror, or a file [default: where the release is published]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The SHA-256 that the archive must have [default: that of the release this ringfence knows]
    #[arg(long, value_name = "HEX", value_parser = |text: &str| text.parse::<Digest>())]
    sha256: Option<Digest>,
    /// The folder to bring it into [default: `waf.crs` of the fence, else crs beside it]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// The OWASP Core Rule Set
    Crs,
}

pub(crate) fn run(args: &ContentArgs, fence: &Path) -> ExitCode {
    match &args.command {
        ContentCommand::Fetch(args) => match args.what {
            What::Crs => finish(fetch(args, fence)),
        },
    }
}

fn fetch(args: &Fetch, fence: &Path) -> Done {
    let declared = Fence::load(fence).ok().and_then(|fence| fence.waf?.crs);
    let beside = fence_folder(fence);
    let folder = args.into.clone().unwrap_or_else(|| beside.join(declared.as_deref().unwrap_or(FOLDER)));
    install::may_replace(&folder).map_err(Failure::Wrong)?;

    let from = args.from.as_deref().unwrap_or(CRS.url);
    let wanted = match args.sha256 {
        Some(digest) => digest,
        None => CRS.sha256.parse::<Digest>().map_err(|e| Failure::Cannot(e.to_owned()))?,
    };
    let bytes = if from.contains("://") {
        download::get(from, MAX_ARCHIVE)?
    } else {
        archive::read(Path::new(from))?
    };
    let found = Digest::of(&bytes);
    if found != wanted {
        let next = if args.sha256.is_some() || args.from.is_none() {
            "it was altered, or is another release than was meant"
        } else {
            "for another release than the known one say which by --sha256"
        };
        eprintln!("ringfence: {from} has SHA-256 {found}, not {wanted}: {next}");
        return Ok(ExitCode::from(1));
    }
    let files = archive::unpack(&bytes).map_err(|e| Failure::Cannot(format!("{from}: {e}")))?;
    let count = usable(&files).map_err(|e| Failure::Cannot(format!("{from}: {e}")))?;
    let kept = install::replace(&folder, &files)
        .map_err(|e| Failure::Cannot(format!("cannot write {}: {e}", folder.display())))?;

    if args.json {
        print_json(&json!({
            "what": "crs", "from": from, "sha256": wanted, "folder": folder, "files": files.len(), "rules": count,
            "kept": kept,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{}: {} files, {count} rules\n", folder.display(), files.len());
    for name in kept {
        text.push_str(&format!("  {name} is as it was\n"));
    }
    if declared.is_none() {
        let name = folder.strip_prefix(&beside).unwrap_or(&folder);
        text.push_str(&format!("now say in the fence: `waf: {{ crs: {} }}`\n", name.display()));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// How many rules there are at the highest level, if the engine can read them.
fn usable(files: &archive::Files) -> Result<usize, String> {
    let files: Files =
        files.iter().map(|(name, bytes)| (format!("{FOLDER}/{name}"), bytes.as_slice().into())).collect();
    let mut waf = Waf::new(Mode::Enforce, Position::whole(FOLDER.into()));
    (waf.crs, waf.paranoia) = (Some(FOLDER.to_owned()), 4);
    match rules(&waf, &files) {
        Ok(rules) => Ok(rules.rules().count()),
        Err(errors) => {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            Err(format!("this ringfence cannot read {} of its rules: {first}", errors.len()))
        }
    }
}
