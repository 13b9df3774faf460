//! Crowds: whoever opens connections and brings nothing, or next to nothing, takes nothing from those who do.
//!
//! The long forms are `cargo xtask soak slowhttp` and `cargo xtask soak rapid-reset`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::frames::{CANCEL, Client, request, reset};
use crate::framing::Before;
use crate::gateway::fence;
use crate::net::echo;
use crate::patience::{HELP, within};
use crate::rig::{self, Rig, eventually, field, get, local, raw};

/// How long the long form of a run takes, if that is meant.
#[expect(clippy::disallowed_methods, reason = "the long form is asked for by xtask")]
fn long() -> Option<Duration> {
    let seconds = std::env::var("RINGFENCE_SOAK_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().unwrap()))
}

/// A connection from another of this machine's own addresses.
fn from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0);
    socket.bind(&own.into()).unwrap();
    socket.connect_timeout(&to.into(), HELP).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(HELP)).unwrap();
    stream
}

fn is_served(stream: TcpStream) -> bool {
    get(stream, "x", "/").starts_with("HTTP/1.1 200")
}

/// Waits until this many are served one after another: whoever brings nothing is let be for a second, from when the gateway took it in,
/// which may be late. Sooner than the crowd ends by itself.
fn all_served(rig: &Rig, count: usize) {
    within(Duration::from_secs(40), "room for those who ask", || {
        (0..count).all(|_| is_served(from(2, rig.gateway))).then_some(())
    });
}

/// How many of these connections the gateway has closed.
fn closed(streams: &[TcpStream]) -> usize {
    let is_closed = |stream: &&TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        match (&mut &**stream).read(&mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(e) => !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    };
    streams.iter().filter(is_closed).count()
}

fn world(limits: &str) -> Rig {
    let (listener, port) = local();
    echo(listener);
    Rig::start(&(fence(port) + limits))
}

#[test]
fn one_address_takes_its_share_and_no_more() {
    let rig = world("limits: { connections: 1000, connections_per_address: 10 }\n");
    let silent: Vec<_> = (0..40).map(|_| from(2, rig.gateway)).collect();
    rig.event("the limit", |r| field(r, "/firewall_rule/uid") == "limit.connections-per-address");
    // Each of the two threads has its share.
    eventually("refusals", || (closed(&silent) >= 28).then_some(()));
    assert!((0..20).all(|_| is_served(from(3, rig.gateway))), "another address is served");
    drop(silent);
    eventually("service", || is_served(from(2, rig.gateway)).then_some(()));
}

