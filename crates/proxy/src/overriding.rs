//! Methods that a request claims besides its own: frameworks serve `POST /a?_method=DELETE` as DELETE, and it was judged as POST.
//!
//! Header fields that say so (`X-HTTP-Method-Override` and its like) are never copied, which `headers.rs` tells. A query is passed on as
//! it came, so a request with such a parameter is refused at the gateway.

use crate::deny::Deny;
use crate::view::HeadView;

/// Names that frameworks take, in lower case.
const NAMES: [&[u8]; 4] = [b"_method", b"x-http-method-override", b"x-method-override", b"x-http-method"];
/// The longest of them with each byte percent-encoded.
const LONGEST: usize = 3 * 22;

/// Refuses a request whose query claims another method than it has.
pub(crate) fn check(request: HeadView<'_>) -> Result<(), Deny> {
    let Some(query) = request.query() else { return Ok(()) };
    // All names have this in them, as it is or encoded: `thod`, or a percent sign.
    let bytes = query.as_bytes();
    let may = memchr::memchr(b'%', bytes).is_some()
        || bytes.windows(4).any(|four| four.eq_ignore_ascii_case(b"thod"));
    if !may {
        return Ok(());
    }
    match claimed(query, request.method()) {
        None => Ok(()),
        Some(name) => {
            let reason = format!(
                "the query's {name} claims another method than {}, which was judged",
                request.method()
            );
            Err(Deny::new(400, "parse", "method.override", reason))
        }
    }
}

/// The parameter that claims another method.
fn claimed(query: &str, method: &str) -> Option<&'static str> {
    query.split(['&', ';']).find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.trim_start_matches('+');
        let name = as_frameworks_read(&decoded(name.get(..LONGEST).unwrap_or(name)));
        let known = NAMES.iter().find(|known| name.eq_ignore_ascii_case(known))?;
        let same = value.len() <= 3 * method.len() && decoded(value).eq_ignore_ascii_case(method.as_bytes());
        (!same).then(|| std::str::from_utf8(known).unwrap_or_default())
    })
}

/// A name as the least strict reader has it: PHP forgets spaces before it, ends it at NUL and `[`, and takes dots and spaces for `_`.
fn as_frameworks_read(name: &[u8]) -> Vec<u8> {
    let name = name.trim_ascii_start();
    let end = name.iter().position(|byte| matches!(byte, 0 | b'[')).unwrap_or(name.len());
    name[..end].iter().map(|byte| if matches!(byte, b'.' | b' ' | b'+') { b'_' } else { *byte }).collect()
}

fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_claims_another_method_is_found_however_it_is_spelt() {
        for query in [
            "_method=DELETE",
            "a=b&_method=delete",
            "_METHOD=PUT",
            "%5Fmethod=PUT",
            "%5f%6d%65%74%68%6f%64=PUT",
            "a;_method=PUT",
            "_method",
            "_method=",
            "X-HTTP-Method-Override=DELETE",
            "x-method-override=PATCH",
            ".method=DELETE",
            "+_method=DELETE",
            "%20_method=DELETE",
            "_method%00z=DELETE",
            "_method[]=DELETE",
            "+++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++_method=DELETE",
        ] {
            assert!(claimed(query, "POST").is_some(), "{query}");
        }
        for query in
            ["", "a=_method", "method=PUT", "_methods=PUT", "a=b&c", "_method=POST", "_method=post", "%"]
        {
            assert_eq!(claimed(query, "POST"), None, "{query}");
        }
    }
}
