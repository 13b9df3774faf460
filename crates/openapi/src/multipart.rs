//! Bodies in parts (RFC 2046, section 5.1; RFC 7578), read strictly: what two readers could take apart in two ways is refused.

use crate::text::MediaType;

const MAX_PARTS: usize = 1_000;
const MAX_HEADER: usize = 8 << 10;

/// One part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) name: String,
    pub(crate) file: bool,
    pub(crate) media: Option<MediaType>,
    pub(crate) body: &'a [u8],
}

/// Takes a body apart. `None` where it is not what it says.
pub(crate) fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<Part<'a>>> {
    if boundary.is_empty() || boundary.len() > 70 || boundary.ends_with(' ') || !boundary.is_ascii() {
        return None;
    }
    let dash = [b"--", boundary.as_bytes()].concat();
    let delimiter = [b"\r\n", dash.as_slice()].concat();
    // Text before the first boundary is somebody else's to see.
    let mut rest = body.strip_prefix(dash.as_slice())?;
    let mut out = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(b"--") {
            return matches!(end, b"" | b"\r\n").then_some(out);
        }
        rest = rest.strip_prefix(b"\r\n")?;
        if out.len() >= MAX_PARTS {
            return None;
        }
        let head = find(rest.get(..rest.len().min(MAX_HEADER))?, b"\r\n\r\n")?;
        let (mut part, from) = (header(rest.get(..head)?)?, head + 4);
        rest = rest.get(from..)?;
        let end = find(rest, &delimiter)?;
        part.body = rest.get(..end)?;
        // Some readers end a part at a boundary after any kind of line end, or none.
        let other_end = |at: usize| at == 0 || matches!(part.body[at - 1], b'\n' | b'\r');
        if memchr::memmem::find_iter(part.body, dash.as_slice()).any(other_end) {
            return None;
        }
        out.push(part);
        rest = rest.get(end + delimiter.len()..)?;
    }
}

fn header<'a>(text: &[u8]) -> Option<Part<'a>> {
    let text = std::str::from_utf8(text).ok()?;
    let (mut disposition, mut media) = (None, None);
    for line in text.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        if name.is_empty() || !name.bytes().all(crate::text::is_token) || value.contains(['\r', '\n', '\0']) {
            return None;
        }
        let twice = match name.to_ascii_lowercase().as_str() {
            "content-disposition" => disposition.replace(value.trim()).is_some(),
            "content-type" => media.replace(MediaType::parse(value.trim().as_bytes())?).is_some(),
            // RFC 7578, section 4.7: not used; whoever honours it sees another body.
            "content-transfer-encoding" => !matches!(value.trim(), "binary" | "8bit" | "7bit"),
            _ => false,
        };
        if twice {
            return None;
        }
    }
    let (name, file) = form_data(disposition?)?;
    Some(Part { name, file, media, body: b"" })
}

/// The name in `form-data; name="…"; filename="…"`.
fn form_data(value: &str) -> Option<(String, bool)> {
    let (kind, mut rest) = value.split_once(';').unwrap_or((value, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let (mut name, mut file) = (None, false);
    while !rest.trim().is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim().to_ascii_lowercase();
        let (text, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })?;
                (quoted.get(..end)?.replace("\\\"", "\""), quoted.get(end + 1..)?)
            }
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after.get(..end)?.trim().to_owned(), after.get(end..)?)
            }
        };
        match key.as_str() {
            "name" if name.replace(text).is_some() => return None,
            "filename" if file => return None,
            "filename" | "filename*" => file = true,
            _ => {}
        }
        rest = match after.trim_start() {
            "" => "",
            after => after.strip_prefix(';')?,
        };
    }
    Some((name?, file))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_apart() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b\r\ncontent-disposition: form-data; name=f; filename=\"x\\\"y;z\"\r\nContent-Type: image/png\r\n\r\n\r\n--x\r\n--b--\r\n";
        let read = parts(body, "b").unwrap();
        assert_eq!((read[0].name.as_str(), read[0].body, read[0].file), ("a", &b"1"[..], false));
        assert_eq!((read[1].name.as_str(), read[1].body, read[1].file), ("f", &b"\r\n--x"[..], true));
        assert_eq!(read[1].media.as_ref().unwrap().essence, "image/png");
        assert_eq!(parts(b"--b--", "b").unwrap(), []);
    }

    #[test]
    fn what_has_two_readings_has_none() {
        let good = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--";
        assert!(parts(good.as_bytes(), "b").is_some());
        for (from, to) in [
            ("--b\r\nC", "text\r\n--b\r\nC"),
            ("--b--", "--b--\r\nmore"),
            ("--b--", "--b"),
            ("form-data", "attachment"),
            ("name=\"a\"", "name=\"a\"; name=\"b\""),
            ("name=\"a\"", "filename=\"a\""),
            ("\r\n\r\n1", "\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n1"),
            ("\r\n\r\n1", "\r\nContent-Transfer-Encoding: base64\r\n\r\n1"),
            ("\r\n\r\n1", "\n\n1"),
            ("\r\n1", "1"),
            // Lenient readers end the part there, and read another field.
            ("\r\n1", "\r\n1\n--b\nContent-Disposition: form-data; name=\"role\"\n\nadmin"),
            ("\r\n1", "\r\n1\r--b\r"),
            ("\r\n1", "\r\n--b\r"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(parts(bad.as_bytes(), "b").is_none(), "{bad}");
        }
        assert!(parts(good.as_bytes(), "").is_none());
    }
}
