//! Commands that read the fence and need nothing to run: check, graph, why, init, schema.

pub(crate) mod check;
pub(crate) mod graph;
pub(crate) mod init;
pub(crate) mod schema;
pub(crate) mod why;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use ringfence_model::{Diagnostics, Fence};

use crate::env::Env;

/// The answer is no.
const NO: u8 = 1;
/// Wrong use or wrong input.
const WRONG: u8 = 2;
/// Could not do it.
const CANNOT: u8 = 3;

/// Writes to standard output. Whoever stopped reading has seen enough.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(CANNOT, &format!("cannot write: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Writes one JSON object, indented for people who look at it.
fn print_json(value: &impl serde::Serialize) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => fail(CANNOT, &format!("cannot write JSON: {error}")),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}

/// The fence, or what is wrong with it on standard error and the code to end with.
fn load(path: &Path, env: &Env) -> Result<Fence, ExitCode> {
    Fence::load(path).map_err(|diagnostics| {
        eprint!("{}", diagnostics.render(error_colour(env)));
        ExitCode::from(if unreadable(&diagnostics) { CANNOT } else { WRONG })
    })
}

/// Whether there was a file and it could not be read.
fn unreadable(diagnostics: &Diagnostics) -> bool {
    diagnostics.errors.iter().any(|error| error.code == "unreadable")
}

/// Whether standard error may have colours: it is a terminal of its own.
fn error_colour(env: &Env) -> bool {
    env.colour && io::stderr().is_terminal()
}

/// A number of things, in words.
fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    enum Commands {
        Check(check::CheckArgs),
        Graph(graph::GraphArgs),
        Why(why::WhyArgs),
        Init(init::InitArgs),
    }

    /// A folder of its own for a test, gone afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ringfence-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).to_str().unwrap().to_owned()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn run(words: &[&str]) -> ExitCode {
        let env = Env::default();
        match Commands::parse_from(std::iter::once(&"ringfence").chain(words)) {
            Commands::Check(args) => check::run(args, &env),
            Commands::Graph(args) => graph::run(args, &env),
            Commands::Why(args) => why::run(args, &env),
            Commands::Init(args) => init::run(args, &env),
        }
    }

    #[test]
    fn what_init_writes_passes_check_and_is_never_overwritten() {
        let folder = Folder::new("init");
        let (fence, compose) = (folder.path("ringfence.yaml"), folder.path("compose.yaml"));
        std::fs::write(&compose, "services: { a: { environment: { B_ADDR: 'b:80' } }, b: { expose: [80] } }")
            .unwrap();
        assert_eq!(run(&["init", "--from", &compose, "--output", &fence]), ExitCode::SUCCESS);
        let written = std::fs::read_to_string(&fence).unwrap();
        assert!(written.contains("- b   # guessed from B_ADDR"), "{written}");
        assert_eq!(run(&["check", &fence]), ExitCode::SUCCESS);
        assert_eq!(run(&["init", "--output", &fence]), ExitCode::from(WRONG));
        assert_eq!(std::fs::read_to_string(&fence).unwrap(), written);
        let starter = folder.path("starter.yaml");
        assert_eq!(run(&["init", "--output", &starter]), ExitCode::SUCCESS);
        assert_eq!(run(&["check", &starter, "--json"]), ExitCode::SUCCESS);
        assert_eq!(
            run(&["init", "--from", &folder.path("none"), "--output", &folder.path("x")]),
            ExitCode::from(WRONG)
        );
        assert!(!folder.0.join("x").exists());
    }

    #[test]
    fn exit_codes_tell_no_from_wrong() {
        let folder = Folder::new("codes");
        let (good, bad) = (folder.path("good.yaml"), folder.path("bad.yaml"));
        let text = "fence: t\ntrust_domain: t.example\nservices: { a: { calls: [b] }, b: { listen: 1 } }\n";
        std::fs::write(&good, text).unwrap();
        std::fs::write(&bad, text.replace("[b]", "[c]")).unwrap();
        assert_eq!(run(&["check", &bad]), ExitCode::from(NO));
        assert_eq!(run(&["check", &folder.path("none.yaml")]), ExitCode::from(WRONG));
        assert_eq!(run(&["graph", &bad]), ExitCode::from(WRONG));
        for format in ["tree", "mermaid", "dot", "json"] {
            assert_eq!(run(&["graph", &good, "--format", format]), ExitCode::SUCCESS);
        }
        assert_eq!(run(&["why", "a", "b", "--fence", &good]), ExitCode::SUCCESS);
        assert_eq!(run(&["why", "b", "a", "--fence", &good, "--json"]), ExitCode::from(NO));
        assert_eq!(run(&["why", "a", "x", "--fence", &good]), ExitCode::from(WRONG));
        assert_eq!(run(&["why", "a", "--fence", &good]), ExitCode::from(WRONG));
    }
}
