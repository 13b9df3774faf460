//! "Did you mean": the nearest known word, or nothing when none is near.

/// The candidate nearest to `word`, when it is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distances cost the product of the lengths; no name that can be right is longer than this.
    if word.len() > 80 {
        return None;
    }
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word && candidate.len().abs_diff(word.len()) <= 3)
        .map(|candidate| (strsim::osa_distance(&word.to_lowercase(), candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The help line for a word that is not known: the nearest one, else the few that exist.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(near) = nearest(word, known.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let all: Vec<&str> = known.into_iter().take(13).collect();
    (!all.is_empty() && all.len() <= 12).then(|| format!("known here: {}", all.join(", ")))
}

/// A word from outside as it may be shown: in backquotes, escaped, and not endless.
pub(crate) fn quote(word: &str) -> String {
    let mut shown: String = word.chars().take(64).flat_map(visible).collect();
    if word.chars().nth(64).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// A character as a terminal may see it: control and direction characters are spelled out.
pub(crate) fn visible(c: char) -> impl Iterator<Item = char> {
    let hidden = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let plain = (!hidden).then_some(c);
    let escaped = hidden.then(|| c.escape_unicode());
    plain.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_different_word_is_not() {
        assert_eq!(nearest("paymnets", ["patients", "payments"]), Some("payments"));
        assert_eq!(nearest("Payments", ["payments"]), Some("payments"));
        assert_eq!(nearest("ledger", ["payments", "portal"]), None);
    }

    #[test]
    fn a_word_cannot_write_to_the_terminal() {
        assert_eq!(quote("a\u{1b}[2Jb\u{202e}"), "`a\\u{1b}[2Jb\\u{202e}`");
        assert!(quote(&"x".repeat(100_000)).chars().count() < 70);
    }
}
