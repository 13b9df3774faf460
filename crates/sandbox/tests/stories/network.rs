//! What a service reaches, and what it does not.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use ringfence_sandbox::protocol::{ProxyReply, ProxyRequest, Request};

use crate::Story;
use crate::fence::{Fence, hosts, inode, wait};

pub(crate) const STORIES: &[Story] = &[
    Story("a_service_that_binds_every_address_still_reaches_a_callee_at_the_same_port", wildcard_and_callee),
    Story("a_dial_to_the_outside_fails_at_once_and_is_seen_within_a_second", outside),
    Story("the_hosts_loopback_is_out_of_reach_and_the_attempt_is_seen", loopback),
    Story("a_name_that_is_asked_for_is_seen", names),
    Story("nmap_from_inside_is_seen_as_a_search_and_cannot_flood", nmap),
    Story("hosts_and_ports_change_while_a_service_runs", live_changes),
    Story("listeners_outlive_the_proxy_and_the_supervisor", listeners_stay),
    Story("a_proxy_gets_sockets_of_the_services_network_and_nothing_else", proxy_bounds),
    Story("two_hundred_dials_a_second_to_a_callee_raise_no_event", allowed_is_free),
];

const SERVE: &str = r#"
import socket, urllib.request
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", 80)); s.listen()
print("bound=yes")
print("answer=" + urllib.request.urlopen("http://patients/x", timeout=90).read().decode())
while True:
    c, a = s.accept(); c.sendall(b"from the service"); c.close()
"#;

fn wildcard_and_callee() {
    let fence = Fence::waiting(SERVE).change(|s| s.listen = Some(80)).up();
    let listener = fence.listener(80);
    fence.turn();
    let (mut caller, _) = listener.accept().unwrap();
    assert_eq!(
        caller.local_addr().unwrap().ip(),
        IpAddr::from([198, 18, 1, 1]),
        "the callee is known by address"
    );
    assert_eq!(caller.peer_addr().unwrap().ip(), IpAddr::from([198, 18, 0, 2]));
    let _ = caller.read(&mut [0; 1024]).unwrap();
    caller.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello").unwrap();
    assert_eq!(fence.said("answer"), "hello");
    let mut answer = String::new();
    fence.connect_inside(80).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "from the service");
}

/// What is answered at once takes 0 times four seconds, however busy the machine is; what is not runs into the timeout.
const DIAL: &str = r#"
import socket, time
def dial(family, kind, address):
    s = socket.socket(family, kind); s.settimeout(20); start = time.time()
    try:
        s.connect(address)
        if kind == socket.SOCK_DGRAM: s.send(b"x"); s.recv(1)
        return "reached"
    except OSError as e:
        return "timeout" if isinstance(e, TimeoutError) and not e.errno else "%s after %d" % (e.errno, (time.time() - start) / 4)
"#;

fn outside() {
    let script = format!(
        "{DIAL}
print('v4=' + dial(socket.AF_INET, socket.SOCK_STREAM, ('203.0.113.9', 443)))
print('again=' + ' '.join(dial(socket.AF_INET, socket.SOCK_STREAM, ('203.0.113.9', 443)) for _ in range(12)))
print('udp=' + dial(socket.AF_INET, socket.SOCK_DGRAM, ('203.0.113.9', 4444)))
print('v6=' + dial(socket.AF_INET6, socket.SOCK_STREAM, ('2001:db8::9', 443)))
print('undeclared=' + dial(socket.AF_INET, socket.SOCK_STREAM, ('198.18.1.1', 22)))
time.sleep(600)"
    );
    let fence = Fence::new(&script).up();
    assert_eq!(fence.said("v4"), "113 after 0", "EHOSTUNREACH, not a timeout");
    let seen = fence.event(&["\"dial\"", "203.0.113.9", ":443", "\"tcp\"", "outside", "portal"]);
    assert!(seen < Duration::from_secs(1), "{seen:?}");
    assert_eq!(fence.said("again"), ["113 after 0"; 12].join(" "), "each dial is answered");
    fence.event(&["\"dial\"", "203.0.113.9", ":443", "\"count\":12"]);
    assert!(fence.said("udp").ends_with("after 0"));
    fence.event(&["\"dial\"", "203.0.113.9", ":4444", "\"udp\""]);
    assert!(fence.said("v6").ends_with("after 0"));
    fence.event(&["\"dial\"", "2001:db8::9"]);
    assert_eq!(fence.said("undeclared"), "111 after 0");
    fence.event(&["\"dial\"", "198.18.1.1", ":22"]);
}

