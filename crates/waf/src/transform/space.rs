//! Letter case, white space, null bytes and length: one pass over the bytes, no decoding.

use std::io::Write as _;

use super::start;

/// White space as C's `isspace` has it: unlike Rust's, with the vertical tab.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d)
}

pub(super) fn lowercase(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = input.iter().position(u8::is_ascii_uppercase) else { return false };
    start(out, input, 0);
    out.extend_from_slice(input);
    out[first..].make_ascii_lowercase();
    true
}

pub(super) fn uppercase(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = input.iter().position(u8::is_ascii_lowercase) else { return false };
    start(out, input, 0);
    out.extend_from_slice(input);
    out[first..].make_ascii_uppercase();
    true
}

pub(super) fn remove_nulls(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = memchr::memchr(0, input) else { return false };
    start(out, input, first);
    out.extend(input[first..].iter().filter(|byte| **byte != 0));
    true
}

pub(super) fn replace_nulls(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = memchr::memchr(0, input) else { return false };
    start(out, input, first);
    out.extend(input[first..].iter().map(|byte| if *byte == 0 { b' ' } else { *byte }));
    true
}

/// White space goes, and the no-break space, of Latin-1 and of UTF-8.
pub(super) fn remove_whitespace(input: &[u8], out: &mut Vec<u8>) -> bool {
    // The length of what goes from here.
    let goes = |rest: &[u8]| match rest {
        [0xc2, 0xa0, ..] => 2,
        [byte, ..] if is_space(*byte) || *byte == 0xa0 => 1,
        _ => 0,
    };
    let Some(first) = (0..input.len()).find(|at| goes(&input[*at..]) > 0) else { return false };
    start(out, input, first);
    if memchr::memchr(0xc2, &input[first..]).is_none() {
        squeeze(&input[first..], out, |byte| !is_space(byte) && byte != 0xa0);
        return true;
    }
    let mut rest = &input[first..];
    while let [byte, tail @ ..] = rest {
        match goes(rest) {
            0 => {
                out.push(*byte);
                rest = tail;
            }
            len => rest = &rest[len..],
        }
    }
    true
}

/// Appends the bytes that stay. Which do is hard to foresee in prose, so none is branched on.
fn squeeze(input: &[u8], out: &mut Vec<u8>, stays: impl Fn(u8) -> bool) {
    let mut end = out.len();
    out.resize(end + input.len(), 0);
    for byte in input {
        out[end] = *byte;
        end += usize::from(stays(*byte));
    }
    out.truncate(end);
}

/// Each run of white space becomes one space.
pub(super) fn compress_whitespace(input: &[u8], out: &mut Vec<u8>) -> bool {
    let changes = |at: usize| {
        is_space(input[at]) && (input[at] != b' ' || input.get(at + 1).is_some_and(|next| is_space(*next)))
    };
    let Some(first) = (0..input.len()).find(|at| changes(*at)) else { return false };
    start(out, input, first);
    let mut in_space = false;
    for &byte in &input[first..] {
        let space = is_space(byte);
        if !space {
            out.push(byte);
        } else if !in_space {
            out.push(b' ');
        }
        in_space = space;
    }
    true
}

pub(super) fn trim(input: &[u8], out: &mut Vec<u8>, left: bool, right: bool) -> bool {
    let mut rest = input;
    while let [first, tail @ ..] = rest
        && left
        && is_space(*first)
    {
        rest = tail;
    }
    while let [head @ .., last] = rest
        && right
        && is_space(*last)
    {
        rest = head;
    }
    if rest.len() == input.len() {
        return false;
    }
    start(out, input, 0);
    out.extend_from_slice(rest);
    true
}

/// The count of bytes, in decimal.
pub(super) fn length(input: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    write!(out, "{}", input.len()).is_ok() && out != input
}
