//! Ways of traffic: routes from outside, calls between services, hosts outside.

use serde::{Deserialize, Serialize};

use super::{Handling, LimitRule, Mode, Priority, Responses};
use crate::access::Access;
use crate::pattern::{self, PathPattern};
use crate::position::Position;

/// A way through the gateway to a service, by host and path prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The host, lower case; any host when absent. Always present for a `tcp` service, which is chosen by SNI.
    pub host: Option<String>,
    /// The path prefix, in whole segments: `/a` covers `/a` and `/a/b`, not `/ab`; `{name}` stands for any one segment.
    pub path: String,
    /// Who may pass.
    pub access: Access,
    /// What becomes of attacks, if it is not as for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waf: Option<Mode>,
    /// How much may come along it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limit: Vec<LimitRule>,
    /// Whether it gives way under overload, if that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// How much a request along it counts, as a multiple.
    #[serde(default = "one")]
    pub cost: u32,
    /// What its responses say and do not say.
    #[serde(default)]
    pub responses: Responses,
    /// How long requests along it may take, and what is tried again.
    #[serde(default, skip_serializing_if = "Handling::is_default")]
    pub handling: Handling,
    /// Where it is declared.
    pub position: Position,
}

const fn one() -> u32 {
    1
}

/// A declared edge from a service to a callee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The callee.
    pub service: String,
    /// What may pass: a request that matches any of these. Empty means everything.
    pub allow: Vec<Allow>,
    /// Whether only a request on somebody's behalf passes, with a transaction token.
    pub on_behalf: bool,
    /// How much may pass along it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limit: Vec<LimitRule>,
    /// How long requests along it may take, and what is tried again.
    #[serde(default, skip_serializing_if = "Handling::is_default")]
    pub handling: Handling,
    /// Where the callee is named.
    pub position: Position,
}

/// A caller from another fragment that this service's fragment accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The caller.
    pub caller: String,
    /// Where it is accepted.
    pub position: Position,
}

/// A request may pass when its method and its path are among these; an empty list means any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// HTTP methods, upper case.
    pub methods: Vec<String>,
    /// Path patterns.
    pub paths: Vec<PathPattern>,
    /// Where it is declared.
    pub position: Position,
}

/// A host outside that a service may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Its name, lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the service must speak TLS with this host's name as SNI; true by default for port 443.
    pub tls: bool,
    /// Whether its name may resolve to a private, loopback, link-local or metadata address.
    pub allow_private: bool,
    /// Where it is declared.
    pub position: Position,
}

impl Route {
    /// Whether a normalized path lies under the prefix, in whole segments.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let prefix = if self.path == "/" { "" } else { &self.path };
        if self.has_names() {
            return pattern::begins(prefix, path, str::eq);
        }
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether it would, were the case of ASCII letters not looked at.
    #[must_use]
    pub fn covers_in_any_case(&self, path: &str) -> bool {
        let prefix = if self.path == "/" { "" } else { &self.path };
        pattern::begins(prefix, path, str::eq_ignore_ascii_case)
    }

    /// Whether segments of the prefix are named.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.path.contains('{')
    }

    /// Which of two that cover a path decides, the lesser: segment by segment, a word before a name, and a longer before a
    /// shorter one.
    #[must_use]
    pub fn specificity(&self, other: &Self) -> std::cmp::Ordering {
        pattern::specificity(&self.path, &other.path)
    }
}

impl Call {
    /// Whether a request with this method and normalized path may pass along the edge.
    #[must_use]
    pub fn allows(&self, method: &str, path: &str) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|allow| allow.matches(method, path))
    }
}

impl Allow {
    /// Whether method and normalized path are both among those named.
    #[must_use]
    pub fn matches(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| m == method))
            && (self.paths.is_empty() || self.paths.iter().any(|p| p.matches(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_covers_whole_segments() {
        let route = |path: &str| Route {
            host: None,
            path: path.to_owned(),
            access: Access::default(),
            responses: Responses::default(),
            waf: None,
            limit: Vec::new(),
            priority: None,
            cost: 1,
            handling: Handling::default(),
            position: Position::whole("t".into()),
        };
        assert!(route("/").covers("/") && route("/").covers("/a/b"));
        assert!(route("/a").covers("/a") && route("/a").covers("/a/") && route("/a").covers("/a/b"));
        assert!(!route("/a").covers("/ab") && !route("/a").covers("/") && !route("/a").covers("/b/a"));
        let named = route("/a/{x}/b");
        assert!(named.covers("/a/1/b") && named.covers("/a/1/b/") && named.covers("/a/b/b/c"));
        for other in ["/a", "/a/", "/a//b", "/a/1", "/a/1/", "/a/1/bc", "/b/1/b"] {
            assert!(!named.covers(other), "{other}");
        }
    }

    #[test]
    fn a_route_in_any_case_covers_whole_segments_too() {
        let covers = |route: &str, path: &str| {
            let route = Route {
                host: None,
                path: route.to_owned(),
                access: Access::default(),
                responses: Responses::default(),
                waf: None,
                limit: Vec::new(),
                priority: None,
                cost: 1,
                handling: Handling::default(),
                position: Position::whole("t".into()),
            };
            route.covers_in_any_case(path)
        };
        assert!(covers("/", "/A") && covers("/a", "/A") && covers("/a", "/A/") && covers("/A/b", "/a/B/c"));
        assert!(covers("/{Tenant}/admin", "/x/ADMIN/y") && covers("/a", "/a"));
        assert!(
            !covers("/a", "/AB") && !covers("/a", "/") && !covers("/{x}/a", "//A") && !covers("/a/b", "/A")
        );
    }

    #[test]
    fn the_more_specific_route_decides() {
        let route = |path: &str| Route {
            host: None,
            path: path.to_owned(),
            access: Access::default(),
            responses: Responses::default(),
            waf: None,
            limit: Vec::new(),
            priority: None,
            cost: 1,
            handling: Handling::default(),
            position: Position::whole("t".into()),
        };
        let mut routes = ["/", "/a", "/a/{x}", "/a/{y}/c", "/a/b", "/a/b/c"].map(route);
        routes.sort_by(Route::specificity);
        let decides = |path: &str| &*routes.iter().find(|route| route.covers(path)).unwrap().path;
        for (path, by) in [
            ("/a/b/c", "/a/b/c"),
            ("/a/b/d", "/a/b"),
            ("/a/1/c", "/a/{y}/c"),
            ("/a/1/d", "/a/{x}"),
            ("/a/", "/a"),
            ("/b", "/"),
        ] {
            assert_eq!(decides(path), by, "{path}");
        }
    }
}
