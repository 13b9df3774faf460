//! `dist`: what users install. A static program, a Debian package, a container image, a bill of materials and checksums. What
//! is packed depends on the program and the commit alone.

mod deb;
mod oci;
mod sbom;
#[cfg(test)]
mod tests;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use ringfence_keys::digest::sha256;
use ringfence_keys::to_hex;

use self::tree::{Tree, gzip};
use crate::environment::{cargo_home, root, target};
use crate::process::{Error, cannot_start, cargo, line, run as run_command};
use crate::tools;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Pack this program instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where everything is written [default: `dist` in the target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A platform's name to cargo and to Debian and containers.
#[derive(Clone, Copy, Debug)]
struct Platform {
    triple: &'static str,
    short: &'static str,
}

/// Where a file goes, and what is in it.
type Page = (String, Vec<u8>);

pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    let platform = platform()?;
    let binary = match &options.binary {
        Some(path) => path.clone(),
        None => build(platform)?,
    };
    let out = options.out.clone().unwrap_or_else(|| target().join("dist"));
    let program = fs::read(&binary).map_err(|e| Error::new(format!("{}: {e}", binary.display())))?;
    let made = pack(&program, &pages(&binary)?, platform, &out, time()?)?;
    for (name, size) in made {
        println!("{:>9.1} MiB  {}", size as f64 / 1_048_576.0, out.join(name).display());
    }
    Ok(ExitCode::SUCCESS)
}

fn platform() -> Result<Platform, Error> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(Platform { triple: "x86_64-unknown-linux-musl", short: "amd64" }),
        "aarch64" => Ok(Platform { triple: "aarch64-unknown-linux-musl", short: "arm64" }),
        other => Err(Error::new(format!("nothing is packed for {other}; `--binary` cannot change that"))),
    }
}

/// The static program. Paths of this machine do not get into it.
fn build(platform: Platform) -> Result<PathBuf, Error> {
    tools::install(&[("musl-gcc", "musl-tools")])?;
    let library =
        text(Command::new("rustc").args(["--print", "target-libdir", "--target", platform.triple]))?;
    if !Path::new(&library).is_dir() {
        run_command(Command::new("rustup").args(["target", "add", platform.triple]))?;
    }
    let sysroot = text(Command::new("rustc").args(["--print", "sysroot"]))?;
    let from = [root().to_path_buf(), cargo_home(), PathBuf::from(sysroot)];
    let flags: Vec<String> = from
        .iter()
        .zip([".", "/cargo", "/rust"])
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect();
    let folder = target();
    let mut command =
        cargo(["build", "--release", "--locked", "--package", "ringfence", "--target", platform.triple]);
    command
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .env("CARGO_INCREMENTAL", "0")
        .env("SOURCE_DATE_EPOCH", time()?.to_string());
    run_command(&mut command)?;
    Ok(folder.join(platform.triple).join("release/ringfence"))
}

/// The commit's time, which everything that is packed bears: Unix time in seconds.
fn time() -> Result<u64, Error> {
    let seconds = text(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()))?;
    seconds.parse().map_err(|_| Error::new(format!("git says that the commit is of `{seconds}`")))
}

