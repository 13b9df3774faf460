//! Each protection switched off: its drill must say that the attack came through.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::running::{Clinic, Who, as_user, binary, make_folder, own, services, spine, text};
use crate::servers::Server;
use crate::{fails, score};

#[test]
fn an_edge_in_force_that_nobody_declared_fails_the_undeclared_call() {
    let clinic = Clinic::start_with(Who::Nobody, |fence| {
        fence.replace("[appointments, patients, billing]", "[appointments, patients, billing, mailer]")
    });
    // What the drill is told should be enforced, against what is.
    let strict = clinic.folder.join("strict.yaml");
    let lenient = std::fs::read_to_string(clinic.folder.join("ringfence.yaml")).unwrap();
    std::fs::write(&strict, lenient.replace(", mailer]", "]")).unwrap();
    let output = clinic.ringfence(&[
        "drill",
        "--json",
        "-f",
        "strict.yaml",
        "--data",
        ".ringfence",
        "undeclared-call",
    ]);
    let one = fails(&output, "undeclared-call");
    assert_eq!(one["reported"], false, "{one}");
}

#[test]
fn a_mesh_listener_that_takes_any_certificate_fails_the_three_identity_drills() {
    let clinic = Clinic::start(Who::Nobody);
    let server = Server::any_certificate();
    for name in ["forged-svid", "expired-svid", "wrong-trust-domain"] {
        let output = clinic.ringfence(&["drill", "--json", "--mesh", &server.address, name]);
        let one = fails(&output, name);
        assert_eq!(one["reported"], false, "{one}");
        // The same attack at the real listener, a moment later.
        let output = clinic.ringfence(&["drill", "--json", name]);
        assert_eq!(score(&output, name)["passed"], true, "{}", text(&output.stdout));
    }
}

#[test]
fn a_gateway_that_believes_what_it_reads_fails_the_smuggled_request() {
    let (clinic, server) = (Clinic::start(Who::Nobody), Server::naive_gateway());
    let output = clinic.ringfence(&["drill", "--json", "--gateway", &server.address, "smuggled-request"]);
    let one = fails(&output, "smuggled-request");
    assert!(one["detail"].as_str().unwrap().starts_with("0 of "), "not one variant is refused: {one}");
}

#[test]
fn a_gateway_that_passes_identity_headers_on_fails_the_spoofed_header() {
    let (clinic, server) = (Clinic::start(Who::Nobody), Server::naive_gateway());
    let output = clinic.ringfence(&["drill", "--json", "--gateway", &server.address, "spoofed-header"]);
    let one = fails(&output, "spoofed-header");
    assert!(one["detail"].as_str().unwrap().contains("SAW"), "{one}");
}

#[test]
fn a_gateway_that_passes_any_query_on_fails_the_claimed_method() {
    let (clinic, server) = (Clinic::start(Who::Nobody), Server::naive_gateway());
    let output = clinic.ringfence(&["drill", "--json", "--gateway", &server.address, "claimed-method"]);
    let one = fails(&output, "claimed-method");
    assert!(one["detail"].as_str().unwrap().starts_with("0 of "), "{one}");
    let output = clinic.ringfence(&["drill", "--json", "claimed-method"]);
    assert_eq!(score(&output, "claimed-method")["passed"], true, "{}", text(&output.stdout));
}

#[test]
fn a_gateway_that_believes_any_token_fails_the_drills_of_tokens() {
    let (clinic, server) = (Clinic::start(Who::Nobody), Server::naive_gateway());
    for name in ["forged-token", "replayed-dpop", "stolen-token", "revoked-session"] {
        let output = clinic.ringfence(&["drill", "--json", "--gateway", &server.address, name]);
        let one = fails(&output, name);
        assert_eq!(one["reported"], false, "{one}");
        assert!(one["detail"].as_str().unwrap().starts_with("0 of "), "not one attack is refused: {one}");
    }
}

#[test]
fn without_limits_a_flood_comes_through() {
    let (clinic, server) = (Clinic::start(Who::Nobody), Server::naive_gateway());
    let output = clinic.ringfence(&["drill", "--json", "--gateway", &server.address, "rate-flood"]);
    let one = fails(&output, "rate-flood");
    assert_eq!(one["reported"], false, "{one}");
    assert!(one["detail"].as_str().unwrap().starts_with("0 of 2"), "{one}");
    let limit = "], limit: [{ by: user, rate: 5/1h }";
    let output = clinic.ringfence(&["drill", "--json", "--without", limit, "rate-flood"]);
    let one = fails(&output, "rate-flood");
    assert!(
        one["detail"].as_str().unwrap().contains("PASSED: one user with many tokens (100 of 100)"),
        "{one}"
    );
}

#[test]
fn where_an_edge_does_not_demand_somebody_s_behalf_the_stolen_token_comes_through() {
    let clinic = Clinic::start(Who::Nobody);
    let output = clinic.ringfence(&["drill", "--json", "--without", ", on_behalf: required", "stolen-token"]);
    let one = fails(&output, "stolen-token");
    let detail = one["detail"].as_str().unwrap();
    assert!(detail.contains("PASSED: another service, after its end"), "{one}");
}

#[test]
fn where_nobody_looks_for_attacks_sql_comes_through() {
    let clinic = Clinic::start(Who::Nobody);
    let output = clinic.ringfence(&["drill", "--json", "--without", ", waf: enforce", "sql-injection"]);
    let one = fails(&output, "sql-injection");
    assert_eq!(one["reported"], false, "{one}");
    assert!(one["detail"].as_str().unwrap().starts_with("0 of "), "not one attack is refused: {one}");
}