#[test]
fn where_there_is_no_room_those_make_it_that_brought_nothing() {
    let rig = world("limits: { connections: 40, header_time: 1m, idle: 10m }\n");
    let slow: Vec<_> = (0..60)
        .filter_map(|n| {
            let mut stream = from(2, rig.gateway);
            stream.write_all(if n % 2 == 0 { b"GET / HT" } else { b"" }).ok()?;
            Some(stream)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(1_200));
    all_served(&rig, 20);
    // From now on there are some on each thread that brought nothing for longer than anybody is given.
    let mut kept = from(2, rig.gateway);
    kept.write_all(b"GET /kept HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // All of it: the head, and the request as the body.
    let (mut first, mut byte) = (Vec::new(), [0]);
    while String::from_utf8_lossy(&first).matches("\r\n\r\n").count() < 2 {
        kept.read_exact(&mut byte).unwrap();
        first.push(byte[0]);
    }
    assert!((0..20).all(|_| is_served(from(2, rig.gateway))), "{:?}", rig.troubles());
    rig.event("who made room", |r| field(r, "/firewall_rule/uid") == "limit.crowded");
    assert!(closed(&slow) > 0);
    kept.write_all(b"GET /again HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "whoever was served before stays: {answer}");
}

#[test]
fn whoever_sends_or_takes_next_to_nothing_makes_room_too() {
    let rig = world("limits: { connections: 20, header_time: 1m, idle: 10m }\n");
    let big = format!("POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 4 << 20);
    let mut slow: Vec<_> = (0..30)
        .map(|_| {
            let mut stream = from(2, rig.gateway);
            let _ = stream.write_all(big.as_bytes());
            stream
        })
        .collect();
    for _ in 0..11 {
        std::thread::sleep(Duration::from_millis(600));
        slow.iter_mut().for_each(|stream| drop(stream.write_all(b"x")));
    }
    all_served(&rig, 10);
    rig.event("who made room", |r| field(r, "/firewall_rule/uid") == "limit.crowded");
}

#[test]
fn what_a_client_does_not_read_waits_at_the_service_not_in_the_kernel() {
    let (listener, port) = local();
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        socket2::SockRef::from(&stream).set_send_buffer_size(16 << 10).unwrap();
        while stream.read(&mut [0; 1024]).is_ok_and(|read| read == 1024) {}
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {
            count.fetch_add(4096, Ordering::Relaxed);
        }
    });
    let rig = Rig::start(&fence(port));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&rig.gateway.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("the service's first bytes", || (sent.load(Ordering::Relaxed) > 0).then_some(()));
    let still = || {
        let before = sent.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(700));
        (sent.load(Ordering::Relaxed) == before).then_some(before)
    };
    let sent = eventually("the service to be stopped", still);
    assert!(sent < 1 << 20, "{sent} bytes were taken from the service");
}

#[test]
fn handshakes_that_are_not_finished_make_room_and_end_in_time() {
    let (listener, port) = local();
    echo(listener);
    let yaml = fence(port).replace(", tls: off }\nexternal", ", hosts: [clinic.test] }\nexternal");
    let rig =
        Rig::start(&(yaml + "limits: { handshakes: 8, handshakes_per_address: 8, handshake_time: 15s }\n"));
    let ca = rig.dir.path().join("ca.pem");
    std::fs::write(&ca, crate::walls::pem(&rig.control.authority.lock().unwrap())).unwrap();
    let curl = || {
        let out = Command::new("curl")
            .args([
                "--silent",
                "--max-time",
                "60",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                "--cacert",
            ])
            .arg(&ca)
            .args(["--resolve", &format!("clinic.test:{}:127.0.0.1", rig.gateway.port())])
            .arg(format!("https://clinic.test:{}/", rig.gateway.port()))
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(curl(), "200");
    let silent: Vec<_> = (0..30).map(|_| from(1, rig.gateway)).collect();
    rig.event("the limit", |r| field(r, "/firewall_rule/uid").starts_with("limit.handshakes"));
    std::thread::sleep(Duration::from_millis(1_200));
    // They are let be for a second from when the gateway took them in.
    within(Duration::from_secs(40), "room for who is quick", || (curl() == "200").then_some(()));
    assert!(closed(&silent) < silent.len(), "it was made before their time was over");
    rig.event("who made room", |r| field(r, "/firewall_rule/uid") == "limit.crowded");
    eventually("their end", || (closed(&silent) == silent.len()).then_some(()));
}

/// Which of their times is told of all requests. Among other tests the longest tell of those.
fn quantile() -> usize {
    if long().is_some() { 99 } else { 50 }
}

/// Times of honest requests, each on a connection of its own, one after another.
fn honest(rig: &Rig, time: Duration) -> (Duration, usize, usize) {
    let end = Instant::now() + time;
    let (mut times, mut failed) = (Vec::new(), 0);
    // A few in any case: a busy machine takes long for each.
    let latest = end + HELP;
    let few = |times: &[Duration], failed| long().is_none() && times.len() < 10 && failed < 10;
    while Instant::now() < end || (few(&times, failed) && Instant::now() < latest) {
        let begun = Instant::now();
        let mut stream = from(1, rig.gateway);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        // Who was kept from asking for long is not told apart from those who attack.
        let is_honest = long().is_some() || begun.elapsed() < Duration::from_millis(500);
        match raw(stream, b"").starts_with("HTTP/1.1 200") {
            true => times.push(begun.elapsed()),
            false => failed += usize::from(is_honest),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    let told = times.get(times.len() * quantile() / 100).copied().unwrap_or(Duration::MAX);
    (told, times.len(), failed)
}

/// This thread runs only where nobody else wants to: who attacks from elsewhere takes no time on the processor from who is honest.
fn elsewhere() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let idle = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status();
    assert!(idle.unwrap().success());
}

/// In the long form the gateway has one thread, on a processor of its own: what is measured is what the gateway does with its time, not
/// how the kernel shares two processors among it, the service, those who attack and who is honest. Called before the others start. Not
/// with `slowhttptest`, whose looks at ten thousand connections keep whoever shares its processor waiting for milliseconds.
fn apart() {
    if long().is_some() && cpus() > 1 {
        rig::THREADS.store(1, Ordering::Relaxed);
        on(None, cpus() - 1);
    }
}

/// Called when the gateway is there.
fn on_its_own() {
    if long().is_none() || cpus() == 1 {
        return;
    }
    for task in std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap) {
        if std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("data-")) {
            let thread = task.file_name().to_str().unwrap().parse().unwrap();
            on(rustix::thread::Pid::from_raw(thread), 0);
        }
    }
}

/// Of the machine: a thread that is tied to one still says how many there are.
fn cpus() -> usize {
    static CPUS: OnceLock<usize> = OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().unwrap().get())
}

