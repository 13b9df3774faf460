//! What a client outside can send the gateway.

use ringfence_event::TraceContext;
use ringfence_tls::{Alpn, drill_client_config};

use crate::drill::target::Target;
use crate::drill::watch::{Watch, is_of, point, rule};
use crate::drill::wire::{self, Http2, Speak};
use crate::drill::{Outcome, Unable};

/// One way to be ambiguous.
struct Variant {
    name: &'static str,
    bytes: Vec<u8>,
    http2: bool,
    /// What the HTTP/2 library refuses by itself, before there is a request, is not told.
    told: bool,
}

pub(super) fn smuggled(target: &Target) -> Result<Outcome, Unable> {
    let address = target.gateway()?;
    let (host, path) = target.route()?;
    let variants = variants(&host, &path);
    let total = variants.len();
    let mut watch = Watch::begin(&target.events())?;
    let (mut passed, mut untold) = (Vec::new(), Vec::new());
    for variant in variants {
        let protocol = if variant.http2 { Alpn::H2 } else { Alpn::Http1 };
        let answer = wire::exchange(address, &speak(target, &host, protocol)?, &variant.bytes)
            .map_err(|e| Unable::new(format!("the gateway at {address}: {e}")))?;
        let refused = if variant.http2 {
            matches!(wire::http2_answer(&answer.bytes), Http2::BadRequest | Http2::Reset)
        } else {
            let status = wire::status(&answer.bytes);
            let refused = status.is_some_and(|s| (400..500).contains(&s)) || answer.bytes.is_empty();
            refused && wire::responses(&answer.bytes) <= 1 && answer.end != wire::End::Silent
        };
        if !refused {
            passed.push(variant.name);
        }
        // Where every route wants a credential, what is wrong with a body is not come to: that refusal is told.
        let shut = wire::status(&answer.bytes) == Some(401);
        let framing = |e: &ringfence_event::Record| {
            let denied = e.kind() == "call" && e.denied() && point(e) == "gateway";
            denied && (shut || rule(e) == "framing")
        };
        if variant.told && watch.wait(framing).is_none() {
            untold.push(variant.name);
        }
    }
    let detail = format!("{} of {total} variants refused", total - passed.len());
    Ok(Outcome::listed(detail, &passed, &untold))
}