/// Writes everything into `out`; the names and sizes of what was written.
fn pack(
    program: &[u8],
    pages: &[Page],
    platform: Platform,
    out: &Path,
    time: u64,
) -> Result<Vec<(String, usize)>, Error> {
    let version = env!("CARGO_PKG_VERSION");
    let created = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time)).to_string();
    let sbom = sbom::write(platform.triple, &created)?;
    let mut files = files(program, &sbom)?;
    for (path, text) in pages {
        files.add(path.as_str(), 0o644, text.as_slice());
    }
    let scripts = ["postinst", "prerm", "postrm"].map(|name| packaging(name).map(|text| (name, text)));
    let scripts = scripts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let scripts: Vec<(&str, &str)> = scripts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    // A program that is linked with the system's library needs it.
    let depends = if is_static(program) { "" } else { "libc6" };
    let control = deb::Control { version, architecture: platform.short, depends };

    let mut image = Tree::default();
    image.add("usr/bin/ringfence", 0o755, program);
    image.add("usr/share/doc/ringfence/sbom.cdx.json", 0o644, sbom.as_slice());
    image.add("usr/share/doc/ringfence/copyright", 0o644, fs::read(root().join("LICENSE"))?);

    let base = format!("ringfence_{version}_{}", platform.short);
    let made = [
        (format!("{base}.deb"), deb::pack(&control, &files, &scripts, time)?),
        (format!("{base}.oci.tar"), oci::pack(version, platform.short, &image, time, &created)?),
        (format!("{base}.cdx.json"), sbom),
        (base, program.to_vec()),
    ];
    fs::create_dir_all(out)?;
    let mut sums = String::new();
    for (name, bytes) in &made {
        fs::write(out.join(name), bytes)?;
        sums.push_str(&format!("{}  {name}\n", to_hex(&sha256(bytes))));
    }
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(out.join(format!("ringfence_{version}_{}", platform.short)), executable)?;
    fs::write(out.join("SHA256SUMS"), &sums)?;
    Ok(made
        .into_iter()
        .map(|(name, bytes)| (name, bytes.len()))
        .chain([("SHA256SUMS".to_owned(), sums.len())])
        .collect())
}

/// What the Debian package installs.
fn files(program: &[u8], sbom: &[u8]) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    tree.add("usr/bin/ringfence", 0o755, program);
    tree.add("usr/lib/systemd/system/ringfence.service", 0o644, packaging("ringfence.service")?);
    tree.add("usr/share/ringfence/hello.pl", 0o644, packaging("hello.pl")?);
    tree.add("etc/ringfence/ringfence.yaml", 0o644, packaging("ringfence.yaml")?);
    tree.add("etc/apparmor.d/ringfence", 0o644, packaging("apparmor")?);
    let doc = "usr/share/doc/ringfence";
    tree.add(format!("{doc}/copyright"), 0o644, fs::read(root().join("LICENSE"))?);
    tree.add(format!("{doc}/changelog.gz"), 0o644, gzip(&fs::read(root().join("CHANGELOG.md"))?)?);
    tree.add(format!("{doc}/sbom.cdx.json"), 0o644, sbom);
    Ok(tree)
}

/// What the program says of itself for shells and readers of manuals.
fn pages(binary: &Path) -> Result<Vec<Page>, Error> {
    let mut pages = Vec::new();
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/ringfence"),
        ("zsh", "usr/share/zsh/vendor-completions/_ringfence"),
        ("fish", "usr/share/fish/vendor_completions.d/ringfence.fish"),
    ] {
        pages.push((path.to_owned(), text(Command::new(binary).args(["completions", shell]))?.into_bytes()));
    }
    let folder = tempfile::tempdir()?;
    run_command(Command::new(binary).arg("man").arg(folder.path()))?;
    for page in fs::read_dir(folder.path())? {
        let page = page?;
        let path = format!("usr/share/man/man1/{}.gz", page.file_name().to_string_lossy());
        pages.push((path, gzip(&fs::read(page.path())?)?));
    }
    Ok(pages)
}

fn packaging(name: &str) -> Result<String, Error> {
    let path = root().join("packaging").join(name);
    fs::read_to_string(&path).map_err(|e| Error::new(format!("{}: {e}", path.display())))
}

/// Whether an ELF program names no interpreter: the system's loader has no part in it.
fn is_static(program: &[u8]) -> bool {
    !program.windows(9).take(4096).any(|w| w == b"/ld-linux" || w == b"/lib64/ld")
}

/// What a program prints, without the last line's end.
fn text(command: &mut Command) -> Result<String, Error> {
    let output = command.output().map_err(|e| cannot_start(command, &e))?;
    if !output.status.success() {
        return Err(Error::new(format!(
            "`{}` failed: {}",
            line(command),
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
