//! Identities that do not hold, shown to the mesh listener.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfence_tls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use ringfence_tls::{Alpn, drill_client_config};

use crate::drill::forge::{self, Shown};
use crate::drill::target::{Pair, Target};
use crate::drill::watch::{Watch, rule};
use crate::drill::wire::{self, End, Speak};
use crate::drill::{Outcome, Unable};

/// Life of the certificate that is let run out.
const LIFE: u64 = 1;
/// A trust domain that nobody can have (RFC 2606).
const FOREIGN: &str = "drill.invalid";

pub(super) fn forged(target: &Target) -> Result<Outcome, Unable> {
    let pair = target.declared()?;
    let shown = forge::svid(target.trust_domain(), &pair.caller.name)?;
    dial(target, pair, shown, &["untrusted", "bad_signature", "no_path_to_root"])
}

pub(super) fn wrong_trust_domain(target: &Target) -> Result<Outcome, Unable> {
    let pair = target.declared()?;
    dial(target, pair, forge::svid(FOREIGN, &pair.caller.name)?, &["unknown_trust_domain"])
}

pub(super) fn expired(target: &Target) -> Result<Outcome, Unable> {
    let pair = target.declared()?;
    let minted = target.mint(&pair.caller.name, LIFE)?;
    let chain = minted.chain.into_iter().map(|der| CertificateDer::from(der.0)).collect();
    let key = PrivatePkcs8KeyDer::from(minted.key.0).into();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Its last second is still valid; bounded in case the clocks disagree.
    let end = Duration::from_secs(minted.not_after + 1) + Duration::from_millis(100);
    std::thread::sleep(end.saturating_sub(now).min(Duration::from_secs(5)));
    dial(target, pair, (chain, key), &["expired"])
}

fn dial(target: &Target, pair: Pair<'_>, shown: Shown, rules: &[&str]) -> Result<Outcome, Unable> {
    let (caller, callee) = (&pair.caller.name, &pair.callee.name);
    let config = drill_client_config(Some(shown), &[Alpn::Http1]).map_err(|e| Unable::new(e.to_string()))?;
    let name = format!("{callee}.{}", target.trust_domain());
    let request = format!("GET / HTTP/1.1\r\nHost: {callee}\r\nConnection: close\r\n\r\n");
    let mut watch = Watch::begin(&target.events())?;
    let address = target.mesh()?;
    let answer = wire::exchange(address, &Speak::Tls(config, name), request.as_bytes())
        .map_err(|e| Unable::new(format!("the mesh listener at {address}: {e}")))?;
    // In TLS 1.3 the client is done before the server has looked at its certificate: the refusal comes afterwards.
    let stopped = answer.bytes.is_empty() && answer.end != End::Silent;
    let event = watch.wait(|e| {
        let source = &e.json["src_endpoint"];
        e.kind() == "connection"
            && e.denied()
            && source["port"] == answer.local.port()
            && rules.contains(&rule(e))
    });
    let said = match (&answer.end, answer.bytes.len()) {
        (End::Alert(alert), 0) => format!("refused with the alert {alert}"),
        (End::Closed, 0) => "closed without a byte".to_owned(),
        (End::Silent, 0) => "not refused: the connection stays open".to_owned(),
        (_, n) => format!("answered with {n} bytes"),
    };
    let told = event.as_ref().map_or("no event gives the reason", |e| e.message());
    Ok(Outcome {
        stopped,
        reported: event.is_some(),
        detail: format!("as {caller} → {callee}: {said}; {told}"),
    })
}
