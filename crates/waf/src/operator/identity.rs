//! Numbers with check digits: payment cards and national identities.

use super::Captures;
use super::regex::Expression;

/// Bytes of matches that are looked at in one value: an expression without an upper bound would make it a square.
const BUDGET: usize = 1 << 20;

/// Which check a number must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// Luhn's check: payment cards.
    Card,
    /// Brazil.
    Cpf,
    /// United States.
    Ssn,
    /// Austria.
    Svnr,
}

impl Identity {
    /// Whether the value has a part that the expression matches and whose digits pass.
    pub(super) fn find(self, expression: &Expression, value: &[u8], captures: Option<&mut Captures>) -> bool {
        let (mut from, mut seen) = (0, 0);
        while from < value.len() && seen < BUDGET {
            let Some(found) = expression.find_at(value, from) else { return false };
            seen += found.len() + 1;
            if self.passes(&value[found.clone()]) {
                if let Some(captures) = captures {
                    captures.set(0, found);
                }
                return true;
            }
            from = found.start.max(from) + 1;
        }
        false
    }

    fn passes(self, text: &[u8]) -> bool {
        let digits = text.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'));
        if self == Self::Card {
            return luhn(digits);
        }
        let mut first = [0; 12];
        let mut count = 0;
        for (slot, digit) in first.iter_mut().zip(digits) {
            *slot = digit;
            count += 1;
        }
        let digits = &first[..count];
        match self {
            Self::Cpf => cpf(digits),
            Self::Ssn => ssn(digits),
            Self::Svnr => svnr(digits),
            Self::Card => false,
        }
    }
}

fn luhn(digits: impl Iterator<Item = u32>) -> bool {
    const DOUBLED: [u32; 10] = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9];
    // Which digits are doubled counts from the end, which is not known yet: both sums.
    let (mut sums, mut count) = ([0u32; 2], 0usize);
    for digit in digits {
        sums[count % 2] += DOUBLED[digit as usize];
        sums[(count + 1) % 2] += digit;
        count += 1;
    }
    count > 0 && sums[count % 2] % 10 == 0
}

fn all_equal(digits: &[u32]) -> bool {
    digits.windows(2).all(|pair| pair[0] == pair[1])
}

fn cpf(digits: &[u32]) -> bool {
    let check = |len: usize| {
        let sum: u32 =
            digits[..len].iter().zip((2..=len as u32 + 1).rev()).map(|(d, weight)| d * weight).sum();
        match sum % 11 {
            0 | 1 => 0,
            rest => 11 - rest,
        }
    };
    digits.len() == 11 && !all_equal(digits) && digits[9] == check(9) && digits[10] == check(10)
}

fn ssn(digits: &[u32]) -> bool {
    if digits.len() != 9 || all_equal(digits) || digits.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
        return false;
    }
    let number = |part: &[u32]| part.iter().fold(0, |number, digit| number * 10 + digit);
    let (area, group, serial) = (number(&digits[..3]), number(&digits[3..5]), number(&digits[5..]));
    area != 0 && area != 666 && area < 740 && group != 0 && serial != 0
}

fn svnr(digits: &[u32]) -> bool {
    const WEIGHTS: [u32; 10] = [3, 7, 9, 0, 5, 8, 4, 2, 1, 6];
    let sum: u32 = digits.iter().zip(WEIGHTS).map(|(digit, weight)| digit * weight).sum();
    digits.len() == 10 && !all_equal(digits) && sum % 11 == digits[3]
}
