//! The body of a request that the proxy answers itself: small, whole, and in time.

use crate::body::{Broken, Piece};
use crate::deny::Deny;
use crate::front::Front;
use crate::h1::Framing;
use crate::handle::Ctx;
use crate::view::HeadView;

/// How long a body may take, in milliseconds.
const BODY_MS: u64 = 10_000;

/// The client is not there any more.
#[derive(Debug)]
pub(crate) struct Gone;

/// Reads a body of at most `most` bytes. `refuse` says with status and reason why there is none.
pub(crate) async fn read(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    front: &mut Front<'_>,
    most: usize,
    refuse: impl Fn(u16, String) -> Deny,
) -> Result<Result<Vec<u8>, Deny>, Gone> {
    let too_large = || refuse(413, format!("a request has at most {} KiB", most >> 10));
    if matches!(view.framing(), Framing::Length(length) if length > most as u64) {
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
            Err(_) => return Ok(Err(refuse(408, "the body took too long".into()))),
            Ok(Ok(Piece::Data(data))) if bytes.len() + data.len() > most => return Ok(Err(too_large())),
            Ok(Ok(Piece::Data(data))) => bytes.extend_from_slice(&data),
            Ok(Ok(Piece::Trailers(_))) => {}
            Ok(Ok(Piece::End)) => break,
            Ok(Err(Broken::Refused(refusal))) => return Ok(Err(refuse(400, refusal.to_string()))),
            Ok(Err(Broken::Io(_) | Broken::H2(_))) => return Err(Gone),
        }
    }
    Ok(Ok(bytes))
}
