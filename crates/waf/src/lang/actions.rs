//! The last word of a rule: a list of `name:value`, where the value may stand in single quotes.

/// One action as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActionNode {
    /// Lower case.
    pub(crate) name: String,
    pub(crate) value: Option<Vec<u8>>,
    /// Offset of the name within the list.
    pub(crate) offset: usize,
}

impl ActionNode {
    /// The value as text, empty when there is none.
    pub(crate) fn text(&self) -> String {
        self.value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

/// Parses `id:1,phase:2,msg:'it\'s',pass`; the error carries the offset within `text`.
pub(crate) fn parse_actions(text: &[u8]) -> Result<Vec<ActionNode>, (usize, String)> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at].is_ascii_whitespace() || text[at] == b',' {
            at += 1;
            continue;
        }
        let offset = at;
        while at < text.len() && !matches!(text[at], b':' | b',') {
            at += 1;
        }
        let name = String::from_utf8_lossy(text[offset..at].trim_ascii()).to_ascii_lowercase();
        if name.is_empty() {
            return Err((offset, "the name of an action is missing".into()));
        }
        let mut value = None;
        if text.get(at) == Some(&b':') {
            at += 1;
            while text.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            let (found, end) = action_value(text, at)?;
            value = Some(found);
            at = end;
        }
        out.push(ActionNode { name, value, offset });
    }
    Ok(out)
}

fn action_value(text: &[u8], start: usize) -> Result<(Vec<u8>, usize), (usize, String)> {
    let mut at = start;
    if text.get(at) != Some(&b'\'') {
        // `setvar:tx.a='b'` and `setvar:tx.a=%{b}` end at the next comma outside of quotes.
        let mut quoted = false;
        while let Some(byte) = text.get(at) {
            match byte {
                b'\'' if quoted || text[at - 1] == b'=' => quoted = !quoted,
                b',' if !quoted => break,
                _ => {}
            }
            at += 1;
        }
        let value = text[start..at].trim_ascii();
        let value = match value.iter().position(|byte| *byte == b'=') {
            Some(equals)
                if value.len() > equals + 2 && value[equals + 1] == b'\'' && value.ends_with(b"'") =>
            {
                [&value[..=equals], &value[equals + 2..value.len() - 1]].concat()
            }
            _ => value.to_vec(),
        };
        return Ok((value, at));
    }
    at += 1;
    let mut value = Vec::new();
    loop {
        match text.get(at) {
            None => return Err((start, "this quote is never closed; end the value with '".into())),
            Some(b'\\') if text.get(at + 1) == Some(&b'\'') => {
                value.push(b'\'');
                at += 2;
            }
            Some(b'\'') => break,
            Some(byte) => {
                value.push(*byte);
                at += 1;
            }
        }
    }
    at += 1;
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    match text.get(at) {
        None | Some(b',') => Ok((value, at)),
        Some(_) => Err((at, "expected ',' after the closing quote".into())),
    }
}
