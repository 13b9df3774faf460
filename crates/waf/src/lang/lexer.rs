//! Logical lines and words. A directive may be continued with a backslash at the end of the line; comments may stand
//! between continued lines, as rule authors comment single actions out.

use super::Position;

/// The most bytes one logical line may have; the longest of the Core Rule Set has 13 KB.
const LINE_LIMIT: usize = 256 * 1024;

/// A directive's text, with the way back to file positions.
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    /// Offset in `text`, line, column of each joined piece.
    pieces: Vec<(usize, u32, u32)>,
    file: u16,
}

impl Line {
    pub(super) fn position(&self, offset: usize) -> Position {
        let index = self.pieces.partition_point(|(start, _, _)| *start <= offset).max(1) - 1;
        let (start, line, column) = self.pieces[index];
        let within = u32::try_from(offset.saturating_sub(start)).unwrap_or(u32::MAX);
        Position { file: self.file, line, column: column.saturating_add(within) }
    }
}

/// A word of a directive: its bytes without quotes, and where each began.
pub(super) struct Word {
    pub(super) text: Vec<u8>,
    /// Offset of the first byte (inside the quotes) in the line.
    pub(super) offset: usize,
}

/// Splits a file into logical lines; `Err` holds the position of a line that is too long.
pub(super) fn lines(file: u16, text: &[u8]) -> Vec<Result<Line, Position>> {
    let mut out = Vec::new();
    let mut open: Option<Line> = None;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (number, raw) in text.split(|byte| *byte == b'\n').enumerate() {
        let number = u32::try_from(number + 1).unwrap_or(u32::MAX);
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        let blank = raw.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if raw.get(blank) == Some(&b'#') {
            continue;
        }
        let (piece, continued) = match raw.trim_ascii_end().strip_suffix(b"\\") {
            Some(piece) => (piece, true),
            None => (raw, false),
        };
        let skipped = if open.is_none() { blank.min(piece.len()) } else { 0 };
        if open.is_none() && piece.len() == skipped {
            continue;
        }
        let line = open.get_or_insert_with(|| Line { text: Vec::new(), pieces: Vec::new(), file });
        let column = u32::try_from(skipped + 1).unwrap_or(u32::MAX);
        line.pieces.push((line.text.len(), number, column));
        if line.text.len() + piece.len() > LINE_LIMIT {
            out.push(Err(Position { file, line: number, column: 1 }));
            open = None;
            continue;
        }
        line.text.extend_from_slice(&piece[skipped..]);
        if !continued {
            out.extend(open.take().map(Ok));
        }
    }
    out.extend(open.take().map(Ok));
    out
}

/// Splits a line into words: bare, or in double or single quotes, in which only the quote itself can be escaped.
pub(super) fn words(line: &Line) -> Result<Vec<Word>, (usize, &'static str)> {
    let text = &line.text;
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let quote = text[at];
        if quote == b'"' || quote == b'\'' {
            let start = at;
            let mut word = Word { text: Vec::new(), offset: at + 1 };
            at += 1;
            loop {
                match text.get(at) {
                    None => {
                        return Err((start, "this quote is never closed; end the word with the same quote"));
                    }
                    Some(b'\\') if text.get(at + 1) == Some(&quote) => {
                        word.text.push(quote);
                        at += 2;
                    }
                    // A backslash guards what follows it, another backslash too.
                    Some(b'\\') if at + 1 < text.len() => {
                        word.text.extend_from_slice(&text[at..at + 2]);
                        at += 2;
                    }
                    Some(byte) if *byte == quote => {
                        at += 1;
                        break;
                    }
                    Some(byte) => {
                        word.text.push(*byte);
                        at += 1;
                    }
                }
            }
            out.push(word);
        } else {
            let start = at;
            while at < text.len() && !text[at].is_ascii_whitespace() {
                at += 1;
            }
            out.push(Word { text: text[start..at].to_vec(), offset: start });
        }
    }
    Ok(out)
}