#[test]
fn where_a_service_is_held_to_no_description_anything_reaches_it() {
    let clinic = Clinic::start(Who::Nobody);
    let openapi = "openapi: { file: openapi/notes.yaml, responses: off }";
    let output = clinic.ringfence(&["drill", "--json", "--without", openapi, "malformed-body"]);
    let one = fails(&output, "malformed-body");
    assert_eq!(one["reported"], false, "{one}");
    assert!(one["detail"].as_str().unwrap().starts_with("0 of "), "not one request is refused: {one}");
}

#[test]
fn behind_the_real_gateway_a_service_that_tells_all_it_sees_sees_none_of_the_spoofed_headers() {
    let fence = "
fence: echo
trust_domain: echo.example
gateway: { listen: 127.0.0.1:8443 }
services:
  echo: { run: [python3, echo.py], listen: 9000, routes: [{ path: / }] }
";
    let script = "
import http.server
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = ''.join(f'{k}: {v}\\n' for k, v in self.headers.items()).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', 9000), Echo).serve_forever()";
    let clinic = Clinic::start_fence(Who::Nobody, fence, Vec::new(), |folder| {
        std::fs::write(folder.join("echo.py"), script).unwrap();
    });
    let output = clinic.ringfence(&["drill", "--json", "spoofed-header"]);
    assert_eq!(score(&output, "spoofed-header")["passed"], true, "{}", text(&output.stdout));
    let lies = [
        "X-Forwarded-Client-Cert",
        "X-Forwarded-For",
        "Forwarded",
        "Ringfence-Caller",
        "Txn-Token",
        "X_Real_IP",
    ];
    let fields: Vec<String> = lies.iter().map(|name| format!("{name}: i-am-the-portal")).collect();
    let mut arguments: Vec<&str> = fields.iter().flat_map(|field| ["-H", field.as_str()]).collect();
    arguments.push("/");
    let told = text(&clinic.curl(&arguments).stdout).to_ascii_lowercase();
    assert!(!told.contains("i-am-the-portal"), "{told}");
    assert!(told.contains("x-forwarded-for: 127.0.0.1"), "set afresh: {told}");
    let gateway = "x-forwarded-client-cert: uri=spiffe://echo.example/gateway/echo";
    assert!(told.contains(gateway), "set afresh: {told}");
}

#[test]
fn without_isolation_a_direct_dial_comes_through() {
    let one = fails(without_isolation(), "direct-dial");
    assert!(one["detail"].as_str().unwrap().contains("REACHED"), "{one}");
}

#[test]
fn without_isolation_a_dial_outside_comes_through() {
    let one = fails(without_isolation(), "outside-dial");
    assert_eq!(one["detail"].as_str().unwrap().matches("REACHED").count(), 2, "TCP and UDP: {one}");
}

#[test]
fn without_isolation_the_data_directory_lies_open() {
    let one = fails(without_isolation(), "data-directory");
    assert!(one["detail"].as_str().unwrap().contains("master.key"), "{one}");
}

#[test]
fn without_isolation_the_neighbours_are_visible() {
    let one = fails(without_isolation(), "neighbour");
    assert!(!one["detail"].as_str().unwrap().contains(" 0 of "), "{one}");
}

/// Four drills against a clinic without isolation, in a network of its own where somebody listens at the address that the
/// drill takes for the outside: nothing of this can leave this host.
fn without_isolation() -> &'static Output {
    static OUTPUT: OnceLock<Output> = OnceLock::new();
    OUTPUT.get_or_init(|| {
        let folder = make_folder(Who::Nobody);
        services(&folder);
        std::fs::write(folder.join("ringfence.yaml"), spine()).unwrap();
        own(&folder, Who::Nobody);
        let output = in_a_network_of_its_own(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        output
    })
}

fn in_a_network_of_its_own(folder: &Path) -> Output {
    const SCRIPT: &str = r#"
set -e
ip link set lo up
ip address add 203.0.113.9/32 dev lo
python3 -c '
import socket, threading
tcp = socket.create_server(("203.0.113.9", 443))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("203.0.113.9", 53))
def answer():
    while True: udp.sendto(*udp.recvfrom(512))
threading.Thread(target=answer, daemon=True).start()
while True: tcp.accept()[0].close()' &
outside=$!
"$@" up . --isolation off --quiet >up.log 2>&1 &
up=$!
trap 'kill $outside; kill -INT $up; wait $up' EXIT
for i in $(seq 900); do
    if "$@" status --json >status.json 2>/dev/null &&
        python3 -c 'import json,sys; s=json.load(open("status.json"))["report"]["services"]; sys.exit(not s or any(x["state"]!="ready" for x in s))'
    then break; fi
    sleep 0.2
done
code=0
"$@" drill --json direct-dial outside-dial data-directory neighbour || code=$?
cat up.log >&2
exit $code
"#;
    // As root: a network for the script, and in it `ringfence` as a user. As a user: a network that is ours to set up.
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    let as_user = as_user(Who::Nobody, &binary());
    let words: Vec<PathBuf> =
        [as_user.get_program()].into_iter().chain(as_user.get_args()).map(PathBuf::from).collect();
    command
        .args(["sh", "-c", SCRIPT, "sh"])
        .args(words)
        .env("HOME", "/tmp")
        .current_dir(folder)
        .output()
        .unwrap()
}
