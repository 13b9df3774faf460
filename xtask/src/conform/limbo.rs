//! x509-limbo: certificate paths, run through our path building with their names and times.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ringfence_spiffe::certificate::Certificate;
use ringfence_spiffe::path::{
    Anchors, MAX_INTERMEDIATES, PathOptions, RevocationList, Usage, verify_any_name, verify_server_name,
};
use ringfence_spiffe::{CertificateDer, UnixTime};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateRevocationListDer, ServerName};
use serde::Deserialize;

use super::Outcome;

#[derive(Deserialize)]
struct Suite {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    expected_result: String,
    validation_kind: String,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    #[serde(default)]
    key_usage: Vec<String>,
    expected_peer_name: Option<PeerName>,
    #[serde(default)]
    expected_peer_names: Vec<PeerName>,
    max_chain_depth: Option<usize>,
    #[serde(default)]
    crls: Vec<String>,
}

#[derive(Deserialize)]
struct PeerName {
    kind: String,
    value: String,
}

/// Runs every case of the suite in this file.
pub(crate) fn run(file: &Path) -> Result<Vec<Outcome>, String> {
    let text = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let suite: Suite =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(suite
        .testcases
        .iter()
        .map(|case| Outcome {
            case: case.id.clone(),
            expected_accept: case.expected_result == "SUCCESS",
            verdict: verify(case),
        })
        .collect())
}

fn verify(case: &Case) -> Result<(), String> {
    let roots = case.trusted_certs.iter().map(|pem| certificate(pem)).collect::<Result<Vec<_>, _>>()?;
    let (anchors, _) = Anchors::for_servers(&roots);
    let mut chain = vec![certificate(&case.peer_certificate)?];
    for pem in &case.untrusted_intermediates {
        chain.push(certificate(pem)?);
    }
    let crls = case
        .crls
        .iter()
        .map(|pem| {
            let der =
                CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
            RevocationList::from_der(&der).map_err(|error| error.to_string())
        })
        .collect::<Result<Vec<_>, String>>()?;
    let usage = if case.validation_kind == "CLIENT" { Usage::Client } else { Usage::Server };
    let options = PathOptions {
        anchors: &anchors,
        crls: &crls,
        max_intermediates: case.max_chain_depth.unwrap_or(MAX_INTERMEDIATES).min(MAX_INTERMEDIATES),
        shared_suffix_wildcards: false,
        now: time(case.validation_time.as_deref())?,
        usage,
    };
    match &case.expected_peer_name {
        Some(name) if matches!(name.kind.as_str(), "DNS" | "IP") => {
            let name = ServerName::try_from(name.value.as_str()).map_err(|error| error.to_string())?;
            verify_server_name(&chain, &name, &options).map_err(|error| error.to_string())?;
        }
        Some(name) => return Err(format!("names of kind {} are not supported", name.kind)),
        None if case.expected_peer_names.iter().any(|name| name.kind == "RFC822") => {
            return Err("mail addresses are not supported as peer names".into());
        }
        None => verify_any_name(&chain, &options).map_err(|error| error.to_string())?,
    }
    if case.key_usage.iter().any(|usage| usage == "digitalSignature") {
        let leaf = Certificate::parse(&chain[0]).map_err(|error| error.to_string())?;
        if leaf.extensions.key_usage.is_some_and(|usage| !usage.value.digital_signature()) {
            return Err("the leaf's key may not sign".into());
        }
    }
    Ok(())
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())
}

fn time(text: Option<&str>) -> Result<UnixTime, String> {
    let time = match text {
        Some(text) => {
            let utc = text.replace("+00:00", "Z");
            humantime::parse_rfc3339(&utc).map_err(|error| format!("time {text}: {error}"))?
        }
        None => SystemTime::now(),
    };
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(since.as_secs())))
}