fn loopback() {
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    host.set_nonblocking(true).unwrap();
    let script = format!(
        "{DIAL}
print('v4=' + dial(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', {port})))
print('v6=' + dial(socket.AF_INET6, socket.SOCK_STREAM, ('::1', {port})))
print('udp=' + dial(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', 5353)))
time.sleep(600)"
    );
    let fence = Fence::new(&script).up();
    assert_eq!(fence.said("v4"), "111 after 0");
    let seen = fence.event(&["\"dial\"", "127.0.0.1", &format!(":{port}"), "loopback"]);
    assert!(seen < Duration::from_secs(1), "{seen:?}");
    assert_eq!(fence.said("v6"), "111 after 0");
    fence.event(&["\"dial\"", "\"::1\"", &format!(":{port}")]);
    assert_eq!(fence.said("udp"), "111 after 0");
    fence.event(&["\"dial\"", "127.0.0.1", ":5353", "\"udp\""]);
    assert_eq!(host.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody reached the host");
}

fn names() {
    let script = "
import socket, time
start = time.time()
try: socket.getaddrinfo('Exfil.example.net', 443); print('answer=found')
except OSError as e: print('answer=none after %d' % (time.time() - start))
print('hosts=' + socket.gethostbyname('patients'))
time.sleep(600)";
    let fence = Fence::new(script).up();
    let answer = fence.said("answer");
    assert!(answer.starts_with("none after") && answer.as_str() < "none after 5", "{answer}");
    assert_eq!(fence.said("hosts"), "198.18.1.1");
    fence.event(&["\"dial\"", "exfil.example.net", ":53"]);
}

fn nmap() {
    let script = "
import subprocess, time
out = subprocess.run(['/usr/bin/nmap', '-sT', '-Pn', '-n', '-T4', '-p1-3000', '203.0.113.9', '198.18.1.1'], capture_output=True, text=True)
print('nmap=%d %s' % (out.returncode, 'open' if ' open ' in out.stdout.replace('80/tcp', '').replace('9001/tcp', '') else 'nothing open'))
print(out.stdout[-2000:], out.stderr[-2000:])
time.sleep(600)";
    let fence = Fence::new(script).up();
    let seen = fence.event(&["\"scan\"", "portal", "\"ports\""]);
    assert!(seen < Duration::from_secs(20), "{seen:?}");
    assert!(fence.said("nmap").ends_with("nothing open"));
    std::thread::sleep(Duration::from_millis(1200));
    let events = fence.events();
    assert!(events.len() < 400, "{} events for 6000 packets", events.len());
}

fn live_changes() {
    let script = "
import socket, time
while True:
    try: print('billing=' + socket.gethostbyname('billing'))
    except OSError: pass
    try:
        s = socket.create_connection(('198.18.1.1', 9443), 60); print('port=open'); s.close()
    except OSError: pass
    time.sleep(0.05)";
    let fence = Fence::new(script).up();
    fence.shim().ask(&Request::SetHosts(hosts(&[("billing", [198, 18, 1, 7])]))).unwrap();
    assert_eq!(fence.said("billing"), "198.18.1.7");
    let refused = fence.shim().ask(&Request::Listeners { port: 9443, count: 1, address: None }).unwrap_err();
    assert!(refused.to_string().contains("not declared"), "{refused}");
    fence.event(&["\"dial\"", ":9443"]);
    fence.shim().ask(&Request::SetPorts([9443].into())).unwrap();
    let _listener = fence.listener(9443);
    assert_eq!(fence.said("port"), "open");
}

fn listeners_stay() {
    let script = "
import socket, time
s = socket.create_connection(('198.18.1.1', 80), 90); print('connected=yes'); s.sendall(b'hi'); time.sleep(600)";
    let fence = Fence::waiting(script).up();
    // The first proxy dies before it accepts, and its supervisor with it.
    drop(fence.listener(80));
    fence.turn();
    assert_eq!(fence.said("connected"), "yes", "it waits in the queue");
    let (mut stream, _) = fence.listener(80).accept().unwrap();
    let mut got = [0; 2];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hi");
    let (_, fds) = fence.shim().ask(&Request::Listeners { port: 80, count: 4, address: None }).unwrap();
    assert_eq!(fds.len(), 4);
}

fn proxy_bounds() {
    let fence = Fence::new("import time; time.sleep(600)").up();
    let proxy = fence.proxy();
    proxy.send(&ProxyRequest::Sockets { count: 32 }, &[]).unwrap();
    let (reply, fds) = proxy.recv().unwrap();
    assert!(matches!(reply, ProxyReply::Sockets { count: 32 }) && fds.len() == 32);
    assert!(fds.iter().all(|fd| inode(fd).starts_with("socket:")));
    for count in [0, 33, u16::MAX] {
        proxy.send(&ProxyRequest::Sockets { count }, &[]).unwrap();
        assert!(matches!(proxy.recv().unwrap(), (ProxyReply::Refused { .. }, fds) if fds.is_empty()));
    }
    let others: Vec<_> = (0..7).map(|_| fence.proxy()).collect();
    assert!(fence.shim().ask(&Request::ProxyChannel).is_err(), "no more than 8 at a time");
    drop(others);
    wait("a free channel", || fence.shim().ask(&Request::ProxyChannel).ok());
}

fn allowed_is_free() {
    let script = "
import socket, time
for n in range(200):
    s = socket.create_connection(('198.18.1.1', 80), 90); s.sendall(b'x' * 10000); s.close()
print('done=yes'); time.sleep(600)";
    let fence = Fence::waiting(script).up();
    let listener = fence.listener(80);
    fence.turn();
    let start = Instant::now();
    for _ in 0..200 {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    }
    assert_eq!(fence.said("done"), "yes");
    assert!(start.elapsed() < Duration::from_secs(180));
    std::thread::sleep(Duration::from_millis(300));
    let text = std::fs::read_to_string(fence.spec.data.join("events/shim-portal.jsonl")).unwrap();
    assert!(!text.contains("\"dial\"") && !text.contains("\"scan\""), "{text}");
}