fn variants(host: &str, path: &str) -> Vec<Variant> {
    let http1 = |name, head: &str, rest: &str| Variant {
        name,
        bytes: format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n{rest}").into_bytes(),
        http2: false,
        told: true,
    };
    let hosted = |name, head: &str, rest: &str| http1(name, &format!("Host: {host}\r\n{head}"), rest);
    let http2 = |name, told, extra: &[(&str, &str)]| {
        let pseudo = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", host)];
        Variant { name, bytes: wire::http2_request(&[&pseudo[..], extra].concat()), http2: true, told }
    };
    let second = format!("GET {path}?smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let chunked = "Transfer-Encoding: chunked";
    vec![
        hosted("CL.TE", &format!("Content-Length: 4\r\n{chunked}"), &format!("0\r\n\r\n{second}")),
        hosted("TE.CL", &format!("{chunked}\r\nContent-Length: 4"), &format!("5c\r\n{second}\r\n0\r\n\r\n")),
        hosted("TE.TE", &format!("{chunked}\r\nTransfer-Encoding: identity"), &format!("0\r\n\r\n{second}")),
        hosted("obscured TE", "Transfer-Encoding: xchunked", &format!("0\r\n\r\n{second}")),
        hosted("two lengths", "Content-Length: 0\r\nContent-Length: 3", "abc"),
        hosted("signed length", "Content-Length: +3", "abc"),
        hosted("space before colon", "Content-Length : 3", "abc"),
        hosted("folded line", "X-A: b\r\n Content-Length: 3", "abc"),
        hosted("bare CR", "X-A: b\rTransfer-Encoding: chunked", ""),
        Variant {
            name: "bare LF",
            bytes: format!("POST {path} HTTP/1.1\nHost: {host}\nContent-Length: 0\n\n").into_bytes(),
            http2: false,
            told: true,
        },
        http1("two hosts", &format!("Host: {host}\r\nHost: smuggled.invalid"), ""),
        hosted("chunk size with a sign", chunked, &format!("+0\r\n\r\n{second}")),
        hosted("chunk size too large", chunked, "fffffffffffffffff0\r\nabc"),
        hosted("chunk longer than said", chunked, "3\r\nabcdef\r\n0\r\n\r\n"),
        http2("HTTP/2 two authorities", true, &[("host", "smuggled.invalid")]),
        http2("HTTP/2 hop-by-hop field", false, &[("transfer-encoding", "chunked")]),
    ]
}

pub(super) fn spoofed(target: &Target) -> Result<Outcome, Unable> {
    const NAMES: [&str; 11] = [
        "X-Forwarded-Client-Cert",
        "X-Forwarded-For",
        "X-Real-IP",
        "Forwarded",
        "Ringfence-Caller",
        "Ringfence-User",
        "Ringfence.User",
        "Workload-Identity-Token",
        "Workload-Proof-Token",
        "Txn-Token",
        // CGI servers read this as the second one.
        "X_Forwarded_For",
    ];
    let address = target.gateway()?;
    let (host, path) = target.route()?;
    let trace = String::from_utf8_lossy(&TraceContext::start().encode()).into_owned();
    let id = &trace[3..35];
    // No service can know it; one that sends it back must have been told.
    let marker = ringfence_keys::to_hex(&ringfence_keys::random::<8>());
    let mut request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\ntraceparent: {trace}\r\nConnection: close\r\n");
    for name in NAMES {
        let value = match name {
            "X-Forwarded-Client-Cert" => format!("URI=spiffe://{}/service/{marker}", target.trust_domain()),
            "Forwarded" => format!("for=_{marker}"),
            _ => marker.clone(),
        };
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut watch = Watch::begin(&target.events())?;
    let answer = wire::exchange(address, &speak(target, &host, Alpn::Http1)?, request.as_bytes())
        .map_err(|e| Unable::new(format!("the gateway at {address}: {e}")))?;
    let reflected = answer.bytes.windows(marker.len()).any(|w| w == marker.as_bytes());
    let event = watch.wait(|e| is_of(e, id) && point(e) == "gateway");
    let corrected = event.as_ref().is_some_and(|e| {
        rule(e) == "header.spoofed"
            && NAMES.iter().all(|name| e.message().contains(&name.to_ascii_lowercase()))
    });
    let refused = event.as_ref().is_some_and(ringfence_event::Record::denied);
    let status =
        wire::status(&answer.bytes).map_or_else(|| "no answer".to_owned(), |s| format!("answered {s}"));
    let told = event.as_ref().map_or("no event tells of it", |e| e.message());
    let seen = if reflected { "the service SAW them" } else { "nothing of them came back" };
    // What the gateway says that it dropped, it has dropped: the words come from the list that the writer leaves out.
    let stopped = !reflected && (corrected || refused);
    // Whoever shows no credential is refused for that, with whatever else was shown.
    let shut = refused && wire::status(&answer.bytes) == Some(401);
    Ok(Outcome { stopped, reported: corrected || shut, detail: format!("{status}, {seen}; {told}") })
}

/// Requests that claim another method than they have.
pub(super) fn claimed(target: &Target) -> Result<Outcome, Unable> {
    const CLAIMS: [&str; 4] =
        ["_method=DELETE", "a=b&_METHOD=put", "%5Fmethod=PATCH", "X-HTTP-Method-Override=DELETE"];
    let address = target.gateway()?;
    let (host, path) = target.route()?;
    let mut watch = Watch::begin(&target.events())?;
    let (mut passed, mut untold) = (Vec::new(), Vec::new());
    for claim in CLAIMS {
        let request = format!(
            "POST {path}?{claim} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = wire::exchange(address, &speak(target, &host, Alpn::Http1)?, request.as_bytes())
            .map_err(|e| Unable::new(format!("the gateway at {address}: {e}")))?;
        if wire::status(&answer.bytes) != Some(400) {
            passed.push(claim);
        }
        let told = |e: &ringfence_event::Record| {
            e.kind() == "call" && e.denied() && point(e) == "gateway" && rule(e) == "method.override"
        };
        if watch.wait(told).is_none() {
            untold.push(claim);
        }
    }
    let detail = format!("{} of {} claims refused", CLAIMS.len() - passed.len(), CLAIMS.len());
    Ok(Outcome::listed(detail, &passed, &untold))
}

fn speak(target: &Target, host: &str, protocol: Alpn) -> Result<Speak, Unable> {
    if !target.gateway_tls() {
        return Ok(Speak::Plain);
    }
    let config = drill_client_config(None, &[protocol]).map_err(|e| Unable::new(e.to_string()))?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    Ok(Speak::Tls(config, name.to_owned()))
}
