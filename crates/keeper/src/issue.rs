//! One certificate: checked against the snapshot, proven, signed, and noted for the log.

use ringfence_keys::{VerifyingKey, digest, possession, to_hex};
use ringfence_snapshot::Der;
use ringfence_spiffe::SpiffeId;

use crate::certificate::{Validity, serving, svid};
use crate::log::Entry;
use crate::oracle::State;
use crate::protocol::{
    Leaf, MAX_SERVING_LIFE, MAX_SVID_LIFE, Refusal, RefusalCode, ServingRequest, X509Request, serving_subject,
};

/// What one answer did, for the log.
pub(crate) struct Done {
    pub(crate) what: &'static str,
    pub(crate) subject: String,
    pub(crate) serial: String,
    pub(crate) key: String,
    pub(crate) until: u64,
    pub(crate) revision: (u64, u64),
}

impl Done {
    fn certificate(
        what: &'static str,
        subject: String,
        serial: &str,
        key: &VerifyingKey,
        validity: Validity,
        revision: (u64, u64),
    ) -> Self {
        let key = to_hex(&digest::sha256(&key.to_spki()));
        Self { what, subject, serial: serial.to_owned(), key, until: validity.not_after, revision }
    }

    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry {
            what: self.what,
            subject: &self.subject,
            serial: &self.serial,
            key: self.key.clone(),
            until: self.until,
            revision: self.revision,
        }
    }
}

/// An X.509-SVID.
pub(crate) fn issue_x509(state: &State, request: &X509Request, now: u64) -> Result<(Leaf, Done), Refusal> {
    let current = state.current()?;
    let id: SpiffeId = current.identity(&request.id, now)?;
    let key = proven(&request.spki, &request.id, &request.proof)?;
    let validity = Validity::starting(now, life(request.ttl, MAX_SVID_LIFE)?, state.signers.issuing_until);
    let name = id.path().rsplit('/').next().unwrap_or_default();
    let (certificate, serial) =
        svid(&state.signers.issuing, id.as_str(), name, &key, validity).map_err(Refusal::internal)?;
    let done = Done::certificate("x509", request.id.clone(), &serial, &key, validity, current.revision);
    Ok((leaf(certificate, serial, validity), done))
}

/// A certificate of the gateway.
pub(crate) fn issue_serving(
    state: &State,
    request: &ServingRequest,
    now: u64,
) -> Result<(Leaf, Done), Refusal> {
    let current = state.current()?;
    current.hosts(&request.hosts, now)?;
    let subject = serving_subject(&request.hosts);
    let key = proven(&request.spki, &subject, &request.proof)?;
    let validity = Validity::starting(now, life(request.ttl, MAX_SERVING_LIFE)?, state.signers.serving_until);
    let (certificate, serial) =
        serving(&state.signers.serving, &request.hosts, &key, validity).map_err(Refusal::internal)?;
    let done = Done::certificate("serving", subject, &serial, &key, validity, current.revision);
    Ok((leaf(certificate, serial, validity), done))
}

fn leaf(certificate: Vec<u8>, serial: String, validity: Validity) -> Leaf {
    Leaf {
        certificate: Der(certificate),
        serial,
        not_before: validity.not_before,
        not_after: validity.not_after,
    }
}

/// The key of a request, once its possession is proven.
fn proven(spki: &Der, subject: &str, proof: &Der) -> Result<VerifyingKey, Refusal> {
    let malformed = |e: &dyn std::fmt::Display| Refusal::new(RefusalCode::Malformed, e.to_string());
    let key = VerifyingKey::from_spki(&spki.0).map_err(|e| malformed(&e))?;
    possession::check(&key, subject, &proof.0)
        .map_err(|_| malformed(&"the proof of possession does not hold"))?;
    Ok(key)
}

/// A life within its bound.
pub(crate) fn life(ttl: u64, most: u64) -> Result<u64, Refusal> {
    if (1..=most).contains(&ttl) {
        return Ok(ttl);
    }
    Err(Refusal::new(RefusalCode::Malformed, format!("a life of {ttl} s is not within 1 to {most} s")))
}
