//! Certificates made field by field, so that each field can be wrong.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each test binary uses a part, and a step that fails fails the test"
)]

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use ringfence_spiffe::{
    BundleSet, CertificateDer, Role, SvidError, TrustBundle, TrustDomain, UnixTime, VerifiedPeer, verify_svid,
};

pub(crate) const NOW: i64 = 1_790_000_000;
pub(crate) const HOUR: i64 = 3_600;

pub(crate) const SAN: &[u8] = &[0x55, 0x1d, 17];
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
pub(crate) const BASIC: &[u8] = &[0x55, 0x1d, 19];
pub(crate) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
pub(crate) const EKU: &[u8] = &[0x55, 0x1d, 37];
pub(crate) const AKI: &[u8] = &[0x55, 0x1d, 35];
pub(crate) const UNKNOWN: &[u8] = &[0x2a, 0x03, 0x04];

pub(crate) const DIGITAL_SIGNATURE: u16 = 0x8000;
pub(crate) const KEY_ENCIPHERMENT: u16 = 0x2000;
pub(crate) const KEY_AGREEMENT: u16 = 0x0800;
pub(crate) const KEY_CERT_SIGN: u16 = 0x0400;
pub(crate) const CRL_SIGN: u16 = 0x0200;

pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
pub(crate) const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
pub(crate) const ANY_PURPOSE: &[u8] = &[0x55, 0x1d, 37, 0];

const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
pub(crate) const ECDSA_SHA384: &[u8] = &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];

/// One element.
pub(crate) fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match value.len() {
        length @ 0..=0x7f => out.push(length as u8),
        length @ 0x80..=0xff => out.extend([0x81, length as u8]),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(value);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn name(common_name: &str) -> Vec<u8> {
    let attribute = sequence(&[tlv(6, &[0x55, 4, 3]), tlv(0x0c, common_name.as_bytes())]);
    sequence(&[tlv(0x31, &attribute)])
}

pub(crate) fn uri(text: &str) -> Vec<u8> {
    tlv(0x86, text.as_bytes())
}

pub(crate) fn dns(text: &str) -> Vec<u8> {
    tlv(0x82, text.as_bytes())
}

fn utc_time(seconds: i64) -> Vec<u8> {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let text = format!("{:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z", year % 100);
    tlv(0x17, text.as_bytes())
}

/// A key for tests.
pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        let algorithm = sequence(&[
            tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]),
            tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]),
        ]);
        sequence(&[algorithm, tlv(3, &[&[0], self.0.public_key().as_ref()].concat())])
    }

    pub(crate) fn point(&self) -> [u8; 65] {
        self.0.public_key().as_ref().try_into().unwrap()
    }
}

/// A certificate before it is signed.
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) version: Option<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) spki: Vec<u8>,
    pub(crate) extensions: Vec<(Vec<u8>, bool, Vec<u8>)>,
    pub(crate) outer_algorithm: Vec<u8>,
    pub(crate) spoil_signature: bool,
    pub(crate) trailing: Vec<u8>,
}

impl Template {
    pub(crate) fn new(issuer: &str, subject: &str, key: &Key) -> Self {
        Self {
            version: Some(2),
            serial: vec![0x11, 0x22],
            issuer: name(issuer),
            subject: name(subject),
            not_before: NOW - HOUR,
            not_after: NOW + HOUR,
            spki: key.spki(),
            extensions: Vec::new(),
            outer_algorithm: ECDSA_SHA256.to_vec(),
            spoil_signature: false,
            trailing: Vec::new(),
        }
    }

    pub(crate) fn set(&mut self, id: &[u8], critical: bool, value: Vec<u8>) {
        self.remove(id);
        self.add(id, critical, value);
    }

    pub(crate) fn add(&mut self, id: &[u8], critical: bool, value: Vec<u8>) {
        self.extensions.push((id.to_vec(), critical, value));
    }

    pub(crate) fn remove(&mut self, id: &[u8]) {
        self.extensions.retain(|(known, _, _)| known != id);
    }

    /// Sets subjectAltName, critical exactly if the subject is empty.
    pub(crate) fn names(&mut self, names: &[Vec<u8>]) {
        let critical = self.subject == [0x30, 0];
        self.set(SAN, critical, sequence(names));
    }

    pub(crate) fn key_usage(&mut self, bits: u16) {
        self.set(KEY_USAGE, true, named_bits(bits));
    }

    pub(crate) fn basic(&mut self, ca: bool, path_len: Option<u8>) {
        let ca = if ca { tlv(1, &[0xff]) } else { Vec::new() };
        let path_len = path_len.map(|length| tlv(2, &[length])).unwrap_or_default();
        self.set(BASIC, true, sequence(&[ca, path_len]));
    }

    pub(crate) fn purposes(&mut self, purposes: &[&[u8]]) {
        let purposes: Vec<_> = purposes.iter().map(|id| tlv(6, id)).collect();
        self.set(EKU, false, sequence(&purposes));
    }

