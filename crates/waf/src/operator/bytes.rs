//! Operators that look at a value's bytes alone: allowed bytes, UTF-8, percent encoding.

use super::OperatorError;

/// Bytes that `@validateByteRange` allows.
#[derive(Debug, Clone)]
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    /// Numbers and ranges of them between commas: `9,10,13,32-126`.
    pub(super) fn parse(argument: &[u8]) -> Result<Self, OperatorError> {
        const ERROR: OperatorError = OperatorError::Argument {
            name: "validateByteRange",
            what: "numbers from 0 to 255 and ranges of them, such as `9,10,13,32-126`",
        };
        let text = std::str::from_utf8(argument).map_err(|_| ERROR)?;
        let number = |text: &str| text.trim().parse::<u8>().map_err(|_| ERROR);
        let mut allowed = [false; 256];
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = (number(from)?, number(to)?);
            if from > to {
                return Err(ERROR);
            }
            allowed[usize::from(from)..=usize::from(to)].fill(true);
        }
        Ok(Self(allowed))
    }

    /// The bytes that are not allowed, as a class of an expression; none if all are.
    pub(super) fn left(&self) -> Option<String> {
        let bytes = self.0.iter().enumerate().filter(|(_, allowed)| !**allowed);
        let class: String = bytes.map(|(byte, _)| format!("\\x{byte:02x}")).collect();
        (!class.is_empty()).then(|| format!("(?-u:[{class}])"))
    }

    /// Whether some byte is not allowed.
    pub(super) fn is_left_by(&self, value: &[u8]) -> bool {
        value.iter().any(|byte| !self.0[usize::from(*byte)])
    }
}

/// Whether a percent sign begins no encoding.
pub(super) fn has_bad_percent(value: &[u8]) -> bool {
    memchr::memchr_iter(b'%', value).any(|at| {
        let digits = value.get(at + 1..at + 3);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}
