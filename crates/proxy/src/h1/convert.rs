//! From one HTTP version to the other, for hops that do not keep it.
//!
//! Which fields pass is decided in one place, [`KeptFields`], for HTTP/1.1 and HTTP/2 alike.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use ringfence_oidc::session::is_ours;

use super::field::Field;
use super::framing::Framing;
use super::kind::{self, Kind, classify};
use super::write::DropList;
use super::{Fields, Refusal};
use crate::view::{HeadView, ResponseView, ViewFields};

/// The fields of a head that go on to the next hop: not those of this hop, of framing, or that only Ringfence sets.
#[derive(Debug)]
pub struct KeptFields<'a> {
    source: Source<'a>,
    not_copied: u64,
    drop: &'a DropList,
}

#[derive(Debug)]
enum Source<'a> {
    H1(&'a [u8], std::slice::Iter<'a, Field>),
    H2(ViewFields<'a>),
}

impl<'a> KeptFields<'a> {
    /// The fields of a request that go on to the upstream.
    #[must_use]
    pub fn of_request(view: HeadView<'a>, drop: &'a DropList) -> Self {
        let source = match view {
            HeadView::H1(head) => Source::h1(head.fields()),
            HeadView::H2(_) => Source::H2(view.fields()),
        };
        Self { source, not_copied: kind::NOT_COPIED, drop }
    }

    /// The fields of a response that go back to the client.
    #[must_use]
    pub fn of_response(view: ResponseView<'a>, drop: &'a DropList) -> Self {
        let source = match view {
            ResponseView::H1(head) => Source::h1(head.fields()),
            ResponseView::H2(_) => Source::H2(view.fields()),
        };
        Self { source, not_copied: kind::NOT_COPIED_BACK, drop }
    }
}

impl<'a> Source<'a> {
    fn h1(fields: Fields<'a>) -> Self {
        let (head, list) = fields.raw();
        Self::H1(head, list.iter())
    }
}

impl<'a> Iterator for KeptFields<'a> {
    type Item = (Kind, &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (kind, name, value) = match &mut self.source {
                Source::H1(head, fields) => {
                    let field = fields.next()?;
                    if field.nominated {
                        continue;
                    }
                    (field.kind(), field.name(head), field.value(head))
                }
                Source::H2(fields) => {
                    let (name, value) = fields.next()?;
                    (classify(name), name, value)
                }
            };
            let ours = kind == Kind::SetCookie && is_ours(value);
            if self.not_copied & kind.bit() == 0 && !ours && !self.drop.has(name) {
                return Some((kind, name, value));
            }
        }
    }
}

/// The request as HTTP/2 sends it on. The caller adds its own fields to it.
///
/// # Errors
/// A head that HTTP/2 cannot carry: nothing that passed the parser should be one.
pub fn forward_to_h2(
    view: HeadView<'_>,
    scheme: &str,
    authority: &str,
    drop: &DropList,
) -> Result<Request<()>, Refusal> {
    let target = match view.query() {
        Some(query) => format!("{}?{query}", view.path()),
        None => view.path().to_owned(),
    };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(target)
        .build()
        .map_err(|_| Refusal::TargetForm)?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(view.method().as_bytes()).map_err(|_| Refusal::Method)?;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.reserve(view.field_count() + 8);
    append(headers, KeptFields::of_request(view, drop))?;
    if let Framing::Length(length) = view.framing() {
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if view.present() & Kind::Te.bit() != 0 && view.takes_trailers() {
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(request)
}

/// The response as HTTP/2 sends it back. The caller adds its own fields to it.
///
/// # Errors
/// A head that HTTP/2 cannot carry.
pub fn respond_to_h2(
    view: ResponseView<'_>,
    framing: Framing,
    drop: &DropList,
) -> Result<Response<()>, Refusal> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(view.status()).map_err(|_| Refusal::ResponseStatus)?;
    *response.version_mut() = http::Version::HTTP_2;
    let headers = response.headers_mut();
    append(headers, KeptFields::of_response(view, drop))?;
    let declared = match (view, framing) {
        (_, Framing::Length(length)) => Some(HeaderValue::from(length)),
        (ResponseView::H1(head), Framing::None) if head.status() >= 200 && head.status() != 204 => {
            head.declared_length().map(HeaderValue::from)
        }
        (ResponseView::H2(parts), Framing::None)
            if parts.status.as_u16() >= 200 && parts.status.as_u16() != 204 =>
        {
            parts.headers.get(http::header::CONTENT_LENGTH).cloned()
        }
        _ => None,
    };
    if let Some(length) = declared {
        headers.insert(http::header::CONTENT_LENGTH, length);
    }
    Ok(response)
}

fn append(headers: &mut HeaderMap, fields: KeptFields<'_>) -> Result<(), Refusal> {
    for (_, name, value) in fields {
        let name = HeaderName::from_bytes(name).map_err(|_| Refusal::FieldName)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Refusal::FieldValue)?;
        headers.append(name, value);
    }
    Ok(())
}
