//! What changes under way: snapshots, identities, leases, drains.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringfence_proxy::protocol::{FromNode, ToNode};

use crate::gateway::fence;
use crate::mesh::{Clinic, FENCE, clinic};
use crate::net::echo;
use crate::patience::HELP;
use crate::rig::{Authority, Rig, TRUST_DOMAIN, eventually, field, get, local};

/// How long certificates live where they are to change: a node renews them at half of that.
const LIFE: Duration = Duration::from_secs(10);

/// Requests over kept and over new connections until told to stop; how many, and what went wrong.
fn load(
    clinic: &Clinic,
    stop: &Arc<AtomicBool>,
    requests: &Arc<AtomicU64>,
) -> Vec<std::thread::JoinHandle<(u64, Vec<String>)>> {
    (0..4)
        .map(|n| {
            let (stop, portal, gateway) = (stop.clone(), clinic.portal.clone(), clinic.rig.gateway);
            let requests = requests.clone();
            let address = clinic.rig.address("records");
            let connect = move || {
                if n % 2 == 0 { TcpStream::connect(gateway).unwrap() } else { portal.connect(&address, 80) }
            };
            std::thread::spawn(move || {
                let (mut done, mut failed) = (0, Vec::new());
                let mut kept = connect();
                while !stop.load(Ordering::Relaxed) {
                    if done % 20 == 19 {
                        kept = connect();
                    }
                    kept.set_read_timeout(Some(HELP)).unwrap();
                    match exchange(&mut kept) {
                        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {}
                        Ok(answer) => failed.push(answer),
                        Err(e) => {
                            failed.push(e.to_string());
                            kept = connect();
                        }
                    }
                    done += 1;
                    requests.fetch_add(1, Ordering::Relaxed);
                }
                (done, failed)
            })
        })
        .collect()
}

fn exchange(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET /load HTTP/1.1\r\nHost: records\r\n\r\n")?;
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        all.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&all);
        let Some(end) = text.find("\r\n\r\n") else { continue };
        let length = text
            .lines()
            .find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        if all.len() >= end + 4 + length.unwrap_or(0) {
            return Ok(text.into_owned());
        }
    }
}

#[test]
fn snapshots_and_identities_change_under_load_without_a_failure() {
    let clinic = clinic();
    *clinic.rig.control.life.lock().unwrap() = LIFE;
    clinic.rig.renew();
    let stop = Arc::new(AtomicBool::new(false));
    let requests = Arc::<AtomicU64>::default();
    let threads = load(&clinic, &stop, &requests);
    let issued = clinic.rig.control.issued.load(Ordering::Relaxed);
    let begun = Instant::now();
    let mut swaps = 0;
    let done = |swaps| {
        let requests = requests.load(Ordering::Relaxed);
        let renewed = clinic.rig.control.issued.load(Ordering::Relaxed) - issued;
        let is_enough = requests > 500 && renewed > 10 && swaps > 10;
        assert!(
            is_enough || begun.elapsed() < Duration::from_secs(300),
            "{requests} requests, {renewed} certificates, {swaps} snapshots"
        );
        // Those of the beginning are over, and those that came in their place.
        is_enough && begun.elapsed() > 2 * LIFE
    };
    while !done(swaps) {
        clinic.rig.apply_policy(FENCE);
        swaps += 1;
        if swaps == 8 {
            // The new root is believed before anybody is issued from it, and the old one for as long as it is in use.
            let new = Arc::new(Authority::new(TRUST_DOMAIN));
            let mut authority = clinic.rig.control.authority.lock().unwrap();
            let old = std::mem::replace(&mut *authority, new.clone());
            drop(authority);
            clinic.rig.control.extra_roots.lock().unwrap().push(old.root.clone());
            clinic.rig.control.generation.fetch_add(1, Ordering::Relaxed);
            clinic.rig.apply_policy(FENCE);
            clinic.rig.renew();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let (done, failed) = thread.join().unwrap();
        assert!(
            failed.is_empty(),
            "{} of {done} failed: {:?}\n{:#?}",
            failed.len(),
            failed.first(),
            clinic.rig.troubles()
        );
    }
}

#[test]
fn an_old_snapshot_is_refused_even_after_a_restart_and_the_last_good_one_serves_without_control() {
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port));
    let (old, signed_old) = rig.control.snapshot(&fence(port));
    rig.apply(&fence(port));
    rig.send(&signed_old);
    let refusal = |rig: &Rig| {
        eventually("a nack", || {
            rig.control.answers.lock().unwrap().iter().find(|(r, why)| *r == old && why.is_some()).cloned()
        })
    };
    assert!(refusal(&rig).1.unwrap().contains("replays"));
    let control = rig.control.clone();
    let dir = rig.stop();
    control.answers.lock().unwrap().clear();
    let rig = Rig::with_control(dir, control);
    let answer = get(TcpStream::connect(rig.gateway).unwrap(), "x", "/");
    assert!(answer.starts_with("HTTP/1.1 200"), "without control: {answer}");
    rig.connect_control();
    rig.send(&signed_old);
    refusal(&rig);
    let mut forged = rig.control.snapshot(&fence(port)).1;
    forged.bytes = forged.bytes.replace("portal", "pirate");
    rig.send(&forged);
    eventually("a nack", || {
        rig.control
            .answers
            .lock()
            .unwrap()
            .iter()
            .any(|(_, why)| why.as_ref().is_some_and(|w| w.contains("not signed")))
            .then_some(())
    });
}

