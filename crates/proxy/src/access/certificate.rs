//! Client certificates as credentials: the handshake proved that the client holds the key, the authority of a route says who it is.
//!
//! An authority is asked once per connection, and again when what it said is over or the fence names another one.

use std::cell::RefCell;
use std::sync::Arc;

use ringfence_keys::digest::sha256;
use ringfence_model::Credential;
use ringfence_snapshot::{ClientAuthority as Declared, Identity};
use ringfence_spiffe::{CertificateDer, ClientAuthority, ClientError, UnixTime};

use super::RouteAccess;
use crate::deny::Deny;
use crate::table::Table;
use crate::worker::unix_now;

/// What stands for the issuer in what revokes a certificate.
pub(super) const CERTIFICATES: &str = "certificate";
/// How long what an authority said against a certificate is remembered, in seconds: it may become valid.
const REMEMBER_REFUSED: u64 = 60;
/// Authorities whose word a connection remembers.
const MAX_JUDGED: usize = 8;

/// An authority of client certificates, in a table.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Its file, as routes name it.
    file: Arc<str>,
    /// Who vouches for the names of its clients.
    provider: String,
    authority: ClientAuthority,
}

impl Authority {
    pub(crate) fn new(declared: &Declared) -> Self {
        let roots: Vec<CertificateDer<'_>> =
            declared.roots.iter().map(|der| CertificateDer::from(der.0.as_slice())).collect();
        // What is no authority vouches for nobody.
        let provider = Credential::Certificate(declared.file.clone()).vouched_by().into_owned();
        Self { file: declared.file.as_str().into(), provider, authority: ClientAuthority::new(&roots).0 }
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }
}

/// The certificate that the client of a connection showed.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// Leaf first.
    chain: Vec<CertificateDer<'static>>,
    thumbprint: [u8; 32],
    judged: RefCell<Vec<Judged>>,
}

#[derive(Debug)]
struct Judged {
    by: Arc<Authority>,
    /// Until when this holds, Unix time in seconds.
    until: u64,
    outcome: Result<Arc<Identity>, ClientError>,
}

/// A certificate that was believed.
#[derive(Clone, Debug)]
pub(crate) struct KnownCertificate {
    /// Its SHA-256 in hexadecimal digits.
    name: Arc<str>,
    /// The file of the authority that was believed.
    authority: Arc<str>,
    identity: Arc<Identity>,
    /// Leaf first.
    chain: Arc<[CertificateDer<'static>]>,
}

impl KnownCertificate {
    /// Its SHA-256 in hexadecimal digits: what names it to the operator.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file of the authority that was believed.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The name of its client.
    pub(super) fn client(&self) -> &str {
        &self.identity.id
    }

    /// The same by what is accepted now.
    pub(super) fn again(&self, table: &Table, access: &RouteAccess) -> Result<(Arc<Identity>, Self), Deny> {
        match ClientCertificate::new(&self.chain) {
            Some(certificate) => certificate.judge(table, access),
            None => Err(access.refuse(&table.snapshot.fence, "certificate.untrusted", "it is empty", "")),
        }
    }

    /// What the client showed, leaf first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

impl ClientCertificate {
    /// The chain of a finished handshake; none if it is empty.
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let thumbprint = sha256(chain.first()?);
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        Some(Self { chain, thumbprint, judged: RefCell::default() })
    }

    /// SHA-256 of the leaf, which tokens are bound to (RFC 8705).
    pub(crate) fn thumbprint(&self) -> [u8; 32] {
        self.thumbprint
    }

    /// Who the client is by the word of the first authority of a route that knows it, or why none does.
    pub(super) fn judge(
        &self,
        table: &Table,
        access: &RouteAccess,
    ) -> Result<(Arc<Identity>, KnownCertificate), Deny> {
        let mut first = None;
        for at in &access.authorities {
            let by = &table.authorities()[*at];
            match self.by(by) {
                Ok(identity) => {
                    let name = ringfence_keys::to_hex(&self.thumbprint).into();
                    let chain = self.chain.as_slice().into();
                    let authority = by.file.clone();
                    let known = KnownCertificate { name, authority, identity: identity.clone(), chain };
                    return Ok((identity, known));
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        let reason = first.map_or_else(|| "no authority is named".to_owned(), |error| error.to_string());
        Err(access.refuse(&table.snapshot.fence, "certificate.untrusted", reason, ""))
    }

    fn by(&self, authority: &Arc<Authority>) -> Result<Arc<Identity>, ClientError> {
        let now = unix_now();
        let mut judged = self.judged.borrow_mut();
        if let Some(known) = judged.iter().find(|j| Arc::ptr_eq(&j.by, authority) && now < j.until) {
            return known.outcome.clone();
        }
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        let outcome = authority.authority.verify(&self.chain, time);
        let until = match &outcome {
            Ok(client) => client.not_after_unix().saturating_add(1),
            Err(_) => now + REMEMBER_REFUSED,
        };
        let outcome =
            outcome.map(|client| Arc::new(Identity::client(&authority.provider, client.name(), Vec::new())));
        judged.retain(|j| !Arc::ptr_eq(&j.by, authority));
        if judged.len() >= MAX_JUDGED {
            judged.clear();
        }
        judged.push(Judged { by: authority.clone(), until, outcome: outcome.clone() });
        outcome
    }
}
