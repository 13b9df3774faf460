//! Texts of others, as a terminal and a log may have them.

use std::fmt::Write as _;

/// Without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if hidden {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same on one line and not endless.
pub(crate) fn short(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = plain(&line.chars().take(characters).collect::<String>());
    if line.chars().nth(characters).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_without_orders_to_the_terminal() {
        assert_eq!(short("a\n  b\u{1b}[2J\u{202e}c", 40), "a b\\u{1b}[2J\\u{202e}c");
        assert_eq!(short(&"ä".repeat(50), 10), format!("{}…", "ä".repeat(10)));
    }
}
