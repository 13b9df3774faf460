//! The request target in its four forms, of which two are served.

use super::authority::check_authority;
use super::{Limits, Refusal};

/// Where path and query lie within the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `*`, of OPTIONS.
    Asterisk,
    /// An absolute form without a path.
    Root,
    /// Bytes from here to the end of the target.
    Path(usize),
}

/// Checks the target and finds its form. `host` is the value of the one Host field.
pub(super) fn check_target(
    method: &[u8],
    target: &[u8],
    host: &[u8],
    limits: &Limits,
) -> Result<Form, Refusal> {
    if target.len() > limits.target {
        return Err(Refusal::TargetTooLong);
    }
    if !target.is_ascii() {
        return Err(Refusal::TargetByte);
    }
    if memchr::memchr(b'#', target).is_some() {
        return Err(Refusal::Fragment);
    }
    if target.first() == Some(&b'/') {
        return Ok(Form::Path(0));
    }
    if target == b"*" {
        return if method == b"OPTIONS" { Ok(Form::Asterisk) } else { Err(Refusal::TargetForm) };
    }
    let authority_at = ["http://", "https://"]
        .iter()
        .find(|scheme| {
            target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
        })
        .map(|scheme| scheme.len())
        .ok_or(Refusal::TargetForm)?;
    let rest = &target[authority_at..];
    let authority_end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let authority = &rest[..authority_end];
    check_authority(authority)?;
    if !authority.eq_ignore_ascii_case(host) {
        return Err(Refusal::HostMismatch);
    }
    match rest.get(authority_end) {
        None if method == b"OPTIONS" => Ok(Form::Asterisk),
        None => Ok(Form::Root),
        Some(b'/') => Ok(Form::Path(authority_at + authority_end)),
        // `http://a?b` has no path to judge.
        Some(_) => Err(Refusal::TargetForm),
    }
}

/// Methods are case-sensitive, but not to every upstream: a method in lower case would be judged as one and served as another.
pub(crate) fn check_method(method: &[u8]) -> Result<(), Refusal> {
    if method == b"GET" || method == b"POST" {
        return Ok(());
    }
    if method == b"CONNECT" {
        return Err(Refusal::Connect);
    }
    let known_form = !method.is_empty()
        && method.len() <= 32
        && method
            .iter()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    if known_form { Ok(()) } else { Err(Refusal::Method) }
}
