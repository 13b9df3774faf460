//! What is measured: how the load speaks to the proxy, and the proxy to the upstream.

use clap::ValueEnum;
use serde::Serialize;

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Case {
    /// HTTP/1.1 on both hops.
    Plain,
    /// TLS 1.3 before HTTP/1.1; plain HTTP/1.1 behind.
    Tls,
    /// Mutual TLS 1.3 with SPIFFE identities on both hops, HTTP/1.1.
    Mtls,
    /// Mutual TLS 1.3 with SPIFFE identities before; plain HTTP/1.1 behind: what a callee's sidecar does.
    Sidecar,
    /// As `tls`, a new connection and full handshake for each request.
    Handshake,
    /// HTTP/2 over TLS 1.3; plain HTTP/1.1 behind.
    H2,
    /// As `tls`, and each request shows one of a hundred tokens, which is verified, judged and told of in a line of JSON.
    Token,
    /// Unary gRPC: HTTP/2 over TLS 1.3; HTTP/2 with prior knowledge behind.
    Grpc,
    /// As `plain`, and each request is inspected by the OWASP Core Rule Set at paranoia level 1.
    #[value(skip)]
    Waf,
    /// The same at level 2.
    #[value(skip)]
    WafStrict,
    /// Everything: TLS 1.3, tokens, a limit, a description of the API, the rule set at level 1, and a policy.
    #[value(skip)]
    Chain,
}

impl Case {
    pub(crate) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Tls,
        Self::Mtls,
        Self::Sidecar,
        Self::Handshake,
        Self::H2,
        Self::Grpc,
        Self::Token,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Mtls => "mtls",
            Self::Sidecar => "sidecar",
            Self::Handshake => "handshake",
            Self::H2 => "h2",
            Self::Grpc => "grpc",
            Self::Token => "token",
            Self::Waf => "waf",
            Self::WafStrict => "waf-strict",
            Self::Chain => "chain",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Plain => "HTTP/1.1 without TLS",
            Self::Tls => "TLS 1.3 before, plain behind",
            Self::Mtls => "mTLS on both hops",
            Self::Sidecar => "mTLS before, plain behind",
            Self::Handshake => "a new TLS 1.3 connection per request",
            Self::H2 => "HTTP/2 over TLS 1.3 before, HTTP/1.1 behind",
            Self::Grpc => "gRPC unary, HTTP/2 on both hops",
            Self::Token => "TLS 1.3 before, plain behind; token, policy and access log for each request",
            Self::Waf => "the Core Rule Set at paranoia level 1",
            Self::WafStrict => "the Core Rule Set at paranoia level 2",
            Self::Chain => "TLS 1.3, token, limit, description, the Core Rule Set and a policy",
        }
    }

    pub(crate) const fn tls(self) -> bool {
        !matches!(self, Self::Plain | Self::Waf | Self::WafStrict)
    }

    /// Whether the load shows its certificate.
    pub(crate) const fn mutual_before(self) -> bool {
        matches!(self, Self::Mtls | Self::Sidecar)
    }

    /// Whether the proxy shows its certificate to the upstream.
    pub(crate) const fn mutual_behind(self) -> bool {
        matches!(self, Self::Mtls)
    }

    /// Whether the load speaks HTTP/2.
    pub(crate) const fn h2(self) -> bool {
        matches!(self, Self::H2 | Self::Grpc)
    }

    /// Whether the load holds HTTP/1.1 connections open.
    pub(crate) const fn keeps_http1(self) -> bool {
        matches!(self, Self::Plain | Self::Tls | Self::Mtls | Self::Sidecar | Self::Token)
    }

    /// Whether requests show tokens.
    pub(crate) const fn tokens(self) -> bool {
        matches!(self, Self::Token | Self::Chain)
    }

    /// The paranoia level at which requests are inspected.
    pub(crate) const fn paranoia(self) -> Option<u8> {
        match self {
            Self::Waf | Self::Chain => Some(1),
            Self::WafStrict => Some(2),
            _ => None,
        }
    }

    pub(crate) const fn connections(self) -> usize {
        match self {
            Self::Plain | Self::Tls | Self::Mtls | Self::Sidecar | Self::Token => 32,
            Self::Handshake => 16,
            Self::Waf | Self::WafStrict | Self::Chain => 4,
            Self::H2 | Self::Grpc => 8,
        }
    }

    /// Requests under way at once on a connection.
    pub(crate) const fn streams(self) -> usize {
        if self.h2() { 16 } else { 1 }
    }

    /// Requests per second of the fixed-rate half: well below what the slowest contender can do.
    pub(crate) const fn rate(self) -> f64 {
        match self {
            Self::Handshake => 200.0,
            Self::Token => 5000.0,
            _ => 2000.0,
        }
    }
}
