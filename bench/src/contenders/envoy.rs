//! Envoy, one worker. It checks the SPIFFE ID on both hops. Once bare, and once with what Ringfence does besides: a line of JSON
//! for each request, and who may do what decided per request, by the caller's certificate or by the token that the request shows.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Contender, Launch, Setup};
use crate::case::Case;
use crate::certs::{LOAD, NAME, UPSTREAM};
use crate::install;
use crate::tokens::{AUDIENCE, GROUP, ISSUER, SCOPE, Tokens};

pub(super) struct Envoy {
    pub(super) logs: bool,
}

impl Contender for Envoy {
    fn name(&self) -> &'static str {
        if self.logs { "envoy-same" } else { "envoy" }
    }

    fn takes(&self, case: Case) -> bool {
        if self.logs { matches!(case, Case::Mtls | Case::Sidecar | Case::Token) } else { !case.tokens() }
    }

    fn version(&self) -> io::Result<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        let said = install::version(&install::envoy(&folder)?, "--version")?;
        Ok(said
            .split('/')
            .find(|part| part.starts_with(|c: char| c.is_ascii_digit()) && part.contains('.'))
            .unwrap_or("unknown")
            .to_owned())
    }

    fn launch(&self, setup: &Setup<'_>) -> io::Result<Launch> {
        let file = setup.folder.join("envoy.json");
        std::fs::write(&file, configuration(setup, self.logs).to_string())?;
        let home: PathBuf = setup.folder.parent().map(Path::to_owned).unwrap_or_default();
        let mut command = setup.program(&install::envoy(&home)?)?;
        command
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"])
            .arg(file)
            .stderr(Stdio::from(std::fs::File::create(setup.folder.join("error.log"))?));
        Ok(command.into())
    }
}

fn socket(address: std::net::SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

fn identity(setup: &Setup<'_>, peer: Option<&str>, alpn: &str) -> Value {
    let file = |name: &str| json!({ "filename": setup.certs.file(name) });
    let mut common = json!({
        "alpn_protocols": [alpn],
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519"],
        },
        "tls_certificates": [{ "certificate_chain": file("gateway.pem"), "private_key": file("gateway.key") }],
    });
    if let Some(peer) = peer {
        common["validation_context"] = json!({
            "trusted_ca": file("ca.pem"),
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
        });
    }
    common
}

fn transport(direction: &str, mut context: Value) -> Value {
    context["@type"] =
        format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{direction}TlsContext").into();
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
}

/// The access log and the decision per request.
fn same(manager: &mut Value, folder: &Path, tokens: Option<&Tokens>) {
    let caller = if tokens.is_some() { "%REQ(X-USER)%" } else { "%DOWNSTREAM_PEER_URI_SAN%" };
    manager["access_log"] = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": folder.join("access.log"),
            "log_format": { "json_format": {
                "time": "%START_TIME%",
                "id": "%REQ(X-REQUEST-ID)%",
                "trace": "%REQ(TRACEPARENT)%",
                "caller": caller,
                "source": "%DOWNSTREAM_REMOTE_ADDRESS%",
                "callee": "%UPSTREAM_CLUSTER%",
                "method": "%REQ(:METHOD)%",
                "path": "%REQ(:PATH)%",
                "status": "%RESPONSE_CODE%",
                "duration": "%DURATION%",
            }},
        },
    }]);
    let principal = if tokens.is_some() {
        json!({ "and_ids": { "ids": [
            claim("groups", json!({ "list_match": { "one_of": { "string_match": { "exact": GROUP } } } })),
            claim("scope", json!({ "string_match": { "contains": SCOPE } })),
        ] } })
    } else {
        json!({ "authenticated": { "principal_name": { "exact": LOAD } } })
    };
    let rbac = json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": { "action": "ALLOW", "policies": { "declared": {
                "principals": [principal],
                "permissions": [{ "and_rules": { "rules": [
                    { "header": { "name": ":method", "string_match": { "exact": "GET" } } },
                    { "url_path": { "path": { "prefix": "/patients/" } } },
                ] } }],
            } } },
        },
    });
    if let Some(filters) = manager["http_filters"].as_array_mut() {
        filters.insert(0, rbac);
        if let Some(tokens) = tokens {
            filters.insert(0, verification(tokens));
        }
    }
}

/// Something that the token says, as the filter before left it.
fn claim(name: &str, value: Value) -> Value {
    json!({ "metadata": {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{ "key": "claims" }, { "key": name }],
        "value": value,
    } })
}

/// The verification of tokens, which are remembered once they were verified; the upstream is told whose they are.
fn verification(tokens: &Tokens) -> Value {
    json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": { "staff": {
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "local_jwks": { "inline_string": tokens.jwks },
                "payload_in_metadata": "claims",
                "claim_to_headers": [
                    { "header_name": "x-user", "claim_name": "sub" },
                    { "header_name": "x-scopes", "claim_name": "scope" },
                ],
                "jwt_cache_config": { "jwt_cache_size": 1024 },
            } },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "staff" } }],
        },
    })
}

fn configuration(setup: &Setup<'_>, logs: bool) -> Value {
    let case = setup.case;
    let mut chain = json!({ "filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "before",
            "codec_type": "AUTO",
            "route_config": { "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "behind" } }],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        },
    }]});
    if logs {
        let tokens = case.tokens().then_some(setup.tokens);
        same(&mut chain["filters"][0]["typed_config"], &setup.folder, tokens);
    }
    if case.tls() {
        let peer = case.mutual_before().then_some(LOAD);
        let alpn = if case.h2() { "h2" } else { "http/1.1" };
        chain["transport_socket"] = transport(
            "Downstream",
            json!({
                "common_tls_context": identity(setup, peer, alpn),
                "require_client_certificate": case.mutual_before(),
                "disable_stateless_session_resumption": true,
                "disable_stateful_session_resumption": true,
            }),
        );
    }
    let mut behind = json!({
        "name": "behind",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "behind",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(setup.upstream) } }] }],
        },
    });
    if case.mutual_behind() {
        let common = identity(setup, Some(UPSTREAM), "http/1.1");
        behind["transport_socket"] =
            transport("Upstream", json!({ "common_tls_context": common, "sni": NAME }));
    }
    if case == Case::Grpc {
        behind["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        });
    }
    json!({ "static_resources": {
        "listeners": [{ "name": "before", "address": socket(setup.listen), "filter_chains": [chain] }],
        "clusters": [behind],
    }})
}
