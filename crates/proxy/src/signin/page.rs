//! The few pages that a browser is shown: no script, nothing from elsewhere, nothing in them that a caller said.

use ringfence_event::EventId;

use super::ROOT;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// Asks whether to sign out.
    SignOut,
    SignedOut,
    /// Signed out here, but the provider could not be told.
    SignedOutHere,
    /// The callback of a sign-in that this browser did not begin, or too long ago.
    NotBegun,
    /// The provider did not sign the user in, or what it says is not believed.
    Refused,
    /// The sign-in is not as strong as it must be, although it was asked for.
    NotEnough,
    /// Provider, control or keeper cannot be reached.
    Unavailable,
    /// What was sent makes no sense.
    Malformed,
    /// No TLS, so that no browser would keep the session.
    Insecure,
    /// Something changes state and comes from elsewhere.
    CrossSite,
    Nothing,
}

impl Page {
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::SignOut | Self::SignedOut | Self::SignedOutHere => 200,
            Self::NotBegun | Self::Malformed => 400,
            Self::Refused | Self::NotEnough | Self::Insecure | Self::CrossSite => 403,
            Self::Nothing => 404,
            Self::Unavailable => 503,
        }
    }

    const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::SignOut => ("Sign out?", "You will have to sign in again to go on."),
            Self::SignedOut => ("Signed out", "You are signed out."),
            Self::SignedOutHere => (
                "Signed out of this browser",
                "The place where you signed in could not be told. Close the browser, or sign out there too.",
            ),
            Self::NotBegun => (
                "Please begin again",
                "This sign-in was not begun in this browser, or too long ago, or was finished already.",
            ),
            Self::Refused => ("Not signed in", "The place where you sign in did not sign you in."),
            Self::NotEnough => (
                "Not signed in strongly enough",
                "This page needs a stronger sign-in than the one that you have, such as a second factor.",
            ),
            Self::Unavailable => {
                ("Not now", "The place where you sign in does not answer. Please try again in a moment.")
            }
            Self::Malformed => ("Not understood", "What was sent here makes no sense."),
            Self::Insecure => {
                ("Not over this connection", "Signing in needs an encrypted connection (https).")
            }
            Self::CrossSite => ("Not from there", "Another site sent this. Please go on from here."),
            Self::Nothing => ("Nothing is here", "There is no such page."),
        }
    }

    /// What can be done next: label and path.
    fn next(self, provider: Option<&str>) -> Option<(&'static str, String)> {
        let again = provider.map(|name| ("Try again", format!("{ROOT}/login/{name}")));
        match self {
            Self::NotBegun | Self::Refused | Self::Unavailable | Self::Malformed => again,
            Self::SignedOut | Self::SignedOutHere => Some(("To the front page", "/".to_owned())),
            Self::NotEnough => Some(("Sign out", format!("{ROOT}/logout"))),
            Self::CrossSite => Some(("Sign out", format!("{ROOT}/logout"))),
            Self::SignOut | Self::Insecure | Self::Nothing => None,
        }
    }

    /// The whole page. A provider's name is a word of the fence, so nothing here needs to be escaped.
    pub(super) fn html(self, provider: Option<&str>, id: EventId) -> String {
        let (title, text) = self.text();
        let mut rest = String::new();
        if self == Self::SignOut {
            rest +=
                &format!("<form method=\"post\" action=\"{ROOT}/logout\"><button>Sign out</button></form>\n");
        }
        if let Some((label, path)) = self.next(provider) {
            rest += &format!("<p><a href=\"{path}\">{label}</a></p>\n");
        }
        if self.status() >= 400 {
            rest += &format!("<p><small>Whoever runs this finds it under {id}.</small></p>\n");
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{text}</p>\n{rest}</main>\n</body>\n</html>\n"
        )
    }

    /// What the browser may do with it. Signing out ends at the provider, wherever its page for that is, and browsers hold redirects of a
    /// form to `form-action` too.
    pub(super) fn policy(self) -> String {
        let form = if self == Self::SignOut { "" } else { "; form-action 'none'" };
        format!(
            "default-src 'none'; style-src '{STYLE_DIGEST}'; base-uri 'none'; frame-ancestors 'none'{form}"
        )
    }
}

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;margin:0;color:#1c2024;background:#f6f7f8}\
main{max-width:28rem;margin:15vh auto 0;padding:2rem;background:#fff;border-radius:.5rem}\
h1{font-size:1.4rem;margin:0 0 .5rem}small{color:#60646c}\
button{font:inherit;padding:.5rem 1.2rem;border:0;border-radius:.3rem;background:#1c2024;color:#fff}\
@media(prefers-color-scheme:dark){body{color:#edeef0;background:#111113}main{background:#19191b}\
button{background:#edeef0;color:#111113}small{color:#b0b4ba}a{color:#70b8ff}}";
const STYLE_DIGEST: &str = "sha256-nQo6xgLhO0G6W4qCb7sUo47mC7E26jHJwB1MvXwTVP4=";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Page; 11] = [
        Page::SignOut,
        Page::SignedOut,
        Page::SignedOutHere,
        Page::NotBegun,
        Page::Refused,
        Page::NotEnough,
        Page::Unavailable,
        Page::Malformed,
        Page::Insecure,
        Page::CrossSite,
        Page::Nothing,
    ];

    #[test]
    fn no_page_has_a_script_or_takes_anything_from_elsewhere() {
        for page in ALL {
            let html = page.html(Some("staff"), EventId::new());
            for active in ["<script", "javascript:", "://", "src=", "onclick", "<img", "<link", "@import"] {
                assert!(!html.contains(active), "{page:?}: {active}");
            }
            assert!(page.policy().starts_with("default-src 'none'; "), "{page:?}");
            assert!(!page.policy().contains("unsafe"));
            assert_eq!(html.contains("<form"), page == Page::SignOut);
        }
    }

    #[test]
    fn the_policy_allows_the_style_that_the_pages_have() {
        use base64::Engine as _;
        let digest = ringfence_keys::digest::sha256(STYLE.as_bytes());
        let digest = base64::engine::general_purpose::STANDARD.encode(digest);
        assert_eq!(STYLE_DIGEST, format!("sha256-{digest}"));
    }
}
