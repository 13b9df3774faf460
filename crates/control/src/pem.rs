//! PEM (RFC 7468), as far as control reads and writes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_keys::{Secret, SecretBytes};
use zeroize::Zeroizing;

/// Largest text that is read.
const MAX_TEXT: usize = 1 << 20;

/// Writes one block.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

/// The contents of all blocks of a kind; whatever stands around them is ignored. `None` when one has no end or is no Base64.
pub(crate) fn blocks(label: &str, text: &str) -> Option<Vec<SecretBytes>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let (mut found, mut rest) = (Vec::new(), text.get(..MAX_TEXT.min(text.len()))?);
    while let Some((_, after)) = rest.split_once(&begin) {
        let (body, after) = after.split_once(&end)?;
        let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
        found.push(Secret::new(STANDARD.decode(body.as_bytes()).ok()?));
        rest = after;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_among_other_things() {
        let text = format!(
            "a note\n{}{}{}",
            pem("CERTIFICATE", &[7; 100]),
            pem("X", &[1]),
            pem("CERTIFICATE", &[8])
        );
        let found = blocks("CERTIFICATE", &text).unwrap();
        assert_eq!(found.iter().map(|b| b.expose().len()).collect::<Vec<_>>(), [100, 1]);
        assert_eq!(blocks("PRIVATE KEY", &text).unwrap().len(), 0);
        assert!(
            blocks("X", "-----BEGIN X-----\nAQ==").is_none()
                && blocks("X", "-----BEGIN X-----\n!\n-----END X-----").is_none()
        );
    }
}
