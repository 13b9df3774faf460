//! The X509-SVID standard as a table: each case names its section, what is changed, and the verdict.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a step that fails fails the test")]

mod support;

use ringfence_spiffe::Role;
use support::*;

struct Case {
    section: &'static str,
    what: &'static str,
    expected: &'static str,
    change: fn(&mut Fixture),
}

const fn case(
    section: &'static str,
    what: &'static str,
    expected: &'static str,
    change: fn(&mut Fixture),
) -> Case {
    Case { section, what, expected, change }
}

const OK: &str = "accepted";
const A: &str = "spiffe://example.org/service/a";

/// Changes the leaf's only URI.
fn leaf_id(fixture: &mut Fixture, id: &str) {
    fixture.leaf.names(&[uri(id)]);
}

const CASES: &[Case] = &[
    // 2. SPIFFE ID
    case("2", "one URI name", OK, |_| {}),
    case("2", "two IDs", "many_spiffe_ids", |f| {
        f.leaf.names(&[uri(A), uri("spiffe://example.org/service/b")])
    }),
    case("2", "the same ID twice", "many_spiffe_ids", |f| f.leaf.names(&[uri(A), uri(A)])),
    case("2", "an ID and another URI", "many_spiffe_ids", |f| {
        f.leaf.names(&[uri(A), uri("https://example.org")])
    }),
    case("2", "another URI and an ID", "many_spiffe_ids", |f| f.leaf.names(&[uri("urn:a"), uri(A)])),
    case("2", "a second URI behind other names", "many_spiffe_ids", |f| {
        f.leaf.names(&[uri(A), dns("a.example.org"), uri("spiffe://example.org/service/b")]);
    }),
    case("2", "an ID of another trust domain beside", "many_spiffe_ids", |f| {
        f.leaf.names(&[uri(A), uri("spiffe://other.org/service/a")]);
    }),
    case("2", "no subjectAltName", "no_spiffe_id", |f| f.leaf.remove(SAN)),
    case("2", "only a DNS name", "no_spiffe_id", |f| f.leaf.names(&[dns("a.example.org")])),
    case("2", "the ID only as common name", "no_spiffe_id", |f| {
        f.leaf.subject = name(A);
        f.leaf.remove(SAN);
    }),
    case("2", "the ID as a DNS name", "no_spiffe_id", |f| f.leaf.names(&[dns(A)])),
    case("2", "the ID as a mail address", "no_spiffe_id", |f| f.leaf.names(&[tlv(0x81, A.as_bytes())])),
    case("2", "DNS names beside", OK, |f| {
        f.leaf.names(&[dns("a.example.org"), uri(A), dns("b.example.org")])
    }),
    case("2", "an address beside", OK, |f| f.leaf.names(&[uri(A), tlv(0x87, &[127, 0, 0, 1])])),
    case("2", "an IPv6 address beside", OK, |f| f.leaf.names(&[uri(A), tlv(0x87, &[0; 16])])),
    case("2", "a mail address beside", OK, |f| f.leaf.names(&[uri(A), tlv(0x81, b"a@example.org")])),
    case("2", "a directory name beside", OK, |f| f.leaf.names(&[uri(A), tlv(0xa4, &name("a"))])),
    case("2", "an address of three octets beside", "malformed", |f| {
        f.leaf.names(&[uri(A), tlv(0x87, &[1, 2, 3])])
    }),
    case("2", "an unknown kind of name beside", "malformed", |f| f.leaf.names(&[uri(A), tlv(0x89, b"x")])),
    case("2", "a name list that is empty", "malformed", |f| f.leaf.names(&[])),
    case("2", "a name list that is no DER", "malformed", |f| f.leaf.set(SAN, false, A.as_bytes().to_vec())),
    case("2", "bytes behind the name list", "malformed", |f| {
        f.leaf.set(SAN, false, [sequence(&[uri(A)]), vec![0]].concat());
    }),
    case("2", "two subjectAltName extensions", "malformed", |f| f.leaf.add(SAN, false, sequence(&[uri(A)]))),
    case("2", "513 names", "malformed", |f| {
        let mut names = vec![dns("a.example.org"); 512];
        names.push(uri(A));
        f.leaf.names(&names);
    }),
    case("2", "an ID with a byte beyond ASCII", "malformed", |f| {
        f.leaf.names(&[tlv(0x86, b"spiffe://example.org/\xc3\xa9")])
    }),
    case("2", "an ID with a NUL", "bad_spiffe_id", |f| leaf_id(f, "spiffe://example.org/a\0b")),
    case("2", "an empty URI", "bad_spiffe_id", |f| leaf_id(f, "")),
    case("2", "an ID of 2048 bytes", OK, |f| {
        leaf_id(f, &format!("spiffe://example.org/{}", "a".repeat(2027)))
    }),
    case("2", "an ID of 2049 bytes", "bad_spiffe_id", |f| {
        leaf_id(f, &format!("spiffe://example.org/{}", "a".repeat(2028)));
    }),
    // 3.1 Leaf certificates
    case("3.1", "an ID without path", "no_path", |f| leaf_id(f, "spiffe://example.org")),
    case("3.1", "an ID with a slash for path", "bad_spiffe_id", |f| leaf_id(f, "spiffe://example.org/")),
    case("3.1", "no subject, names critical", OK, |f| {
        f.leaf.subject = vec![0x30, 0];
        f.leaf.names(&[uri(A)]);
    }),
    case("3.1", "no subject, names not critical", "profile", |f| {
        f.leaf.subject = vec![0x30, 0];
        f.leaf.set(SAN, false, sequence(&[uri(A)]));
    }),
    case("3.1", "a subject, names critical", OK, |f| f.leaf.set(SAN, true, sequence(&[uri(A)]))),
    // 3.2 Signing certificates
    case("3.2", "an intermediate without ID", OK, |f| f.intermediate.remove(SAN)),
    case("3.2", "an intermediate with a DNS name only", OK, |f| {
        f.intermediate.names(&[dns("ca.example.org")])
    }),
    case("3.2", "an intermediate whose ID has a path", "signing_id", |f| {
        f.intermediate.names(&[uri("spiffe://example.org/ca")]);
    }),
    case("3.2", "an intermediate of another trust domain", "signing_id", |f| {
        f.intermediate.names(&[uri("spiffe://other.org")]);
    }),
    case("3.2", "an intermediate whose URI is no ID", "signing_id", |f| {
        f.intermediate.names(&[uri("https://example.org")]);
    }),
    case("3.2", "an intermediate with two IDs", "many_spiffe_ids", |f| {
        f.intermediate.names(&[uri("spiffe://example.org"), uri("spiffe://other.org")]);
    }),
    case("3.2", "a root without ID", OK, |f| f.root.remove(SAN)),
    case("3.2", "a root whose ID has a path", "bundle", |f| f.root.names(&[uri("spiffe://example.org/ca")])),
    case("3.2", "a root of another trust domain", "bundle", |f| f.root.names(&[uri("spiffe://other.org")])),
    case("3.2", "a root with two IDs", "bundle", |f| {
        f.root.names(&[uri("spiffe://example.org"), uri("spiffe://example.org")]);
    }),
    case("3.2", "the root as leaf", "no_path", |f| f.present = |chain, root| *chain = vec![root.clone()]),
    case("3.2", "the intermediate as leaf", "no_path", |f| {
        f.present = |chain, _| {
            chain.remove(0);
        };
    }),
    case("3.2", "an intermediate with a workload's ID as leaf", "leaf_may_sign", |f| {
        f.intermediate.names(&[uri(A)]);
        f.present = |chain, _| {
            chain.remove(0);
        };
    }),
    case("3.2", "a leaf that signed a leaf", "no_path_to_root", |f| {
        f.intermediate.remove(BASIC);
        f.intermediate.key_usage(DIGITAL_SIGNATURE);
        f.intermediate.remove(SAN);
    }),
    // 4.1 Basic constraints
    case("4.1", "a leaf without basicConstraints", OK, |f| f.leaf.remove(BASIC)),
    case("4.1", "a leaf that says it is no CA", OK, |f| f.leaf.basic(false, None)),
    case("4.1", "a leaf that is a CA", "leaf_may_sign", |f| f.leaf.basic(true, None)),
    case("4.1", "a leaf that is a CA, not critical", "leaf_may_sign", |f| {
        f.leaf.set(BASIC, false, sequence(&[tlv(1, &[0xff])]));
    }),
    case("4.1", "a leaf with a path length", "leaf_may_sign", |f| f.leaf.basic(false, Some(0))),
    case("4.1", "a leaf whose cA is no DER boolean", "malformed", |f| {
        f.leaf.set(BASIC, true, sequence(&[tlv(1, &[0x01])]));
    }),
    case("4.1", "a leaf with two basicConstraints", "malformed", |f| {
        f.leaf.basic(false, None);
        f.leaf.add(BASIC, true, sequence(&[tlv(1, &[0xff])]));
    }),
    case("4.1", "an intermediate that is no CA", "no_path_to_root", |f| f.intermediate.basic(false, None)),
    case("4.1", "an intermediate without basicConstraints", "no_path_to_root", |f| {
        f.intermediate.remove(BASIC)
    }),
    case("4.1", "an intermediate whose basicConstraints is not critical", "profile", |f| {
        f.intermediate.set(BASIC, false, sequence(&[tlv(1, &[0xff])]));
    }),
    case("4.1", "a root without basicConstraints", "bundle", |f| f.root.remove(BASIC)),
    case("4.1", "a root that is no CA", "bundle", |f| f.root.basic(false, None)),
    case("4.1", "an intermediate with path length 0", OK, |f| f.intermediate.basic(true, Some(0))),
    case("4.1", "a root with path length 1", OK, |f| f.root.basic(true, Some(1))),
    case("4.1", "a root with path length 0 above an intermediate", "profile", |f| {
        f.root.basic(true, Some(0))
    }),
    // 4.2 Name constraints
    case("4.2", "URI constraints that would permit (not supported, so refused)", "no_path_to_root", |f| {
        f.intermediate.set(NAME_CONSTRAINTS, true, constraints(0xa0, &uri("example.org")));
    }),
    case("4.2", "URI constraints that exclude", "no_path_to_root", |f| {
        f.intermediate.set(NAME_CONSTRAINTS, true, constraints(0xa1, &uri("example.org")));
    }),
    case("4.2", "URI constraints on the root", "no_path_to_root", |f| {
        f.root.set(NAME_CONSTRAINTS, true, constraints(0xa0, &uri("other.org")));
    }),
    case("4.2", "DNS constraints that permit the leaf's DNS name", OK, |f| {
        f.intermediate.set(NAME_CONSTRAINTS, true, constraints(0xa0, &dns("example.org")));
        f.leaf.names(&[uri(A), dns("a.example.org")]);
    }),
    case("4.2", "DNS constraints that do not", "no_path_to_root", |f| {
        f.intermediate.set(NAME_CONSTRAINTS, true, constraints(0xa0, &dns("other.org")));
        f.leaf.names(&[uri(A), dns("a.example.org")]);
    }),
    case("4.2", "constraints on the leaf", "profile", |f| {
        f.leaf.set(NAME_CONSTRAINTS, true, constraints(0xa0, &dns("example.org")));
    }),
    case("4.2", "constraints that are not critical", "profile", |f| {
        f.intermediate.set(NAME_CONSTRAINTS, false, constraints(0xa0, &dns("example.org")));
    }),
    case("4.2", "constraints that list nothing", "profile", |f| {
        f.intermediate.set(NAME_CONSTRAINTS, true, sequence(&[]));
    }),
    case("4.2", "constraints with a wildcard", "profile", |f| {
        f.intermediate.set(NAME_CONSTRAINTS, true, constraints(0xa1, &dns("*.example.com")));
    }),
    // 4.3 Key usage
    case("4.3", "a leaf without keyUsage", "key_usage", |f| f.leaf.remove(KEY_USAGE)),
    case("4.3", "a leaf whose keyUsage is not critical", "key_usage", |f| {
        f.leaf.set(KEY_USAGE, false, named_bits(DIGITAL_SIGNATURE));
    }),
    case("4.3", "a leaf without digitalSignature", "key_usage", |f| f.leaf.key_usage(KEY_ENCIPHERMENT)),
    case("4.3", "a leaf with no bit set", "key_usage", |f| f.leaf.key_usage(0)),
    case("4.3", "a leaf with keyEncipherment too", OK, |f| {
        f.leaf.key_usage(DIGITAL_SIGNATURE | KEY_ENCIPHERMENT)
    }),
    case("4.3", "a leaf with keyAgreement too", OK, |f| f.leaf.key_usage(DIGITAL_SIGNATURE | KEY_AGREEMENT)),
    case("4.3", "a leaf with all three", OK, |f| {
        f.leaf.key_usage(DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT);
    }),
    case("4.3", "a leaf with keyCertSign", "leaf_may_sign", |f| {
        f.leaf.key_usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN)
    }),
    case("4.3", "a leaf with cRLSign", "leaf_may_sign", |f| f.leaf.key_usage(DIGITAL_SIGNATURE | CRL_SIGN)),
    case("4.3", "keyUsage with padding bits set", "malformed", |f| {
        f.leaf.set(KEY_USAGE, true, tlv(3, &[7, 0xc0]))
    }),
    case("4.3", "keyUsage with trailing zero bits", "malformed", |f| {
        f.leaf.set(KEY_USAGE, true, tlv(3, &[0, 0x80]))
    }),
    case("4.3", "two keyUsage extensions", "malformed", |f| {
        f.leaf.add(KEY_USAGE, true, named_bits(DIGITAL_SIGNATURE))
    }),
    case("4.3", "an intermediate with keyCertSign only", OK, |f| f.intermediate.key_usage(KEY_CERT_SIGN)),
    case("4.3", "an intermediate without keyCertSign", "profile", |f| f.intermediate.key_usage(CRL_SIGN)),
    case("4.3", "an intermediate without keyUsage", "profile", |f| f.intermediate.remove(KEY_USAGE)),
    case("4.3", "an intermediate whose keyUsage is not critical", "profile", |f| {
        f.intermediate.set(KEY_USAGE, false, named_bits(KEY_CERT_SIGN));
    }),
    case("4.3", "a root without keyCertSign", "bundle", |f| f.root.key_usage(CRL_SIGN)),
    case("4.3", "a root without keyUsage", "bundle", |f| f.root.remove(KEY_USAGE)),
    case("4.3", "a root whose keyUsage is not critical", "bundle", |f| {
        f.root.set(KEY_USAGE, false, named_bits(KEY_CERT_SIGN));
    }),
    // 4.4 Extended key usage
    case("4.4", "a leaf without purposes", OK, |f| f.leaf.remove(EKU)),
    case("4.4", "purposes critical", OK, |f| {
        f.leaf.set(EKU, true, sequence(&[tlv(6, CLIENT_AUTH), tlv(6, SERVER_AUTH)]));
    }),
    case("4.4", "purposes beyond the two", OK, |f| {
        f.leaf.purposes(&[CODE_SIGNING, SERVER_AUTH, CLIENT_AUTH])
    }),
    case("4.4", "serverAuth only, of a caller", "extended_key_usage", |f| f.leaf.purposes(&[SERVER_AUTH])),
    case("4.4", "serverAuth only, of a callee", "extended_key_usage", |f| {
        f.role = Role::Server;
        f.leaf.purposes(&[SERVER_AUTH]);
    }),
    case("4.4", "clientAuth only, of a caller", "extended_key_usage", |f| f.leaf.purposes(&[CLIENT_AUTH])),
    case("4.4", "clientAuth only, of a callee", "extended_key_usage", |f| {
        f.role = Role::Server;
        f.leaf.purposes(&[CLIENT_AUTH]);
    }),
    case("4.4", "any purpose instead of the two", "extended_key_usage", |f| f.leaf.purposes(&[ANY_PURPOSE])),
    case("4.4", "an empty list of purposes", "malformed", |f| f.leaf.purposes(&[])),
    case("4.4", "an intermediate with both purposes", OK, |f| {
        f.intermediate.purposes(&[SERVER_AUTH, CLIENT_AUTH])
    }),
    case("4.4", "an intermediate for other purposes", "no_path_to_root", |f| {
        f.intermediate.purposes(&[CODE_SIGNING])
    }),
    // 5.1 Path validation
    case("5.1", "of a callee", OK, |f| f.role = Role::Server),
    case("5.1", "no certificate", "no_certificate", |f| f.present = |chain, _| chain.clear()),
    case("5.1", "a leaf at its first second", OK, |f| f.now = f.leaf.not_before),
    case("5.1", "a leaf one second early", "not_valid_yet", |f| f.now = f.leaf.not_before - 1),
    case("5.1", "a leaf at its last second", OK, |f| f.now = f.leaf.not_after),
    case("5.1", "a leaf one second late", "expired", |f| {
        f.leaf.not_after = NOW;
        f.now = NOW + 1;
    }),
    case("5.1", "a leaf that ends before it begins", "no_path_to_root", |f| {
        f.leaf.not_before = NOW + 1;
        f.leaf.not_after = NOW - 1;
    }),
    case("5.1", "an expired intermediate", "expired", |f| f.intermediate.not_after = NOW - 1),
    case("5.1", "an intermediate that is not valid yet", "not_valid_yet", |f| {
        f.intermediate.not_before = NOW + 1
    }),
    case("5.1", "an expired root", "authority_not_valid_now", |f| f.root.not_after = NOW - 1),
    case("5.1", "a root that is not valid yet", "authority_not_valid_now", |f| f.root.not_before = NOW + 1),
    case("5.1", "a spoilt signature on the leaf", "bad_signature", |f| f.leaf.spoil_signature = true),
    case("5.1", "a spoilt signature on the intermediate", "bad_signature", |f| {
        f.intermediate.spoil_signature = true
    }),
    case("5.1", "a leaf signed by somebody under the intermediate's name", "bad_signature", |f| {
        f.leaf_signer = Some(Key::new());
    }),
    case("5.1", "a leaf from an issuer that nobody knows", "untrusted", |f| f.leaf.issuer = name("nobody")),
    case("5.1", "a self-signed leaf", "untrusted", |f| {
        f.leaf.issuer = f.leaf.subject.clone();
        let key = Key::new();
        f.leaf.spki = key.spki();
        f.leaf_signer = Some(key);
    }),
    case("5.1", "the intermediate left out", "untrusted", |f| f.present = |chain, _| chain.truncate(1)),
    case("5.1", "the root shown too", OK, |f| f.present = |chain, root| chain.push(root.clone())),
    case("5.1", "the intermediate shown last", OK, |f| {
        f.present = |chain, root| chain.insert(1, root.clone())
    }),
    case("5.1", "six certificates", "chain_too_long", |f| {
        f.present = |chain, root| chain.resize(6, root.clone())
    }),
    case("5.1", "a certificate above the size bound", "certificate_too_large", |f| {
        f.leaf.add(UNKNOWN, false, tlv(4, &vec![0; 16 * 1024]));
    }),
    case("5.1", "an intermediate that is no certificate", "malformed", |f| {
        f.present = |chain, _| chain[1] = vec![0x30, 0].into();
    }),
    case("5.1", "bytes behind the leaf", "malformed", |f| f.leaf.trailing = vec![0]),
    case("5.1", "version 1", "malformed", |f| f.leaf.version = None),
    case("5.1", "version 2", "malformed", |f| f.leaf.version = Some(1)),
    case("5.1", "version 4", "malformed", |f| f.leaf.version = Some(3)),
    case("5.1", "no extension", "no_spiffe_id", |f| f.leaf.extensions.clear()),
    case("5.1", "two signature algorithms", "malformed", |f| f.leaf.outer_algorithm = ECDSA_SHA384.to_vec()),
    case("5.1", "serial number 0", "profile", |f| f.leaf.serial = vec![0]),
    case("5.1", "a negative serial number", "profile", |f| f.leaf.serial = vec![0x80, 1]),
    case("5.1", "a serial number of 20 octets", OK, |f| f.leaf.serial = vec![1; 20]),
    case("5.1", "a serial number of 21 octets", "profile", |f| f.leaf.serial = vec![1; 21]),
    case("5.1", "a serial number with a needless zero", "malformed", |f| f.leaf.serial = vec![0, 1]),
    case("5.1", "an unknown critical extension", "profile", |f| f.leaf.add(UNKNOWN, true, vec![5, 0])),
    case("5.1", "an unknown extension that is not critical", OK, |f| f.leaf.add(UNKNOWN, false, vec![5, 0])),
    case("5.1", "an unknown extension twice", "malformed", |f| {
        f.leaf.add(UNKNOWN, false, vec![5, 0]);
        f.leaf.add(UNKNOWN, false, vec![5, 0]);
    }),
    case("5.1", "an unknown critical extension on the intermediate", "no_path_to_root", |f| {
        f.intermediate.add(UNKNOWN, true, vec![5, 0]);
    }),
    case("5.1", "an unknown critical extension on the root", "bundle", |f| {
        f.root.add(UNKNOWN, true, vec![5, 0])
    }),
    case("5.1", "a critical authorityKeyIdentifier", "profile", |f| {
        f.leaf.add(AKI, true, sequence(&[tlv(0x80, &[1; 20])]));
    }),
    case("5.1", "a leaf with no issuer", "profile", |f| f.leaf.issuer = vec![0x30, 0]),
    case("5.1", "a root with no subject", "bundle", |f| {
        f.root.subject = vec![0x30, 0];
        f.root.names(&[uri("spiffe://example.org")]);
    }),
    case("5.1", "a key on a curve that is too small", "profile", |f| {
        f.leaf.spki = sequence(&[
            sequence(&[tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), tlv(6, &[0x2b, 0x81, 4, 0, 0x21])]),
            tlv(3, &[vec![0, 4], vec![1; 56]].concat()),
        ]);
    }),
    case("5.1", "an Ed25519 key that everybody can sign for", "profile", |f| f.leaf.spki = ed25519([0; 32])),
    case("5.1", "an Ed25519 key", OK, |f| f.leaf.spki = ed25519([0x66; 32])),
    case("5.1", "an RSA key of 1024 bits", "profile", |f| f.leaf.spki = rsa(128)),
    case("5.1", "an RSA key of 2048 bits", OK, |f| f.leaf.spki = rsa(256)),
    // 5.2 Leaf validation
    case("5.2", "an ID in a trust domain without bundle", "unknown_trust_domain", |f| {
        leaf_id(f, "spiffe://other.org/service/a");
    }),
    case("5.2", "an ID in a subdomain of the trust domain", "unknown_trust_domain", |f| {
        leaf_id(f, "spiffe://sub.example.org/service/a");
    }),
    case("5.2", "an ID in a parent of the trust domain", "unknown_trust_domain", |f| {
        leaf_id(f, "spiffe://org/service/a")
    }),
    case("5.2", "another scheme", "bad_spiffe_id", |f| leaf_id(f, "https://example.org/service/a")),
    case("5.2", "the scheme in capitals", "bad_spiffe_id", |f| leaf_id(f, "SPIFFE://example.org/service/a")),
    case("5.2", "a trust domain in capitals", "bad_spiffe_id", |f| {
        leaf_id(f, "spiffe://Example.org/service/a")
    }),
    case("5.2", "a port", "bad_spiffe_id", |f| leaf_id(f, "spiffe://example.org:443/service/a")),
    case("5.2", "a user", "bad_spiffe_id", |f| leaf_id(f, "spiffe://admin@example.org/service/a")),
    case("5.2", "a query", "bad_spiffe_id", |f| leaf_id(f, "spiffe://example.org/service/a?b")),
    case("5.2", "a fragment", "bad_spiffe_id", |f| leaf_id(f, "spiffe://example.org/service/a#b")),
    case("5.2", "percent-encoding", "bad_spiffe_id", |f| leaf_id(f, "spiffe://example.org/service%2fa")),
    case("5.2", "a way out by dots", "bad_spiffe_id", |f| {
        leaf_id(f, "spiffe://example.org/service/../admin")
    }),
    case("5.2", "a space in front", "bad_spiffe_id", |f| leaf_id(f, " spiffe://example.org/service/a")),
];

