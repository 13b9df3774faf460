//! The body of a request to the sidecar itself: bounded in size and time, whole before anything is read in it.

use ringfence_authz::authzen::MAX_REQUEST_BYTES;

use super::{JSON, refused};
use crate::body::{Broken, Piece};
use crate::deny::Deny;
use crate::front::Front;
use crate::h1::{Framing, Kind};
use crate::handle::Ctx;
use crate::view::HeadView;

/// How long a body may take, in milliseconds.
const BODY_MS: u64 = 10_000;

/// The client is not there any more.
#[derive(Debug)]
pub(super) struct Gone;

/// Reads a body that says that it is JSON.
pub(super) async fn read(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    front: &mut Front<'_>,
) -> Result<Result<Vec<u8>, Deny>, Gone> {
    if !is_json(view.known(Kind::ContentType).unwrap_or_default()) {
        return Ok(Err(refused(400, "internal.type", format!("the content type of a request is {JSON}"))));
    }
    let too_large =
        || refused(413, "internal.body", format!("a request has at most {} KiB", MAX_REQUEST_BYTES >> 10));
    if matches!(view.framing(), Framing::Length(length) if length > MAX_REQUEST_BYTES as u64) {
        return Ok(Err(too_large()));
    }
    ctx.live.arm(ctx.worker.now_ms() + BODY_MS);
    if view.expects_continue() && !front.request_is_end() {
        front.put_continue();
        let flushed = ctx.live.within(std::future::poll_fn(|cx| front.poll_flush(cx))).await;
        if !matches!(flushed, Ok(Ok(()))) {
            return Err(Gone);
        }
    }
    let mut bytes = Vec::new();
    while !front.request_is_end() {
        match ctx.live.within(std::future::poll_fn(|cx| front.poll_piece(cx))).await {
            Err(_) => return Ok(Err(refused(408, "internal.body", "the body took too long"))),
            Ok(Ok(Piece::Data(data))) if bytes.len() + data.len() > MAX_REQUEST_BYTES => {
                return Ok(Err(too_large()));
            }
            Ok(Ok(Piece::Data(data))) => bytes.extend_from_slice(&data),
            Ok(Ok(Piece::Trailers(_))) => {}
            Ok(Ok(Piece::End)) => break,
            Ok(Err(Broken::Refused(refusal))) => {
                return Ok(Err(refused(400, "internal.body", refusal.to_string())));
            }
            Ok(Err(Broken::Io(_) | Broken::H2(_))) => return Err(Gone),
        }
    }
    Ok(Ok(bytes))
}

/// Whether a `Content-Type` says JSON, with whatever parameters.
fn is_json(value: &[u8]) -> bool {
    let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(JSON.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::is_json;

    #[test]
    fn json_is_said_by_its_media_type() {
        for good in ["application/json", "Application/JSON ; charset=utf-8"] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonx",
            "application/json, text/plain",
            "text/plain;application/json",
        ] {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
    }
}
