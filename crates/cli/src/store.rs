//! Where state is kept: what it is like there, and the way into a database.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ringfence_control::home::{Note, file};
use ringfence_store::{Place, copy_file};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::data::DataDir;
use crate::env::Env;
use crate::view::{Done, Failure, clean, finish, print, print_json};

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Engine, revision, size and version of the tables, and how far control is behind
    Status,
    /// Copy the state of a stopped fence into an empty PostgreSQL database, check what arrived, and put the file aside
    Migrate {
        /// The database: postgresql://USER@HOST/DATABASE?ca=FILE&password_file=FILE [default: RINGFENCE_STORE]
        #[arg(long, value_name = "URL")]
        to: Option<Place>,
    },
}

/// Answer to `GET /v1/store`.
#[derive(Debug, Serialize, Deserialize)]
struct Status {
    engine: String,
    place: Option<String>,
    /// The newest revision that control knows of.
    known: u64,
    trouble: Option<String>,
    revision: Option<u64>,
    lag: Option<u64>,
    schema: Option<u64>,
    size: Option<u64>,
}

/// The database as an argument or the environment names it.
pub(crate) fn chosen(named: Option<Place>, env: &Env) -> Result<Option<Place>, String> {
    let place = match (named, &env.store) {
        (Some(place), _) => place,
        (None, Some(line)) => line.parse().map_err(|why| format!("RINGFENCE_STORE: {why}"))?,
        (None, None) => return Ok(None),
    };
    place.absolute().map(Some).map_err(|e| format!("cannot find the present folder: {e}"))
}

pub(crate) fn run(args: &StoreArgs, data: &Path, env: &Env) -> ExitCode {
    finish(match &args.command {
        StoreCommand::Status => status(data, args.json),
        StoreCommand::Migrate { to } => migrate(data, to.clone(), env, args.json),
    })
}

fn status(data: &Path, json: bool) -> Done {
    let answer: Value = Client::new(data)?.get("/v1/store")?;
    let status: Status = serde_json::from_value(answer)?;
    if json {
        print_json(&status)?;
    } else {
        print(&text(&status))?;
    }
    Ok(if status.trouble.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn text(status: &Status) -> String {
    let place = status.place.as_deref().unwrap_or("control/state.db in the data directory");
    let mut text = format!("{}  {}\n", clean(&status.engine), clean(place));
    if let (Some(revision), Some(lag), Some(schema), Some(size)) =
        (status.revision, status.lag, status.schema, status.size)
    {
        text += &format!(
            "revision {revision}  control is {lag} behind  tables of version {schema}  {size} bytes\n"
        );
    } else {
        text += &format!("revision {} when control last heard of it\n", status.known);
    }
    if let Some(trouble) = &status.trouble {
        text += &format!("the database does not answer: {}\n", clean(trouble));
        text += "what is in force stays so; nothing can be changed until it is back\n";
    }
    text
}

fn migrate(data: &Path, to: Option<Place>, env: &Env, json: bool) -> Done {
    let place = chosen(to, env).map_err(Failure::Wrong)?.ok_or_else(|| {
        Failure::Wrong("name the database with --to postgresql://USER@HOST/DATABASE?ca=FILE".to_owned())
    })?;
    let folder = data.join("control");
    let source = file(&folder);
    if !source.exists() {
        return Err(Failure::Cannot(match Note::read(&folder)? {
            Some(note) => format!("the state was moved already, to {}", note.store),
            None => {
                format!("there is no state in {}: name the data directory with --data DIR", data.display())
            }
        }));
    }
    let lock = DataDir::locate(data, Some(data)).map_err(|e| Failure::Cannot(e.to_string()))?;
    // As long as it is held no `up` begins, and so no control.
    let _lock = lock.lock()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let moved = runtime.block_on(copy_file(&source, place.postgres()?))?;
    drop(runtime);
    Note { store: place.to_string(), revision: moved.revision }.write(&folder)?;
    let aside = put_aside(&source, moved.revision)?;
    if json {
        let mut value = json!({ "store": place.to_string(), "file": aside });
        value["moved"] = serde_json::to_value(&moved)?;
        print_json(&value)?;
    } else {
        print(&format!(
            "{} rows are in {place}, checked on both sides: revision {}, SHA-256 {}\n\
             the file is now {}; from now on start with --store and that address\n",
            moved.rows,
            moved.revision,
            moved.digest,
            aside.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives the file another name, and what SQLite keeps beside it.
fn put_aside(file: &Path, revision: u64) -> Result<PathBuf, Failure> {
    let aside = file.with_file_name(format!("state.db.moved-{revision}"));
    let beside = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    for end in ["-wal", "-shm", ""] {
        match std::fs::rename(beside(file, end), beside(&aside, end)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_comes_from_the_argument_or_the_environment_and_its_paths_are_absolute() {
        let line = "postgresql://rf@/state?socket=run&password_file=secret";
        let env = Env { store: Some(line.replace("state", "other")), ..Env::default() };
        let place = chosen(Some(line.parse().unwrap()), &env).unwrap().unwrap();
        assert!(place.to_string().contains("/state?socket=/") && place.files().all(Path::is_absolute));
        assert!(chosen(None, &env).unwrap().unwrap().to_string().contains("/other?"));
        assert_eq!(chosen(None, &Env::default()), Ok(None));
        let wrong = Env { store: Some("mysql://".into()), ..Env::default() };
        assert!(chosen(None, &wrong).unwrap_err().contains("RINGFENCE_STORE"));
    }

    #[test]
    fn a_database_that_is_away_is_told_with_what_still_holds() {
        let mut status = Status {
            engine: "postgresql".into(),
            place: Some("postgresql://rf@db:5432/s".into()),
            known: 7,
            trouble: Some("refused".into()),
            revision: None,
            lag: None,
            schema: None,
            size: None,
        };
        let told = text(&status);
        assert!(
            told.contains("revision 7 when") && told.contains("refused") && told.contains("stays so"),
            "{told}"
        );
        status = Status {
            trouble: None,
            revision: Some(9),
            lag: Some(2),
            schema: Some(2),
            size: Some(5),
            ..status
        };
        assert!(text(&status).contains("revision 9  control is 2 behind"));
    }
}