#[test]
fn past_its_lease_everything_is_refused_until_control_renews_it() {
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port));
    let status = |rig: &Rig| get(TcpStream::connect(rig.gateway).unwrap(), "x", "/")[9..12].to_owned();
    assert_eq!(status(&rig), "200");
    rig.control.lease.store(2, Ordering::Relaxed);
    rig.apply_policy(&fence(port));
    eventually("a stale lease", || (status(&rig) == "503").then_some(()));
    rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "snapshot.stale");
    rig.control.lease.store(3600, Ordering::Relaxed);
    rig.apply_policy(&fence(port));
    eventually("service", || (status(&rig) == "200").then_some(()));
}

#[test]
fn control_may_go_and_come_back_while_requests_go_on() {
    let clinic = clinic();
    let works = || get(clinic.call("records", 80), "records", "/").starts_with("HTTP/1.1 200");
    assert!(works());
    clinic.rig.disconnect_control();
    clinic.rig.event("the loss", |r| field(r, "/message") == "control is gone");
    assert!(works());
    let issued = clinic.rig.control.issued.load(Ordering::Relaxed);
    clinic.rig.connect_control();
    clinic.rig.apply_policy(FENCE);
    clinic.rig.renew();
    eventually("new certificates", || {
        (clinic.rig.control.issued.load(Ordering::Relaxed) >= issued + 6).then_some(())
    });
    assert!(works());
}

#[test]
fn before_the_first_snapshot_nothing_passes() {
    let rig = Rig::bare(tempfile::tempdir().unwrap());
    let answer = get(TcpStream::connect(rig.gateway).unwrap(), "x", "/");
    assert_eq!(answer, "", "it is not even known whether the gateway speaks TLS");
}

#[test]
fn a_drain_lets_requests_end_and_cuts_what_does_not() {
    let (listener, port) = local();
    // A service whose second answer waits until it is released.
    let (arriving, arrived) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let released = Arc::new(Mutex::new(released));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (arriving, released) = (arriving.clone(), released.clone());
            std::thread::spawn(move || {
                while let Ok(head) = read_head(&mut stream) {
                    if head.starts_with("GET /slow") {
                        arriving.send(()).unwrap();
                        released.lock().unwrap().recv().unwrap();
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let rig = Rig::start(&fence(port));
    let address = rig.gateway;
    let mut idle = TcpStream::connect(rig.gateway).unwrap();
    assert!(exchange(&mut idle).unwrap().starts_with("HTTP/1.1 200"));
    let slow = std::thread::spawn(move || get(TcpStream::connect(address).unwrap(), "x", "/slow"));
    arrived.recv_timeout(HELP).unwrap();
    rig.tell(&ToNode::Drain { seconds: 60 });
    eventually("nobody to accept any more", || TcpStream::connect(address).is_err().then_some(()));
    release.send(()).unwrap();
    let answer = slow.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(matches!(rig.wait_for(|m| matches!(m, FromNode::Drained { .. })), FromNode::Drained { cut: 0 }));
}

fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}
