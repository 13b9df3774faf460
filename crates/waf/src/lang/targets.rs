//! The first word of a rule: which variables it looks at.

use super::Variable;

/// Which members of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Selector {
    /// All of them, or the scalar itself.
    All,
    /// The member with this name, in any case.
    Name(String),
    /// The members whose name matches.
    Regex(String),
}

/// One target of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// `!`: what the other targets bring, without these.
    pub(crate) exclude: bool,
    /// `&`: how many there are.
    pub(crate) count: bool,
    pub(crate) variable: Variable,
    pub(crate) selector: Selector,
}

/// Parses `ARGS|!ARGS:x|&REQUEST_HEADERS:/^x-/`; the error carries the offset within `text`.
pub(crate) fn parse_targets(text: &[u8]) -> Result<Vec<Target>, (usize, String)> {
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        while text.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        let (target, end) = target(text, at)?;
        out.push(target);
        at = end;
        while text.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        match text.get(at) {
            None => return Ok(out),
            Some(b'|' | b',') => at += 1,
            Some(_) => return Err((at, "expected '|' between two variables".into())),
        }
    }
}

fn target(text: &[u8], start: usize) -> Result<(Target, usize), (usize, String)> {
    let mut at = start;
    let (mut exclude, mut count) = (false, false);
    loop {
        match text.get(at) {
            Some(b'!') => exclude = true,
            Some(b'&') => count = true,
            _ => break,
        }
        at += 1;
    }
    let name_at = at;
    while text.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
        at += 1;
    }
    let name = &text[name_at..at];
    let Some(variable) = Variable::parse(name) else {
        let name = String::from_utf8_lossy(name);
        return Err((
            name_at,
            format!("unknown variable '{name}'; see docs/reference for those this engine knows"),
        ));
    };
    let mut selector = Selector::All;
    if matches!(text.get(at), Some(b':' | b'.')) {
        let selector_at = at + 1;
        let (found, end) = self::selector(text, selector_at, variable)?;
        if !variable.is_collection() {
            return Err((selector_at, format!("{} is a single value and has no members", variable.name())));
        }
        selector = found;
        at = end;
    }
    Ok((Target { exclude, count, variable, selector }, at))
}

fn selector(text: &[u8], start: usize, variable: Variable) -> Result<(Selector, usize), (usize, String)> {
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let bare_end = |from: usize| {
        from + text[from..]
            .iter()
            .take_while(|byte| !matches!(byte, b'|' | b',') && !byte.is_ascii_whitespace())
            .count()
    };
    match text.get(start) {
        None => Err((start, "the name of a member is missing after ':'".into())),
        // The selector of XML is a path, which begins with a slash and is no pattern.
        Some(_) if variable == Variable::Xml => {
            let end = bare_end(start);
            Ok((Selector::Name(string(&text[start..end])), end))
        }
        Some(b'\'') => {
            let mut at = start + 1;
            let mut inner = Vec::new();
            loop {
                match text.get(at) {
                    None => return Err((start, "this quote is never closed".into())),
                    Some(b'\\') if text.get(at + 1) == Some(&b'\'') => {
                        inner.push(b'\'');
                        at += 2;
                    }
                    Some(b'\'') => break,
                    Some(byte) => {
                        inner.push(*byte);
                        at += 1;
                    }
                }
            }
            let selector = match inner.as_slice() {
                [b'/', pattern @ .., b'/'] => Selector::Regex(string(pattern)),
                name => Selector::Name(string(name)),
            };
            Ok((selector, at + 1))
        }
        Some(b'/') => {
            let mut at = start + 1;
            while let Some(byte) = text.get(at) {
                match byte {
                    b'\\' => at += 2,
                    b'/' => {
                        let pattern = string(&text[start + 1..at]).replace("\\/", "/");
                        return Ok((Selector::Regex(pattern), at + 1));
                    }
                    _ => at += 1,
                }
            }
            Err((start, "this pattern is never closed; end it with '/'".into()))
        }
        Some(_) => {
            let end = bare_end(start);
            if end == start {
                return Err((start, "the name of a member is missing after ':'".into()));
            }
            Ok((Selector::Name(string(&text[start..end])), end))
        }
    }
}
