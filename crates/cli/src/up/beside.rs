//! What a fence names beside itself, apart from policies: authorities, and what proves who we are at providers. It is read here,
//! since control reads nothing but its own folder.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ringfence_control::supervisor::{Beside, Proof, ProviderFiles};
use ringfence_keys::Secret;
use ringfence_model::{Client, ClientProof, Entities, Fence, Position};

use crate::env::Env;

/// Largest authority, and largest secret or key.
const MAX_AUTHORITY: u64 = 1 << 20;
const MAX_SECRET: u64 = 64 << 10;

/// Reads it all, or says what cannot be read; and what the operator should know of it.
pub(super) fn read(fence: &Fence, env: &Env) -> (Result<Beside, String>, Vec<String>) {
    let mut warnings = Vec::new();
    (read_all(fence, env, &mut warnings), warnings)
}

fn read_all(fence: &Fence, env: &Env, warnings: &mut Vec<String>) -> Result<Beside, String> {
    let mut beside = Beside::default();
    for provider in &fence.providers {
        let file = provider.ca.as_ref().filter(|_| !provider.is_behind_gateway());
        let ca = file.map(|file| text(fence, file, MAX_AUTHORITY, &provider.position));
        let proof = provider.client.as_ref().and_then(|client| proof(fence, client, env, warnings));
        let (ca, proof) = (ca.transpose()?, proof.transpose()?);
        if ca.is_some() || proof.is_some() {
            let ca = ca.map(|pem| pem.expose().clone());
            beside.providers.push(ProviderFiles { name: provider.name.clone(), ca, proof });
        }
    }
    for file in fence.client_authorities() {
        let position = place(fence, file);
        let pem = text(fence, Path::new(file), MAX_AUTHORITY, &position)?;
        beside.authorities.push((file.to_owned(), pem.expose().clone()));
    }
    if let Some(Entities::Url(server)) = &fence.entities
        && let Some(file) = &server.ca
    {
        beside.entities = Some(text(fence, file, MAX_AUTHORITY, &server.position)?.expose().clone());
    }
    Ok(beside)
}

fn proof(
    fence: &Fence,
    client: &Client,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Option<Result<Proof, String>> {
    let mut secret = |file: &Path| {
        let read = text(fence, file, MAX_SECRET, &client.position)?;
        warnings.extend(seen_by_others(&fence.folder.join(file)));
        Ok(read)
    };
    Some(match client.proof.as_ref()? {
        ClientProof::SecretFile(file) => secret(file).map(Proof::Secret),
        ClientProof::Key(file) => secret(file).map(Proof::Key),
        ClientProof::SecretEnv(name) => env
            .secret(name)
            .map(Proof::Secret)
            .ok_or_else(|| format!("{}: the environment of `up` has no variable `{name}`", client.position)),
    })
}

/// Where an authority of client certificates is named first.
fn place(fence: &Fence, file: &str) -> Position {
    let routes = fence.services.iter().flat_map(|s| s.routes.iter().map(|r| &r.access).chain([&s.access]));
    let mut named = routes.flat_map(|access| &access.accept);
    let found = named.find(|accepted| accepted.credential.authority() == Some(file));
    found.map_or_else(|| fence.position.clone(), |accepted| accepted.position.clone())
}

fn text(fence: &Fence, file: &Path, max: u64, position: &Position) -> Result<Secret<String>, String> {
    let path = fence.folder.join(file);
    let read = || -> io::Result<Secret<String>> {
        // A device or pipe would be read for ever.
        let opened = File::open(&path)?;
        if !opened.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut text = String::new();
        let read = opened.take(max + 1).read_to_string(&mut text);
        let text = Secret::new(text);
        if read? as u64 > max {
            return Err(io::Error::other(format!("it is larger than {max} bytes")));
        }
        Ok(text)
    };
    read().map_err(|e| format!("{position}: cannot read {}: {e}", path.display()))
}

/// Whether others than its owner may read it.
fn seen_by_others(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o077 != 0)
        .then(|| format!("{}: others than its owner may use this secret: chmod 600 it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(folder: &Path, client: &str) -> Fence {
        let text = format!(
            "fence: t\ntrust_domain: t.example\nproviders: {{ a: {{ issuer: https://a.example, client: {{ id: t{client} }} }} }}\nservices: {{ a: {{ listen: 1, accept: [{{ certificate: ca.pem }}] }} }}\n"
        );
        let mut fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        fence.folder = folder.to_owned();
        fence
    }

    #[test]
    fn what_others_may_read_is_used_with_a_warning_and_what_is_not_there_is_an_error_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(folder.path().join("ca.pem"), "x").unwrap();
        let fence = fence(folder.path(), ", secret: { file: s }");
        let (missing, _) = read(&fence, &Env::default());
        assert!(missing.unwrap_err().starts_with("ringfence.yaml:3:"));
        std::fs::write(&path, "hunter2").unwrap();
        for (mode, warned) in [(0o600, 0), (0o640, 1), (0o604, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let (beside, warnings) = read(&fence, &Env::default());
            let beside = beside.unwrap();
            assert_eq!(warnings.len(), warned, "{warnings:?}");
            assert_eq!(beside.authorities, [("ca.pem".to_owned(), "x".to_owned())]);
            assert!(matches!(&beside.providers[0].proof, Some(Proof::Secret(s)) if s.expose() == "hunter2"));
        }
        std::fs::remove_file(folder.path().join("ca.pem")).unwrap();
        assert!(read(&fence, &Env::default()).0.unwrap_err().contains("ringfence.yaml:4:"));
    }

    #[test]
    fn a_secret_of_the_environment_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "x").unwrap();
        let of = |name: &str| {
            read(&fence(folder.path(), &format!(", secret: {{ env: {name} }}")), &Env::default()).0
        };
        assert!(of("RINGFENCE_NO_SUCH_SECRET").unwrap_err().contains("RINGFENCE_NO_SUCH_SECRET"));
        let Some(Proof::Secret(path)) = of("PATH").unwrap().providers.remove(0).proof else {
            panic!("a secret")
        };
        assert!(!path.expose().is_empty());
    }
}
