//! The `Content-Disposition` header of a part.

use super::super::decode::plus_and_percent;
use super::{Flags, memchr};

/// What a part is: a field, or a file when it has a name for one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Disposition {
    pub(super) name: Vec<u8>,
    pub(super) filename: Option<Vec<u8>>,
    /// `filename*`, decoded.
    pub(super) extended: Option<Vec<u8>>,
}

/// Reads `form-data; name="a"; filename="b"`. Nothing else is understood, so nothing else is let through.
pub(super) fn parse(value: &[u8], flags: &mut Flags) -> Result<Disposition, &'static str> {
    let mut rest = value.strip_prefix(b"form-data").ok_or("a part that is not form-data")?;
    let (mut name, mut filename, mut extended) = (None, None, None);
    loop {
        rest = blanks(rest);
        rest = match rest {
            [] => break,
            [b';', after @ ..] => blanks(after),
            _ => {
                flags.invalid_quoting |= matches!(before(value, rest), Some(b'"' | b'\''));
                return Err("Content-Disposition without a semicolon between parameters");
            }
        };
        let end = rest.iter().position(|b| matches!(b, b'=' | b' ' | b'\t')).unwrap_or(rest.len());
        let (parameter, after) = rest.split_at(end);
        let Some(raw) = blanks(after).strip_prefix(b"=") else {
            return Err("Content-Disposition with a parameter that has no value");
        };
        let (text, after) = text(blanks(raw), flags)?;
        rest = after;
        let slot = match parameter {
            b"name" => &mut name,
            b"filename" => &mut filename,
            b"filename*" => &mut extended,
            _ => return Err("Content-Disposition with an unknown parameter"),
        };
        if slot.replace(text).is_some() {
            return Err("Content-Disposition with a parameter given twice");
        }
    }
    if extended.is_some() && filename.is_none() {
        return Err("Content-Disposition with filename* but no filename");
    }
    let name = name.filter(|name| !name.is_empty()).ok_or("Content-Disposition without a name")?;
    let extended = extended.map(|text| extended_value(&text)).transpose()?;
    // An empty name of a file is what browsers send when none was chosen: its content is judged as that of a field.
    Ok(Disposition { name, filename: filename.filter(|name| !name.is_empty()), extended })
}

/// A quoted or bare value, and what stands behind it.
fn text<'a>(raw: &'a [u8], flags: &mut Flags) -> Result<(Vec<u8>, &'a [u8]), &'static str> {
    let (quote, inner) = match raw {
        [] => return Err("Content-Disposition with a parameter that has no value"),
        [quote @ (b'"' | b'\''), inner @ ..] => (*quote, inner),
        bare => {
            let end = bare.iter().position(|b| !is_bare(*b)).unwrap_or(bare.len());
            return Ok((bare[..end].to_vec(), &bare[end..]));
        }
    };
    // Some servers take it for a quote, some for a letter.
    flags.invalid_quoting |= quote == b'\'';
    let mut text = Vec::new();
    let mut rest = inner;
    loop {
        rest = match rest {
            [] => return Err("Content-Disposition with a quote that is not closed"),
            [b'\\', escaped, after @ ..] if *escaped == quote || *escaped == b'\\' => {
                text.push(*escaped);
                after
            }
            [end, after @ ..] if *end == quote => return Ok((text, after)),
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        };
    }
}

/// `charset'language'text`
fn extended_value(raw: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut pieces = raw.splitn(3, |b| *b == b'\'');
    let (Some(charset), Some(_), Some(text)) = (pieces.next(), pieces.next(), pieces.next()) else {
        return Err("Content-Disposition with a filename* that has no character set");
    };
    if !(charset.eq_ignore_ascii_case(b"utf-8") || charset.eq_ignore_ascii_case(b"iso-8859-1")) {
        return Err("Content-Disposition with a filename* in an unknown character set");
    }
    let mut out = Vec::new();
    let mut wrong = memchr(b'+', text).is_some();
    let decoded = plus_and_percent(text, &mut out, &mut wrong).to_vec();
    if wrong { Err("Content-Disposition with a filename* that cannot be decoded") } else { Ok(decoded) }
}

fn blanks(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    &bytes[end..]
}

/// The byte before `rest`, which ends `whole`.
fn before(whole: &[u8], rest: &[u8]) -> Option<u8> {
    whole[..whole.len() - rest.len()].last().copied()
}

/// A token of RFC 2045, and what `filename*` adds.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}
