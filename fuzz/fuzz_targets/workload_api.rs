//! What a workload may send: HTTP/2 bytes through the authority filter, messages, and their checks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use ringfence_ca::workload::authority::Filter;
use ringfence_ca::workload::wire::{JwtSvidRequest, ValidateJwtSvidRequest, X509SvidRequest};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{KeySet, verify_svid};

fuzz_target!(|data: &[u8]| {
    let _ = X509SvidRequest::decode(data);
    if let Ok(request) = JwtSvidRequest::decode(data)
        && request.check().is_ok()
    {
        assert!((1..=16).contains(&request.audience.len()));
    }
    if let Ok(request) = ValidateJwtSvidRequest::decode(data)
        && request.check().is_ok()
    {
        let domain = TrustDomain::new("clinic.example").unwrap();
        assert!(verify_svid(&request.svid, &domain, &KeySet::default(), &request.audience, 0).is_err());
    }
    // However the bytes are cut, the same comes out, and only ever dashes in place of what was there.
    let stream = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", data].concat();
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    Filter::new().push(&stream, &mut whole);
    let mut filter = Filter::new();
    for part in stream.chunks(1 + data.len() % 7) {
        filter.push(part, &mut parts);
    }
    assert_eq!(whole, parts);
    assert!(whole.iter().zip(&stream).all(|(new, old)| new == old || *new == b'-'));
});
