//! The SPIFFE bundle format (SPIFFE Trust Domain and Bundle, section 4): a JWK set.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::bundle::{BundleError, JwtAuthority, TrustBundle};
use crate::certificate::Certificate;
use crate::id::TrustDomain;

/// Largest document that is read.
const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
const X509_SVID: &str = "x509-svid";
const JWT_SVID: &str = "jwt-svid";

#[derive(Deserialize, Serialize)]
struct Document {
    keys: Vec<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

/// What is read of an entry before it is known whether it concerns us.
#[derive(Deserialize)]
struct Entry {
    kty: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl TrustBundle {
    /// Reads a bundle document of this trust domain. Entries of unknown key type or use are passed over, as the
    /// standard says; a broken entry of a known use is an error.
    pub fn from_json(trust_domain: TrustDomain, document: &[u8]) -> Result<Self, BundleError> {
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(BundleError::TooLarge);
        }
        let json = |error: serde_json::Error| BundleError::Json(error.to_string());
        let document: Document = serde_json::from_slice(document).map_err(json)?;
        let mut x509_authorities = Vec::new();
        let mut jwt_authorities = Vec::new();
        for key in document.keys {
            // An entry whose parameters have other types than ours is of a kind that we do not know.
            let Ok(entry) = serde_json::from_value::<Entry>(key) else { continue };
            match (entry.usage.as_deref(), entry.kty.as_deref()) {
                (Some(X509_SVID), Some("EC" | "RSA" | "OKP")) => {
                    // Only the first value counts; without one the entry is passed over (X509-SVID, 6.2).
                    let Some(first) = entry.x5c.first() else { continue };
                    let der = STANDARD.decode(first).map_err(|error| {
                        BundleError::Json(format!("`x5c` of an x509-svid key is not base64: {error}"))
                    })?;
                    x509_authorities.push(CertificateDer::from(der));
                }
                (Some(JWT_SVID), Some("EC")) if entry.crv.as_deref() == Some("P-256") => {
                    jwt_authorities.push(jwt_authority(&entry)?);
                }
                _ => {}
            }
        }
        Self::new(
            trust_domain,
            x509_authorities,
            jwt_authorities,
            document.spiffe_sequence.unwrap_or(0),
            document.spiffe_refresh_hint,
        )
    }

    /// The bundle document.
    pub fn to_json(&self) -> String {
        let x509 = self.x509_authorities().iter().map(|der| {
            let mut key = public_key_parameters(der);
            key["use"] = X509_SVID.into();
            key["x5c"] = vec![STANDARD.encode(der)].into();
            key
        });
        let jwt = self.jwt_authorities().iter().map(|authority| {
            let mut key = p256_parameters(authority.public_key());
            key["use"] = JWT_SVID.into();
            key["kid"] = authority.key_id().into();
            key
        });
        let document = Document {
            keys: x509.chain(jwt).collect(),
            spiffe_sequence: Some(self.sequence()),
            spiffe_refresh_hint: self.refresh_hint(),
        };
        serde_json::to_string(&document).expect("invariant: text and numbers always serialize")
    }
}

fn jwt_authority(entry: &Entry) -> Result<JwtAuthority, BundleError> {
    let key_id = entry.kid.clone().ok_or(BundleError::KeyId)?;
    let coordinate = |value: &Option<String>| -> Option<[u8; 32]> {
        URL_SAFE_NO_PAD.decode(value.as_deref()?).ok()?.try_into().ok()
    };
    let (Some(x), Some(y)) = (coordinate(&entry.x), coordinate(&entry.y)) else {
        return Err(BundleError::PublicKey(key_id));
    };
    let mut point = [4; 65];
    point[1..33].copy_from_slice(&x);
    point[33..].copy_from_slice(&y);
    JwtAuthority::new(key_id, point)
}

/// The key parameters that RFC 7517 wants beside `x5c`.
fn public_key_parameters(der: &CertificateDer<'_>) -> serde_json::Value {
    let cert = Certificate::parse(der).expect("invariant: parsed when the bundle was made");
    crate::spki::to_jwk(cert.spki).expect("invariant: key checked when the bundle was made")
}

fn p256_parameters(point: &[u8; 65]) -> serde_json::Value {
    serde_json::json!({
        "kty": "EC",
        "crv": "P-256",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
        "y": URL_SAFE_NO_PAD.encode(&point[33..]),
    })
}
