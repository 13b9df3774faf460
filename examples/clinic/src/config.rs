//! What the environment may change; every value has a default that fits the fence.

/// The address to listen on: `CLINIC_LISTEN`, or `port` on all addresses of the network the service was put into.
pub(crate) fn listen(port: u16) -> String {
    read("CLINIC_LISTEN").unwrap_or_else(|| format!("0.0.0.0:{port}"))
}

/// Where a callee is: `RINGFENCE_<NAME>_URL`, or its name and port as under Compose.
pub(crate) fn url(name: &str, port: u16) -> String {
    let variable = format!("RINGFENCE_{}_URL", name.to_uppercase().replace('-', "_"));
    let url = read(&variable).unwrap_or_else(|| format!("http://{name}:{port}"));
    url.trim_end_matches('/').to_owned()
}

/// The mail server, as `HOST:PORT`: `CLINIC_SMTP`, or the outside host that the fence declares.
pub(crate) fn smtp() -> String {
    read("CLINIC_SMTP").unwrap_or_else(|| "smtp.example.net:587".to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the one place where the clinic reads its environment")]
fn read(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}