fn on(thread: Option<rustix::thread::Pid>, cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(thread, &set).unwrap();
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an attack costs those who are honest: in the long form twice of `otherwise` at most, among tests not much. Told at once; judged
/// by the caller when all is told.
#[must_use]
fn compare(
    name: &str,
    (when, otherwise): (&str, (Duration, usize, usize)),
    under: (Duration, usize, usize),
) -> bool {
    println!(
        "{name}: p{} {:?} of {} {when}, {:?} of {} under attack ({:.2} x), {} failed",
        quantile(),
        otherwise.0,
        otherwise.1,
        under.0,
        under.1,
        under.0.as_secs_f64() / otherwise.0.as_secs_f64(),
        under.2
    );
    // Among other tests the attackers, who run here too, and whatever else there is share the processors with who is honest.
    let twice = otherwise.0 * 2;
    let most = if long().is_some() { twice } else { Duration::from_secs(10).max(twice) };
    under.2 == 0 && under.0 <= most
}

/// A service that holds any number of connections: it answers each request by its head alone, `/big` with more than fits into the
/// buffers of a connection that is not read.
fn patient() -> u16 {
    let (listener, port) = local();
    listener.set_nonblocking(true).unwrap();
    let serve = async |stream: tokio::net::TcpStream| -> std::io::Result<()> {
        let mut stream = tokio::io::BufReader::with_capacity(1024, stream);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                if tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut head).await? == 0 {
                    return Ok(());
                }
            }
            for line in head.to_ascii_lowercase().lines() {
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = tokio::io::AsyncReadExt::take(&mut stream, length);
            tokio::io::copy_buf(&mut body, &mut tokio::io::sink()).await?;
            let body = "x".repeat(if head.starts_with("GET /big") { 64 << 10 } else { 2 });
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await?;
        }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream));
            }
        });
    });
    port
}

