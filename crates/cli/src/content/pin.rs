//! The releases that this version knows. A pin is changed together with a run of the rule set's own tests against the engine.

/// A release: where it is published, and the only bytes that count as it.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) url: &'static str,
    pub(super) sha256: &'static str,
}

/// OWASP Core Rule Set 4.29.0: rules and their data, without tests.
pub(super) const CRS: Pin = Pin {
    url: "https://github.com/coreruleset/coreruleset/releases/download/v4.29.0/coreruleset-4.29.0-minimal.tar.gz",
    sha256: "1aa1c5c8fc29e532d35293bcea36bf72de61db8f6ed4716a0f91ab14552b7fed",
};
