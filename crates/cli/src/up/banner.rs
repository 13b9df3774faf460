//! What a newcomer reads when everything is up: what stands where, and the first thing to try.

use ringfence_model::{Credential, Fence, Gateway, GatewayTls};

use crate::data::DataDir;

pub(crate) fn text(
    fence: &Fence,
    data: &DataDir,
    host: Option<&str>,
    (ready, all): (usize, usize),
) -> String {
    let mut lines = vec![format!(
        "{}{} is up: {ready} of {all} services ready, {} edges",
        fence.name,
        host.map(|host| format!(" on {host}")).unwrap_or_default(),
        edges(fence)
    )];
    let here = |gateway: &&Gateway| host.is_none_or(|host| fence.runs_at(&gateway.at, host));
    if let Some(gateway) = fence.gateway.as_ref().filter(here) {
        let scheme = if matches!(gateway.tls, GatewayTls::Off) { "http" } else { "https" };
        // By name where there is one: people sign in under it.
        let named = |address: &std::net::SocketAddr| match gateway.hosts.first() {
            Some(host) => format!("{scheme}://{host}:{}", address.port()),
            None => format!("{scheme}://{address}"),
        };
        for address in &gateway.listen {
            lines.push(format!("gateway  {}", named(address)));
        }
        let route = fence.services.iter().find_map(|s| s.routes.first());
        if let (Some(address), Some(route)) = (gateway.listen.first(), route) {
            let ca = data.root().join("ca.pem");
            let ca = std::env::current_dir()
                .ok()
                .and_then(|here| ca.strip_prefix(here).ok().map(ToOwned::to_owned))
                .unwrap_or(ca);
            let trust = if matches!(gateway.tls, GatewayTls::Internal) {
                format!("--cacert {} ", ca.display())
            } else {
                String::new()
            };
            let host = route.host.as_ref().map(|h| format!("-H 'Host: {h}' ")).unwrap_or_default();
            let browser = route.access.accept.iter().any(|a| matches!(a.credential, Credential::Login(_)));
            lines.push(if browser {
                format!(
                    "try      {}{} in a browser; its authority is {}",
                    named(address),
                    route.path,
                    ca.display()
                )
            } else {
                format!("try      curl {trust}{host}{}{}", named(address), route.path)
            });
        }
    }
    lines.push("see      ringfence status, ringfence top, ringfence events --follow, ringfence drill".into());
    lines.join("\n")
}

fn edges(fence: &Fence) -> usize {
    fence.services.iter().map(|s| s.calls.len()).sum()
}