    pub(crate) fn sign(&self, key: &Key) -> CertificateDer<'static> {
        let version = self.version.map(|version| tlv(0xa0, &tlv(2, &[version]))).unwrap_or_default();
        let extensions: Vec<_> = self
            .extensions
            .iter()
            .map(|(id, critical, value)| {
                let critical = if *critical { tlv(1, &[0xff]) } else { Vec::new() };
                sequence(&[tlv(6, id), critical, tlv(4, value)])
            })
            .collect();
        let extensions = if extensions.is_empty() { Vec::new() } else { tlv(0xa3, &sequence(&extensions)) };
        let tbs = sequence(&[
            version,
            tlv(2, &self.serial),
            ECDSA_SHA256.to_vec(),
            self.issuer.clone(),
            sequence(&[utc_time(self.not_before), utc_time(self.not_after)]),
            self.subject.clone(),
            self.spki.clone(),
            extensions,
        ]);
        let mut signature = key.0.sign(&SystemRandom::new(), &tbs).unwrap().as_ref().to_vec();
        if self.spoil_signature {
            let last = signature.len() - 1;
            signature[last] ^= 1;
        }
        let signature = tlv(3, &[&[0], signature.as_slice()].concat());
        let mut der = sequence(&[tbs, self.outer_algorithm.clone(), signature]);
        der.extend(&self.trailing);
        CertificateDer::from(der)
    }
}

/// keyUsage as DER wants it: without trailing zero bits.
pub(crate) fn named_bits(bits: u16) -> Vec<u8> {
    let octets = bits.to_be_bytes();
    let used = if octets[1] != 0 { &octets[..] } else { &octets[..1] };
    let last = used[used.len() - 1];
    let (unused, used) = if last == 0 { (0, &[][..]) } else { (last.trailing_zeros() as u8, used) };
    tlv(3, &[&[unused], used].concat())
}

/// A trust domain with root, intermediate and leaf, all in order until a case changes something.
pub(crate) struct Fixture {
    pub(crate) trust_domain: &'static str,
    pub(crate) root_key: Key,
    pub(crate) intermediate_key: Key,
    pub(crate) leaf_key: Key,
    /// Signs the leaf instead of the intermediate.
    pub(crate) leaf_signer: Option<Key>,
    pub(crate) root: Template,
    pub(crate) intermediate: Template,
    pub(crate) leaf: Template,
    /// Changes what is presented.
    pub(crate) present: fn(&mut Vec<CertificateDer<'static>>, &CertificateDer<'static>),
    pub(crate) role: Role,
    pub(crate) now: i64,
}

impl Fixture {
    pub(crate) fn new(trust_domain: &'static str) -> Self {
        let (root_key, intermediate_key, leaf_key) = (Key::new(), Key::new(), Key::new());
        let id = format!("spiffe://{trust_domain}");
        let mut root = Template::new("root", "root", &root_key);
        let mut intermediate = Template::new("root", "issuing", &intermediate_key);
        for signer in [&mut root, &mut intermediate] {
            signer.basic(true, None);
            signer.key_usage(KEY_CERT_SIGN | CRL_SIGN);
            signer.names(&[uri(&id)]);
        }
        let mut leaf = Template::new("issuing", "workload", &leaf_key);
        leaf.key_usage(DIGITAL_SIGNATURE);
        leaf.purposes(&[SERVER_AUTH, CLIENT_AUTH]);
        leaf.names(&[uri(&format!("{id}/service/a"))]);
        Self {
            trust_domain,
            root_key,
            intermediate_key,
            leaf_key,
            leaf_signer: None,
            root,
            intermediate,
            leaf,
            present: |_, _| {},
            role: Role::Client,
            now: NOW,
        }
    }

    pub(crate) fn bundle(&self) -> Result<TrustBundle, ringfence_spiffe::BundleError> {
        let trust_domain = TrustDomain::new(self.trust_domain).unwrap();
        TrustBundle::new(trust_domain, vec![self.root.sign(&self.root_key)], vec![], 1, None)
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let leaf = self.leaf.sign(self.leaf_signer.as_ref().unwrap_or(&self.intermediate_key));
        let mut chain = vec![leaf, self.intermediate.sign(&self.root_key)];
        (self.present)(&mut chain, &self.root.sign(&self.root_key));
        chain
    }

    pub(crate) fn verify_with(&self, others: Vec<TrustBundle>) -> Result<VerifiedPeer, SvidError> {
        let own = self.bundle().expect("a bundle that is in order");
        let bundles = BundleSet::new(1, others.into_iter().chain([own]).map(Arc::new));
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.now as u64));
        verify_svid(&self.chain(), &bundles, self.role, now)
    }

    /// `accepted`, or the reason of the refusal; `bundle` if the root is refused already.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.bundle() {
            Err(_) => "bundle",
            Ok(_) => self.verify_with(vec![]).map_or_else(|error| error.reason(), |_| "accepted"),
        }
    }
}
