//! Comments of SQL, C, shell and HTML, and what a shell ignores.

use memchr::memmem;

use super::start;

/// Each `/* … */` becomes a space, an unfinished one too.
pub(super) fn replace(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = memmem::find(input, b"/*") else { return false };
    start(out, input, first);
    let mut rest = &input[first..];
    while let Some(at) = memmem::find(rest, b"/*") {
        out.extend_from_slice(&rest[..at]);
        out.push(b' ');
        rest = &rest[at + 2..];
        rest = memmem::find(rest, b"*/").map_or(&[][..], |end| &rest[end + 2..]);
    }
    out.extend_from_slice(rest);
    true
}

/// Comments go: `/* … */`, `<!-- … -->`, and from `--` or `#` to the end. The byte after a comment is never the
/// beginning of another one; after one that nothing follows a null byte is left, after an unfinished one a space.
pub(super) fn remove(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = (0..input.len()).find(|at| opening(&input[*at..]).is_some()) else { return false };
    start(out, input, first);
    let mut rest = &input[first..];
    loop {
        match (opening(rest), rest) {
            (_, []) | (Some(Opening::Line), _) => return true,
            (Some(Opening::Block(len)), _) => {
                rest = &rest[len..];
                let Some(end) = closing(rest) else {
                    out.push(b' ');
                    return true;
                };
                rest = &rest[end..];
                out.push(rest.first().copied().unwrap_or(0));
                rest = rest.get(1..).unwrap_or_default();
            }
            (None, [byte, tail @ ..]) => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

enum Opening {
    Block(usize),
    Line,
}

fn opening(text: &[u8]) -> Option<Opening> {
    match text {
        [b'/', b'*', ..] => Some(Opening::Block(2)),
        [b'<', b'!', b'-', b'-', ..] => Some(Opening::Block(4)),
        [b'-', b'-', ..] | [b'#', ..] => Some(Opening::Line),
        _ => None,
    }
}

/// Where a comment that has begun is over; either kind ends either.
fn closing(text: &[u8]) -> Option<usize> {
    memchr::memchr2_iter(b'*', b'-', text).find_map(|at| match &text[at..] {
        [b'*', b'/', ..] => Some(at + 2),
        [b'-', b'-', b'>', ..] => Some(at + 3),
        _ => None,
    })
}

/// The signs that begin and end comments go, what is between them stays.
pub(super) fn remove_signs(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = (0..input.len()).find(|at| sign(&input[*at..]) > 0) else { return false };
    start(out, input, first);
    let mut rest = &input[first..];
    while let [byte, tail @ ..] = rest {
        match sign(rest) {
            0 => {
                out.push(*byte);
                rest = tail;
            }
            len => rest = &rest[len..],
        }
    }
    true
}

fn sign(text: &[u8]) -> usize {
    match text {
        [b'<', b'!', b'-', b'-', ..] => 4,
        [b'-', b'-', b'>', ..] => 3,
        [b'/', b'*', ..] | [b'*', b'/', ..] | [b'-', b'-', ..] => 2,
        [b'#', ..] => 1,
        _ => 0,
    }
}

/// A command line as a shell takes it, Unix's or Windows': without quotes, carets and backslashes, in lower case, with one
/// space for runs of separators, and none before `/` and `(`.
pub(super) fn command_line(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = (0..input.len()).find(|at| command_line_changes(&input[*at..])) else { return false };
    start(out, input, first);
    let mut space = first > 0 && input[first - 1] == b' ';
    // Nothing is branched on, as what comes next is hard to foresee.
    let mut end = first;
    out.resize(input.len(), 0);
    for byte in &input[first..] {
        let (kind, written) = KINDS[usize::from(*byte)];
        end -= usize::from(space & (kind == Kind::Joins));
        out[end] = written;
        end +=
            usize::from((kind == Kind::Stays) | (kind == Kind::Joins) | (!space & (kind == Kind::Separates)));
        space = (kind == Kind::Separates) | (space & (kind == Kind::Goes));
    }
    out.truncate(end);
    true
}

/// What becomes of a byte on a command line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stays,
    Goes,
    /// It becomes a space, if it is the first.
    Separates,
    /// It stays, and the space before it goes.
    Joins,
}

/// For each byte, and what is written for it.
const KINDS: [(Kind, u8); 256] = {
    let mut kinds = [(Kind::Stays, 0); 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        kinds[at] = match byte {
            b'"' | b'\'' | b'\\' | b'^' => (Kind::Goes, byte),
            b' ' | b',' | b';' | b'\t' | b'\r' | b'\n' => (Kind::Separates, b' '),
            b'/' | b'(' => (Kind::Joins, byte),
            _ => (Kind::Stays, byte.to_ascii_lowercase()),
        };
        at += 1;
    }
    kinds
};

fn command_line_changes(text: &[u8]) -> bool {
    match text {
        [b'"' | b'\'' | b'\\' | b'^' | b',' | b';' | b'\t' | b'\r' | b'\n' | b'A'..=b'Z', ..] => true,
        [b' ', next, ..] => matches!(next, b' ' | b'/' | b'('),
        _ => false,
    }
}