fn constraints(kind: u8, base: &[u8]) -> Vec<u8> {
    sequence(&[tlv(kind, &tlv(0x30, base))])
}

/// An RSA public key of this many octets.
fn ed25519(point: [u8; 32]) -> Vec<u8> {
    let algorithm = sequence(&[tlv(6, &[0x2b, 0x65, 0x70])]);
    sequence(&[algorithm, tlv(3, &[&[0], &point[..]].concat())])
}

fn rsa(octets: usize) -> Vec<u8> {
    let modulus = [vec![0], vec![0xc1; octets]].concat();
    let key = sequence(&[tlv(2, &modulus), tlv(2, &[1, 0, 1])]);
    sequence(&[
        sequence(&[tlv(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]), tlv(5, &[])]),
        tlv(3, &[vec![0], key].concat()),
    ])
}

#[test]
fn every_case_of_the_x509_svid_standard_has_its_verdict() {
    let mut wrong = Vec::new();
    for case in CASES {
        let mut fixture = Fixture::new("example.org");
        (case.change)(&mut fixture);
        let verdict = fixture.verdict();
        if verdict != case.expected {
            wrong.push(format!(
                "X509-SVID {}: {}: {verdict}, expected {}",
                case.section, case.what, case.expected
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
    assert!(CASES.len() >= 120, "{}", CASES.len());
}

#[test]
fn a_federated_authority_speaks_for_its_own_trust_domain_only() {
    let (mut ours, theirs) = (Fixture::new("example.org"), Fixture::new("other.org"));
    // X509-SVID 5.2 and Trust Domain and Bundle 3: the bundle is chosen by the SVID's trust domain.
    assert!(theirs.verify_with(vec![ours.bundle().unwrap()]).is_ok());

    let mut forged = Fixture::new("other.org");
    forged.leaf.names(&[uri("spiffe://example.org/service/a")]);
    forged.intermediate.remove(SAN);
    let error = forged.verify_with(vec![ours.bundle().unwrap()]).unwrap_err();
    assert!(matches!(error.reason(), "untrusted" | "bad_signature"), "{error}");

    // Without a bundle for it, even its own SVIDs mean nothing.
    ours.present = |_, _| {};
    ours.leaf.names(&[uri("spiffe://other.org/service/a")]);
    assert_eq!(ours.verdict(), "unknown_trust_domain");
}

#[test]
fn the_verified_peer_ends_with_the_first_certificate_of_its_path() {
    let mut fixture = Fixture::new("example.org");
    fixture.intermediate.not_after = NOW + 60;
    let peer = fixture.verify_with(vec![]).unwrap();
    assert_eq!(peer.not_after_unix(), (NOW + 60) as u64);
    assert_eq!(peer.serial(), "1122");
    fixture.root.not_after = NOW + 30;
    assert_eq!(fixture.verify_with(vec![]).unwrap().not_after_unix(), (NOW + 30) as u64);
}

#[test]
fn every_reason_says_what_to_do() {
    for case in CASES.iter().filter(|case| case.expected != OK && case.expected != "bundle") {
        let mut fixture = Fixture::new("example.org");
        (case.change)(&mut fixture);
        let message = fixture.verify_with(vec![]).unwrap_err().to_string();
        assert!(message.len() > 20 && !message.ends_with('.'), "{message}");
    }
}
