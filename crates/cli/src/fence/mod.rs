//! Commands that read the fence and need nothing to run: check, graph, why, init, schema.

pub(crate) mod authz;
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
        #[command(subcommand)]
        Authz(authz::AuthzCommand),
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
            Commands::Authz(command) => authz::run(command, &env),
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

    #[test]
    fn policies_are_checked_tested_explained_and_compared() {
        let folder = Folder::new("authz");
        let fence = folder.path("ringfence.yaml");
        let policy = "@id(\"reads\") permit(principal in Group::\"staff/nurse\", action == Action::\"GET\", resource);\n";
        std::fs::write(
            &fence,
            "fence: t\ntrust_domain: t.example\npolicies: [policies/*.cedar]\nentities: { file: e.json }\n\
             gateway: { listen: 127.0.0.1:1 }\nproviders: { staff: { issuer: https://id.t.example } }\n\
             services: { a: { listen: 1, routes: [{ path: / }] } }\n",
        )
        .unwrap();
        assert_eq!(run(&["check", &fence]), ExitCode::from(NO), "no policy file matches");
        std::fs::create_dir_all(folder.0.join("policies")).unwrap();
        let write = |text: &str| std::fs::write(folder.0.join("policies/a.cedar"), text).unwrap();
        write(policy);
        assert_eq!(run(&["check", &fence]), ExitCode::from(CANNOT), "the data is not there");
        std::fs::write(folder.0.join("e.json"), "[]").unwrap();
        assert_eq!(run(&["check", &fence]), ExitCode::SUCCESS);
        write("permit(principal, action, resource in Service::\"b\");");
        assert_eq!(run(&["check", &fence, "--json"]), ExitCode::from(NO), "a policy about nothing");
        assert_eq!(run(&["authz", "explain", "GET", "a/", "--fence", &fence]), ExitCode::from(WRONG));
        write(policy);

        let table = folder.path("table.yaml");
        let row = "- principal: { user: staff/ada, groups: [nurse] }\n  request: GET a/x\n  expect: allow\n";
        std::fs::write(&table, format!("{row}- principal: anonymous\n  request: GET a/x\n  expect: deny\n"))
            .unwrap();
        for json in [&[][..], &["--json"]] {
            let test = [&["authz", "test", &table, "--fence", &fence][..], json].concat();
            assert_eq!(run(&test), ExitCode::SUCCESS);
        }
        std::fs::write(&table, row.replace("allow", "deny")).unwrap();
        assert_eq!(run(&["authz", "test", &table, "--fence", &fence]), ExitCode::from(NO));
        std::fs::write(&table, "- nonsense").unwrap();
        assert_eq!(run(&["authz", "test", &table, "--fence", &fence]), ExitCode::from(WRONG));
        assert_eq!(run(&["authz", "test", &folder.path("none"), "--fence", &fence]), ExitCode::from(CANNOT));

        let explain = |words: &[&str]| run(&[&["authz", "explain", "--fence", &fence][..], words].concat());
        assert_eq!(explain(&["GET", "a/x", "--user", "staff/ada", "--group", "nurse"]), ExitCode::SUCCESS);
        assert_eq!(explain(&["GET", "a/x", "--user", "staff/ada", "--json"]), ExitCode::from(NO));
        assert_eq!(explain(&["GET", "b/x"]), ExitCode::from(WRONG), "no such service");
        assert_eq!(explain(&["GET", "a/x", "--user", "ada"]), ExitCode::from(WRONG));

        let other = Folder::new("authz-other");
        let edges = other.path("ringfence.yaml");
        let text = std::fs::read_to_string(&fence).unwrap();
        std::fs::write(
            &edges,
            text.replace("policies: [policies/*.cedar]\nentities: { file: e.json }\n", ""),
        )
        .unwrap();
        assert_eq!(run(&["authz", "diff", &fence, &fence]), ExitCode::SUCCESS);
        assert_eq!(run(&["authz", "diff", &edges, &fence, "--json"]), ExitCode::from(NO), "somebody loses");
        assert_eq!(run(&["authz", "explain", "GET", "a/", "--fence", &edges]), ExitCode::from(WRONG));

        // Data at a server is given as a file to whoever asks no server.
        std::fs::write(&edges, text.replace("{ file: e.json }", "{ url: 'https://x.example/e' }")).unwrap();
        std::fs::create_dir_all(other.0.join("policies")).unwrap();
        for file in std::fs::read_dir(Path::new(&fence).with_file_name("policies")).unwrap().flatten() {
            std::fs::copy(file.path(), other.0.join("policies").join(file.file_name())).unwrap();
        }
        let data = Path::new(&fence).with_file_name("e.json").to_str().unwrap().to_owned();
        assert_eq!(run(&["check", &edges]), ExitCode::SUCCESS, "with a warning");
        assert_eq!(run(&["check", &edges, "--entities", &data]), ExitCode::SUCCESS);
        assert_eq!(run(&["check", &edges, "--entities", "/nowhere"]), ExitCode::from(CANNOT));
        assert_eq!(run(&["authz", "diff", &fence, &edges]), ExitCode::from(WRONG));
        assert_eq!(run(&["authz", "diff", &fence, &edges, "--entities", &data]), ExitCode::SUCCESS);
    }
}