/// This many connections of one kind, against a gateway that may have `most`. What `slowhttptest` itself takes from who is honest is none
/// of the gateway's: on a machine with so few processors that nobody keeps clear of it, the long form also measures while the same
/// happens to another server here, tells both, and judges by that.
fn slow((name, kind, path): (&str, &str, &str), count: usize, most: usize, time: Duration) -> bool {
    let rig = Rig::start(&format!("{}limits: {{ connections: {most} }}\n", fence(patient())));
    let attack = |address: SocketAddr| {
        let attack = Command::new("chrt")
            .args(["--idle", "0", "slowhttptest", kind, "-c", &count.to_string()])
            .args(["-r", &(count / 3).to_string(), "-i", "2", "-x", "8"])
            .args(["-l", &(time.as_secs() + 6).to_string(), "-p", "3"])
            .args(["-u", &format!("http://{address}{path}")])
            .args(if kind == "-X" { &["-w", "8", "-y", "16", "-n", "2", "-z", "4"][..] } else { &[] })
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let attack = Running(attack.expect("slowhttptest is needed for this test"));
        std::thread::sleep(Duration::from_secs(if long().is_some() { 5 } else { 2 }));
        attack
    };
    let name = format!("{name}, {count} where {most} may be");
    let short = time.min(Duration::from_secs(10));
    let calm = honest(&rig, short);
    let shared = (long().is_some() && cpus() < 4).then(|| {
        let _elsewhere = attack((Ipv4Addr::LOCALHOST, patient()).into());
        honest(&rig, short)
    });
    let _attack = attack(rig.gateway);
    let under = honest(&rig, time);
    let strict = compare(&name, ("calm", calm), under);
    shared.map_or(strict, |shared| compare(&name, ("with the same elsewhere on the machine", shared), under))
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}

#[test]
fn slow_heads_bodies_and_reads_cost_nobody_else_their_time() {
    let kinds = [("slow heads", "-H", "/"), ("slow bodies", "-B", "/"), ("slow reads", "-X", "/big")];
    let Some(time) = long() else {
        assert!(kinds.map(|kind| slow(kind, 400, 300, Duration::from_secs(3))) == [true; 3]);
        return;
    };
    // With room for all of them, and where most have to make room for others. A request that has begun takes three descriptors of this
    // process: the client's, and both ends of the one behind.
    let all = kinds.map(|kind| {
        let room = if kind.1 == "-H" { 20_000 } else { 20_000.min(descriptors() / 3 - 500) };
        [room, 4_000].map(|most| slow(kind, 10_000, most, time / 6))
    });
    assert!(all.as_flattened().iter().all(|holds| *holds), "see above");
}

#[test]
fn a_flood_of_rapid_resets_costs_nobody_else_their_time() {
    apart();
    let before = Before::start("");
    on_its_own();
    let time = long().map_or(Duration::from_secs(3), |time| time / 2);
    let calm = honest(&before.rig, time.min(Duration::from_secs(10)));
    let (over, streams, ends) =
        (Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let address = before.rig.gateway;
    let attackers: Vec<_> = (0..4)
        .map(|_| {
            let (over, streams, ends) = (over.clone(), streams.clone(), ends.clone());
            std::thread::spawn(move || {
                elsewhere();
                while !over.load(Ordering::Relaxed) {
                    let mut client = Client::new(address, &[]);
                    let mut n = 0;
                    while !over.load(Ordering::Relaxed)
                        && !client.closed
                        && client.goaway().is_none()
                        && n < 100_000
                    {
                        let block = crate::frames::get();
                        let one = |n: u32| [request(2 * n + 1, &block), reset(2 * n + 1, CANCEL)].concat();
                        if !client.try_send(&(n..n + 50).flat_map(one).collect::<Vec<_>>()) {
                            break;
                        }
                        n += 50;
                        streams.fetch_add(50, Ordering::Relaxed);
                        client.until(Duration::from_millis(5), |_| false);
                    }
                    ends.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let under = honest(&before.rig, time);
    // They run when nobody else does: that may take a while.
    let sent_away = eventually("those who flood to be sent away", || {
        let ends = ends.load(Ordering::Relaxed);
        (ends > 4).then_some(ends)
    });
    over.store(true, Ordering::Relaxed);
    attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
    let streams = streams.load(Ordering::Relaxed);
    println!("rapid reset: {streams} streams on {sent_away} connections that were ended");
    assert!(compare("rapid reset", ("calm", calm), under));
}
