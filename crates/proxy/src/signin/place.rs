//! Where a browser is: the origin that it asked, whether it came from there, and where it wants to be.

use std::net::IpAddr;

use ringfence_oidc::session::ReturnPath;

use super::ROOT;
use super::form::encoded;
use crate::h1::Kind;
use crate::normalize::{self, Oddities};
use crate::peer::Peer;
use crate::view::HeadView;

/// Whether browsers keep our cookies here, which are for secure origins: over TLS, or where the host is this machine itself. A gateway that
/// gets plain text from something that speaks TLS for it cannot tell, so it signs nobody in.
pub(crate) fn is_secure(peer: &Peer, view: HeadView<'_>) -> bool {
    let host = view.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let own = host == "localhost" || host.ends_with(".localhost");
    peer.tls || own || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Host and port, in the one spelling that browsers use in `Origin`.
pub(super) fn authority(peer: &Peer, view: HeadView<'_>) -> String {
    let authority = view.authority().to_ascii_lowercase();
    let default = if peer.tls { ":443" } else { ":80" };
    authority.strip_suffix(default).unwrap_or(&authority).to_owned()
}

/// The origin that was asked, as browsers write it.
pub(super) fn origin(peer: &Peer, view: HeadView<'_>) -> String {
    let scheme = if peer.tls { "https" } else { "http" };
    format!("{scheme}://{}", authority(peer, view))
}

/// Whether a page of the same origin, or the browser's user, sent this. What does not say so did not.
pub(crate) fn same_origin(peer: &Peer, view: HeadView<'_>) -> Result<(), &'static str> {
    let origin_said = view.known(Kind::Origin);
    let ours = origin_said.is_some_and(|said| said == origin(peer, view).as_bytes());
    match view.field("sec-fetch-site") {
        // A page may withhold its origin, which is then `null`.
        Some(b"same-origin" | b"none") if ours || matches!(origin_said, None | Some(b"null")) => Ok(()),
        None if ours => Ok(()),
        Some(_) => Err("a page of another origin sent it"),
        None if origin_said.is_some() => Err("a page of another origin sent it"),
        None => Err("it does not say which page sent it, as browsers do with what changes something"),
    }
}

/// Whether a browser wants to show a page, so that it may be led to a sign-in.
pub(crate) fn is_navigation(view: HeadView<'_>) -> bool {
    let mode = view.field("sec-fetch-mode").is_none_or(|mode| mode == b"navigate");
    let html = view.field("accept").is_some_and(|accept| accept.windows(9).any(|part| part == b"text/html"));
    view.method() == "GET" && mode && html && view.known(Kind::Upgrade).is_none()
}

/// Where to sign in and come back from. A place that is too long to come back to is the front page.
pub(crate) fn login_path(provider: &str, view: HeadView<'_>, acr: &[String]) -> String {
    let here = match view.query() {
        Some(query) => format!("{}?{query}", view.path()),
        None => view.path().to_owned(),
    };
    let mut path = format!("{ROOT}/login/{provider}?to={}", encoded(return_path(&here).as_str()));
    for acr in acr {
        path += &format!("&acr={}", encoded(acr));
    }
    path
}

/// A place on this host that is not ours: a sign-in that leads to a sign-in would never end.
pub(super) fn return_path(text: &str) -> ReturnPath {
    let path = text.split('?').next().unwrap_or_default();
    let ours = normalize::path(path, Oddities::NONE).map_or(true, |normal| super::is_ours(&normal.path));
    ReturnPath::new(text).filter(|_| !ours).unwrap_or_else(ReturnPath::root)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_sign_in_leads_elsewhere_or_to_a_sign_in() {
        for (asked, to) in [
            ("/records?id=3", "/records?id=3"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example/", "/"),
            ("/a\r\nSet-Cookie: x=y", "/"),
            ("/.ringfence/login/staff?to=/", "/"),
            ("/%2eringfence/logout", "/"),
            ("/a/../.ringfence/logout", "/"),
            ("/.ringfence", "/"),
            ("/%zz", "/"),
            ("", "/"),
            ("/.ringfenced", "/.ringfenced"),
        ] {
            assert_eq!(return_path(asked).as_str(), to, "{asked:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_browser_stays_here(text in "[/\\\\:@.?#%a-c\t\n ]{0,12}|/[ -~]{0,20}|.*") {
            let path = return_path(&text);
            prop_assert!(path.as_str().starts_with('/') && !path.as_str().starts_with("//"));
            prop_assert!(path.as_str().bytes().all(|b| b.is_ascii_graphic() && b != b'\\'));
        }
    }
}
