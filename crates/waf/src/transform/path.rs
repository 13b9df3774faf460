//! Paths without `//`, `/./` and `/../`.

use super::start;

/// The path that is meant; with `windows` a backslash separates too. A relative path may go up beyond its beginning, an
/// absolute one does not.
pub(super) fn normalize(input: &[u8], out: &mut Vec<u8>, windows: bool) -> bool {
    if !may_change(input, windows) {
        return false;
    }
    let is_separator = |byte: &u8| *byte == b'/' || (windows && *byte == b'\\');
    start(out, input, 0);
    let absolute = input.first().is_some_and(is_separator);
    if absolute {
        out.push(b'/');
    }
    let root = out.len();
    for segment in input.split(is_separator) {
        match segment {
            b"" | b"." => {}
            b".." if out.len() > root && !ends_with_up(&out[root..]) => {
                let parent = out[root..out.len() - 1].iter().rposition(|byte| *byte == b'/');
                out.truncate(parent.map_or(root, |end| root + end + 1));
            }
            b".." if absolute => {}
            _ => {
                out.extend_from_slice(segment);
                out.push(b'/');
            }
        }
    }
    if !input.last().is_some_and(is_separator) && out.len() > root {
        out.pop();
    }
    out != input
}

/// Whether the last segment, which a separator follows, is `..`.
fn ends_with_up(path: &[u8]) -> bool {
    path == b"../" || path.ends_with(b"/../")
}

/// Whether there is anything in it that normalization takes away.
fn may_change(input: &[u8], windows: bool) -> bool {
    input.first() == Some(&b'.')
        || (windows && memchr::memchr(b'\\', input).is_some())
        || memchr::memchr_iter(b'/', input).any(|at| matches!(input.get(at + 1), Some(b'/' | b'.')))
}
