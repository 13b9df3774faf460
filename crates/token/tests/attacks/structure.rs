//! Attacks by the form: parts, encodings, sizes, signatures.

use crate::forge::{HONEST, b64, claims, door, header};
use crate::{Attack, attack};

const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for kid in ["ed", "ec", "rsa"] {
        let token = HONEST.token(kid, &header(kid).to_string(), &claims().to_string());
        let parts: Vec<&str> = token.split('.').collect();
        let [first, payload, signature] = parts[..] else { panic!("three parts") };
        for (name, token) in [
            ("the signature stripped", format!("{first}.{payload}.")),
            ("the signature and its dot stripped", format!("{first}.{payload}")),
            ("an empty payload", format!("{first}..{signature}")),
            ("an empty header", format!(".{payload}.{signature}")),
            ("a fourth part", format!("{token}.")),
            ("five parts, as encrypted ones have", format!("{first}.{payload}.{signature}.AA.AA")),
            ("padding behind the signature", format!("{token}=")),
            ("padding behind the header", format!("{first}=.{payload}.{signature}")),
            ("a space before", format!(" {token}")),
            ("a line break behind", format!("{token}\n")),
            ("a line break inside", format!("{first}.\n{payload}.{signature}")),
            ("the signature twice", format!("{first}.{payload}.{signature}{signature}")),
            ("the signature cut", format!("{first}.{payload}.{}", &signature[..signature.len() - 4])),
            (
                "the signature all zero",
                format!("{first}.{payload}.{}", b64(vec![0; if kid == "rsa" { 256 } else { 64 }])),
            ),
            ("header and payload swapped", format!("{payload}.{first}.{signature}")),
            (
                "another payload",
                format!("{first}.{}.{signature}", b64(claims().to_string().replace("ann", "bob"))),
            ),
            (
                "another header",
                format!("{}.{payload}.{signature}", b64(header(kid).to_string().replace("}", ",\"x\":1}"))),
            ),
            ("stray bits behind the signature", stray(&token)),
            ("the other alphabet", other_alphabet(kid)),
        ] {
            assert_ne!(token, parts.join("."));
            attacks.push(attack(format!("{name}, {kid}"), door(&token)));
        }
    }
    curves(&mut attacks);
    bombs(&mut attacks);
    attacks
}

/// The last character with one of its unused bits set.
fn stray(token: &str) -> String {
    let at = URL_SAFE.iter().position(|c| Some(*c) == token.bytes().last()).unwrap();
    format!("{}{}", &token[..token.len() - 1], char::from(URL_SAFE[at | 1]))
}

/// A good token whose signature is written with `+` and `/`.
fn other_alphabet(kid: &str) -> String {
    (0..)
        .find_map(|i| {
            let claims = crate::forge::changed(&claims(), serde_json::json!({ "jti": format!("{i}") }));
            let token = HONEST.token(kid, &header(kid).to_string(), &claims.to_string());
            let (input, signature) = token.rsplit_once('.').unwrap();
            let other = signature.replace('-', "+").replace('_', "/");
            (other != signature).then(|| format!("{input}.{other}"))
        })
        .unwrap()
}

