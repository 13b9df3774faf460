//! The body of a request to the sidecar itself: JSON, whole before anything is read in it.

use ringfence_authz::authzen::MAX_REQUEST_BYTES;

use super::{JSON, refused};
use crate::deny::Deny;
use crate::front::Front;
use crate::h1::Kind;
use crate::handle::Ctx;
use crate::upload::{self, Gone};
use crate::view::HeadView;

/// Reads a body that says that it is JSON.
pub(super) async fn read(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    front: &mut Front<'_>,
) -> Result<Result<Vec<u8>, Deny>, Gone> {
    if !is_json(view.known(Kind::ContentType).unwrap_or_default()) {
        return Ok(Err(refused(400, "internal.type", format!("the content type of a request is {JSON}"))));
    }
    let refuse = |status, reason| refused(status, "internal.body", reason);
    upload::read(ctx, view, front, MAX_REQUEST_BYTES, refuse).await
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
