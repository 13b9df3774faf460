//! `ringfence why A B`: may A reach B, by which line, over which way. `ringfence why ID`: why an event was denied.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{CANNOT, NO, WRONG, fail, load, print, print_json};
use crate::data::{DataDir, fence_folder};
use crate::env::Env;
use crate::view;

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Who calls: a service, or `outside` for the gateway's clients; or the id of an event or a trace, alone
    #[arg(value_name = "A")]
    from: String,
    /// What is called: a service, or a host outside as HOST or HOST:PORT
    #[arg(value_name = "B")]
    to: Option<String>,
    /// The fence: a file or a folder
    #[arg(long, short, default_value = ".", value_name = "PATH")]
    fence: PathBuf,
    /// The data directory, where events are [default: .ringfence beside the fence]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: WhyArgs, env: &Env) -> ExitCode {
    let Some(to) = &args.to else {
        if !view::why::is_id(&args.from) {
            return fail(
                WRONG,
                "name two services, or the id of an event or a trace: `ringfence why A B`, `ringfence why ID`",
            );
        }
        return match DataDir::locate(&args.fence, args.data.as_deref()) {
            Ok(data) => {
                view::why::run(&args.from, args.json, data.root(), fence_folder(&args.fence), env.colour)
            }
            Err(error) => fail(CANNOT, &format!("cannot find the data directory: {error}")),
        };
    };
    let fence = match load(&args.fence, env) {
        Ok(fence) => fence,
        Err(code) => return code,
    };
    let why = match fence.why(&args.from, to) {
        Ok(why) => why,
        Err(unknown) => return fail(WRONG, &unknown.to_string()),
    };
    let shown = if args.json { print_json(&why) } else { print(&why.to_string()) };
    if shown == ExitCode::SUCCESS && !why.allowed { ExitCode::from(NO) } else { shown }
}
