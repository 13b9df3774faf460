//! The name in a DNS question, for the event that says who asked for what.

/// Longest name, in text.
const MAX_NAME: usize = 253;

/// The name that the first question of `message` asks for. Bytes that are no plain host name's become `?`, since the name
/// goes to terminals.
pub fn question(message: &[u8]) -> Option<String> {
    let (header, mut rest) = message.split_at_checked(12)?;
    let is_question = header[2] & 0x80 == 0 && u16::from_be_bytes([header[4], header[5]]) >= 1;
    if !is_question {
        return None;
    }
    let mut name = String::new();
    loop {
        let (length, after) = rest.split_first()?;
        // A pointer (length over 63) has nothing to point back to in the first question.
        let (label, after) = match length {
            0 => break,
            1..=63 => after.split_at_checked(usize::from(*length))?,
            _ => return None,
        };
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|&b| {
            let plain = b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if plain { char::from(b.to_ascii_lowercase()) } else { '?' }
        }));
        if name.len() > MAX_NAME {
            return None;
        }
        rest = after;
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(labels: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            message.push(label.len() as u8);
            message.extend(*label);
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    #[test]
    fn the_name_asked_for_is_read() {
        assert_eq!(question(&ask(&[b"Exfil", b"example", b"net"])).as_deref(), Some("exfil.example.net"));
    }

    #[test]
    fn a_terminal_escape_in_a_name_stays_harmless() {
        assert_eq!(question(&ask(&[b"a\x1b[2Jb"])).as_deref(), Some("a??2jb"));
    }

    #[test]
    fn answers_pointers_and_cut_messages_have_no_question() {
        let mut answer = ask(&[b"a"]);
        answer[2] |= 0x80;
        assert_eq!(question(&answer), None);
        assert_eq!(question(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12]), None);
        assert_eq!(question(&ask(&[b"example"])[..15]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_names_stay_short(bytes: Vec<u8>) {
            let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            message.extend(&bytes);
            for text in [question(&bytes), question(&message)].into_iter().flatten() {
                prop_assert!(text.len() <= MAX_NAME);
            }
        }
    }
}