/// Values that signatures on curves must not have.
fn curves(attacks: &mut Vec<Attack>) {
    let order =
        ringfence_keys::from_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let (zero, one) = ([0; 32], {
        let mut one = [0; 32];
        one[31] = 1;
        one
    });
    let input = format!("{}.{}", b64(header("ec").to_string()), b64(claims().to_string()));
    let good = HONEST.sign("ec", input.as_bytes());
    door(&format!("{input}.{}", b64(&good))).unwrap();
    let (r, s) = good.split_at(32);
    let der = HONEST.ec.sign_x509(input.as_bytes()).unwrap();
    for (name, signature) in [
        ("ES256 with r = s = 0", [zero, zero].concat()),
        ("ES256 with r = 0", [&zero, s].concat()),
        ("ES256 with s = 0", [r, &zero].concat()),
        ("ES256 with r = s = 1", [one, one].concat()),
        ("ES256 with r = n", [&order[..], s].concat()),
        ("ES256 with s = n", [r, &order[..]].concat()),
        ("ES256 with r = s = n", [&order[..], &order[..]].concat()),
        ("ES256 with r beyond the field", [&[0xff; 32][..], s].concat()),
        ("ES256 in DER", der),
        ("ES256 with zeros before its halves", [&[0][..], r, &[0], s].concat()),
        ("ES256 with halves swapped", [s, r].concat()),
    ] {
        attacks.push(attack(name, door(&format!("{input}.{}", b64(signature)))));
    }
    let input = format!("{}.{}", b64(header("ed").to_string()), b64(claims().to_string()));
    let good = HONEST.sign("ed", input.as_bytes());
    door(&format!("{input}.{}", b64(&good))).unwrap();
    // s and s + L verify alike where the range is not checked.
    let l =
        ringfence_keys::from_hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut grown = good.clone();
    let mut carry = 0;
    for (byte, add) in grown[32..].iter_mut().zip(&l) {
        let sum = u16::from(*byte) + u16::from(*add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
    attacks.push(attack("EdDSA with s + L", door(&format!("{input}.{}", b64(&grown)))));
    let mut identity = vec![0; 64];
    identity[0] = 1;
    attacks.push(attack(
        "EdDSA with the neutral element and s = 0",
        door(&format!("{input}.{}", b64(&identity))),
    ));
}

/// Whatever is large, deep or packed.
fn bombs(attacks: &mut Vec<Attack>) {
    let sign = |header: &str, payload: &str| HONEST.token("ed", header, payload);
    let (header, claims) = (header("ed").to_string(), claims().to_string());
    let with = |member: &str| claims.replacen('{', &format!("{{{member},"), 1);
    let nested = |depth: usize| format!("\"x\":{}1{}", "[".repeat(depth), "]".repeat(depth));
    door(&sign(&header, &with(&nested(6)))).unwrap();
    door(&sign(&header, &with(&format!("\"x\":\"{}\"", "a".repeat(5000))))).unwrap();
    for (name, token) in [
        ("a token of more than 8 KiB", sign(&header, &with(&format!("\"x\":\"{}\"", "a".repeat(7000))))),
        ("a token of a megabyte", "A".repeat(1 << 20)),
        ("dots without end", ".".repeat(8000)),
        ("a payload nested 9 deep", sign(&header, &with(&nested(9)))),
        ("a payload nested 2000 deep", sign(&header, &with(&nested(2000)))),
        (
            "a header nested 2000 deep",
            sign(&header.replacen('{', &format!("{{{},", nested(2000)), 1), &claims),
        ),
        ("a payload that is a list", sign(&header, &format!("[{claims}]"))),
        ("a payload that is a text", sign(&header, "\"ann\"")),
        ("a payload that is null", sign(&header, "null")),
        ("a payload that is no JSON", sign(&header, "sub=ann")),
        ("a payload with something behind it", sign(&header, &format!("{claims} {{}}"))),
        ("a payload with a comment", sign(&header, &format!("{claims}//"))),
        ("a payload with a byte order mark", sign(&header, &format!("\u{feff}{claims}"))),
        ("a payload with a lone surrogate", sign(&header, &with("\"x\":\"\\ud800\""))),
        ("a payload with NaN", sign(&header, &with("\"x\":NaN"))),
        ("a payload with a trailing comma", sign(&header, &claims.replacen('}', ",}", 1))),
        ("a token inside a token", sign(&header, &sign(&header, &claims))),
        ("an encrypted token", format!("{}.AA.AA.AA.AA", b64(r#"{"alg":"dir","enc":"A256GCM"}"#))),
        ("an encrypted token with a password of a billion rounds", {
            format!(
                "{}.AA.AA.AA.AA",
                b64(r#"{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","p2c":1000000000,"p2s":"AA"}"#)
            )
        }),
        ("a compressed token", sign(&header.replacen('{', "{\"zip\":\"DEF\",", 1), &claims)),
        ("the JSON form", format!("{{\"payload\":\"{}\",\"protected\":\"{}\"}}", b64(&claims), b64(&header))),
        ("nothing", String::new()),
        ("two dots", "..".to_owned()),
        ("letters beyond ASCII", sign(&header, &claims).replacen('e', "\u{435}", 1)),
        ("the word null", "null.null.null".to_owned()),
    ] {
        attacks.push(attack(name, door(&token)));
    }
    let mut bytes = b"{\"x\":\"".to_vec();
    bytes.extend([0xff, 0xfe]);
    bytes.extend(format!("\",{}", &claims[1..]).as_bytes());
    let input = format!("{}.{}", b64(&header), b64(bytes));
    let signature = HONEST.sign("ed", input.as_bytes());
    attacks.push(attack("a payload that is no UTF-8", door(&format!("{input}.{}", b64(signature)))));
}
