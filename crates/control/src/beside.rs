//! What lies beside a fence and is not policy: who issues client certificates, and how we prove who we are at providers.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::{Algorithm, Secret, SigningKey};
use ringfence_model::Fence;
use ringfence_oidc::protocol::Credential;
use ringfence_snapshot::{ClientAuthority, Der, MAX_AUTHORITIES};
use ringfence_spiffe::CertificateDer;
use ringfence_spiffe::path::Anchors;
use ringfence_token::PublicKey;

use crate::pem::blocks;
use crate::supervisor::{Beside, Proof};

/// Longest secret of a client.
const MAX_SECRET: usize = 4096;

/// The same, understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Understood {
    /// For the snapshot.
    pub(crate) authorities: Vec<ClientAuthority>,
    /// By provider, for the federation process alone.
    pub(crate) providers: BTreeMap<String, Provider>,
}

/// What a provider of the fence has beside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Provider {
    /// Its private authority, PEM.
    pub(crate) ca: Option<String>,
    /// How we prove who we are there.
    pub(crate) credential: Option<Credential>,
}

/// Understands what the supervisor read, if it is all there as the fence says.
///
/// # Errors
/// What is wrong, with the place in the fence that names it.
pub(crate) fn understood(fence: &Fence, beside: Result<Beside, String>) -> Result<Understood, String> {
    let beside = beside?;
    let mut understood = Understood::default();
    for file in fence.client_authorities() {
        let pem = beside.authorities.iter().find(|(name, _)| name == file).map(|(_, pem)| pem.as_str());
        let roots = certificates(pem.unwrap_or_default()).ok_or_else(|| {
            format!("{file}: no certificates of an authority, PEM, at most {MAX_AUTHORITIES}")
        })?;
        understood.authorities.push(ClientAuthority { file: file.to_owned(), roots });
    }
    if understood.authorities.len() > MAX_AUTHORITIES {
        return Err(format!("client certificates are accepted of at most {MAX_AUTHORITIES} authorities"));
    }
    for provider in &fence.providers {
        let read = beside.providers.iter().find(|read| read.name == provider.name);
        let credential = match &provider.client {
            None => None,
            Some(client) => {
                let proof = read.and_then(|read| read.proof.as_ref());
                let at = |why: &str| format!("{}: {why}", client.position);
                match (&client.proof, proof) {
                    (None, _) => Some(Credential::Public),
                    (Some(_), None) => {
                        return Err(at("what proves who we are was not read: save the fence anew"));
                    }
                    (Some(_), Some(proof)) => Some(of_proof(proof).map_err(at)?),
                }
            }
        };
        let ca = read.and_then(|read| read.ca.clone());
        understood.providers.insert(provider.name.clone(), Provider { ca, credential });
    }
    Ok(understood)
}

fn certificates(pem: &str) -> Option<Vec<Der>> {
    let blocks = blocks("CERTIFICATE", pem)?;
    let ders: Vec<CertificateDer<'_>> =
        blocks.iter().map(|b| CertificateDer::from(b.expose().as_slice())).collect();
    let (_, unusable) = Anchors::for_servers(&ders);
    let fits = (1..=MAX_AUTHORITIES).contains(&ders.len()) && unusable.is_empty();
    fits.then(|| ders.iter().map(|der| Der(der.to_vec())).collect())
}

fn of_proof(proof: &Proof) -> Result<Credential, &'static str> {
    match proof {
        Proof::Secret(text) => {
            let secret = text.expose().trim_ascii();
            let printable = secret.bytes().all(|b| (0x20..0x7f).contains(&b));
            if secret.is_empty() || secret.len() > MAX_SECRET || !printable {
                return Err("a client's secret is one line of printable ASCII characters");
            }
            Ok(Credential::Secret(Secret::new(secret.to_owned())))
        }
        Proof::Key(pem) => {
            const KIND: &str = "a client's key is one P-256 or Ed25519 private key, PKCS#8 in PEM";
            let mut blocks = blocks("PRIVATE KEY", pem.expose()).ok_or(KIND)?;
            let pkcs8 = blocks.pop().filter(|_| blocks.is_empty()).ok_or(KIND)?;
            let key = [Algorithm::P256, Algorithm::Ed25519]
                .into_iter()
                .find_map(|algorithm| SigningKey::from_pkcs8(algorithm, &pkcs8).ok())
                .ok_or(KIND)?;
            let key_id = URL_SAFE_NO_PAD.encode(PublicKey::from(key.verifying_key()).thumbprint());
            Ok(Credential::Key { algorithm: key.algorithm(), key_id, pkcs8 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pem::pem;
    use crate::supervisor::ProviderFiles;

    fn fence(client: &str) -> Fence {
        let text = format!(
            "fence: t\ntrust_domain: t.example\nproviders: {{ a: {{ issuer: https://a.example, client: {{ id: gateway{client} }} }} }}\nservices: {{ a: {{ }} }}\n"
        );
        Fence::parse(vec![("ringfence.yaml", text)]).unwrap()
    }

    fn of(client: &str, proof: Option<Proof>) -> Result<Option<Credential>, String> {
        let files = ProviderFiles { name: "a".into(), ca: None, proof };
        let beside = Beside { providers: vec![files], ..Beside::default() };
        understood(&fence(client), Ok(beside)).map(|mut all| all.providers.remove("a").unwrap().credential)
    }

    #[test]
    fn a_client_proves_who_it_is_as_the_fence_says_or_the_fence_is_refused() {
        assert!(matches!(of("", None), Ok(Some(Credential::Public))));
        let by_secret = ", secret: { file: s }";
        let secret = |text: &str| Some(Proof::Secret(Secret::new(text.to_owned())));
        let Ok(Some(Credential::Secret(read))) = of(by_secret, secret("hunter2\n")) else {
            panic!("a secret")
        };
        assert_eq!(read.expose(), "hunter2");
        for bad in ["", "\n", "two\nlines", "\u{e9}"] {
            let refused = of(by_secret, secret(bad)).unwrap_err();
            assert!(refused.starts_with("ringfence.yaml:3:"), "{refused}");
        }
        assert!(of(by_secret, None).is_err(), "never as a public client instead");

        let by_key = ", key: { file: k }";
        let key = SigningKey::generate(Algorithm::P256).unwrap();
        let text = pem("PRIVATE KEY", key.to_pkcs8().unwrap().expose());
        let proof = |text: String| Some(Proof::Key(Secret::new(text)));
        let Ok(Some(Credential::Key { algorithm, key_id, .. })) = of(by_key, proof(text.clone())) else {
            panic!("a key")
        };
        assert_eq!((algorithm, key_id.len()), (Algorithm::P256, 43));
        for bad in
            [String::new(), text.repeat(2), pem("PRIVATE KEY", b"x"), text.replace("PRIVATE", "PUBLIC")]
        {
            assert!(of(by_key, proof(bad)).is_err());
        }
    }

    #[test]
    fn an_authority_that_is_none_is_refused_by_its_name() {
        let text = "fence: t\ntrust_domain: t.example\nservices: { a: { listen: 1, accept: [{ certificate: ca/x.pem }] } }\n";
        let fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        for bad in [String::new(), pem("CERTIFICATE", b"x")] {
            let beside = Beside { authorities: vec![("ca/x.pem".into(), bad)], ..Beside::default() };
            assert!(understood(&fence, Ok(beside)).unwrap_err().contains("ca/x.pem"));
        }
        assert!(understood(&fence, Ok(Beside::default())).is_err());
        assert_eq!(understood(&fence, Err("unreadable".into())).unwrap_err(), "unreadable");
    }
}
