//! Formats that OpenAPI has beside those of JSON Schema.

/// `byte`: base64, padded (RFC 4648, section 4).
pub(crate) fn is_base64(text: &str) -> bool {
    let text = text.as_bytes();
    let pads = text.iter().rev().take_while(|b| **b == b'=').count();
    text.len().is_multiple_of(4)
        && pads <= 2
        && text[..text.len() - pads].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_padded() {
        assert!(super::is_base64("") && super::is_base64("TQ==") && super::is_base64("T+/n"));
        assert!(!super::is_base64("TQ") && !super::is_base64("T===") && !super::is_base64("T-_n"));
    }
}
