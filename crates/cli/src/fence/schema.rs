//! `ringfence schema`: the JSON Schema of `ringfence.yaml`, for editors.

use std::process::ExitCode;

use clap::Args;

use super::print;

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Accepted as everywhere: the schema is JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(_args: SchemaArgs) -> ExitCode {
    print(ringfence_model::json_schema())
}
