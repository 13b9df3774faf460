//! The five services as processes on loopback, without a fence: does the clinic work by itself.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct Service {
    child: Child,
    address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = match name {
            "patients" => Command::new("python3"),
            _ => Command::new(env!("CARGO_BIN_EXE_clinic")),
        };
        let mut child = command
            .arg(if name == "patients" { "services/patients.py" } else { name })
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CLINIC_LISTEN", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (kept, (say, first)) = (log.clone(), sync_channel(1));
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                drop(say.try_send(line.clone()));
                kept.lock().unwrap().push(line);
            }
        });
        let said =
            first.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{name} said nothing"));
        let address = said.rsplit(' ').next().unwrap().to_owned();
        Self { child, address, log }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn logged(&self, what: &str) -> bool {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if self.log.lock().unwrap().iter().any(|line| line.contains(what)) {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Ends in order when it is asked to.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("still there 8 s after SIGTERM");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Clinic {
    portal: Service,
    others: Vec<Service>,
}

fn open(smtp: &str) -> Clinic {
    let patients = Service::start("patients", &[]);
    let mailer = Service::start("mailer", &[("CLINIC_SMTP", smtp)]);
    let known = [("RINGFENCE_PATIENTS_URL", patients.url()), ("RINGFENCE_MAILER_URL", mailer.url())];
    let known = known.each_ref().map(|(name, url)| (*name, url.as_str()));
    let appointments = Service::start("appointments", &known);
    let billing = Service::start("billing", &known);
    let portal = Service::start(
        "portal",
        &[
            known[0],
            ("RINGFENCE_APPOINTMENTS_URL", &appointments.url()),
            ("RINGFENCE_BILLING_URL", &billing.url()),
        ],
    );
    Clinic { portal, others: vec![patients, mailer, appointments, billing] }
}

/// Status line and the rest, of one request on a connection of its own.
fn ask(address: &str, head: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: clinic\r\nConnection: close\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (status, rest) = answer.split_once("\r\n").unwrap();
    (status.to_owned(), rest.to_owned())
}

/// A mail server that takes one message and hands it over.
fn mail_server() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (hand, letters) = sync_channel(4);
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let say = |text: &str| (&stream).write_all(text.as_bytes()).unwrap();
        say("220-welcome\r\n220 ready\r\n");
        for reply in ["250-hello\r\n250 SIZE\r\n", "250 ok\r\n", "250 ok\r\n", "354 go on\r\n"] {
            hand.send(lines.next().unwrap()).unwrap();
            say(reply);
        }
        let letter: Vec<String> = lines.by_ref().take_while(|line| line != ".").collect();
        say("250 taken as 4711\r\n");
        hand.send(letter.join("\n")).unwrap();
    });
    (address, letters)
}

#[test]
fn a_page_goes_through_every_service_and_carries_its_trace() {
    let (smtp, letters) = mail_server();
    let clinic = open(&smtp);
    let portal = &clinic.portal.address;

    let (status, page) = ask(portal, "GET /patients/p-1001", "");
    assert_eq!(status, "HTTP/1.1 200 OK", "{page}");
    for part in ["Alma Birch", "hypertension", "Blood pressure", "i-3001", "77.50", TRACE] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(!page.contains("class=\"notice\""), "{page}");

    let (status, answer) = ask(portal, "POST /api/appointments/a-2004/reminder", "");
    assert_eq!(status, "HTTP/1.1 202 Accepted", "{answer}");
    assert!(answer.contains("250 taken as 4711"), "{answer}");
    let said: Vec<String> = letters.iter().take(5).collect();
    assert_eq!(said[1], "MAIL FROM:<appointments@clinic.example>");
    assert_eq!(said[2], "RCPT TO:<alma.birch@patients.example>");
    assert!(said[4].contains("You have an appointment on "), "{}", said[4]);
    assert!(!said[4].contains("Blood pressure"), "the mail tells why: {}", said[4]);

    for service in &clinic.others {
        assert!(service.logged(&format!("trace={TRACE}")), "{} lost the trace", service.address);
    }
    for service in clinic.others.into_iter().chain([clinic.portal]) {
        service.stop();
    }
}

#[test]
fn a_booking_is_checked_made_once_and_told_to_who_listens() {
    let clinic = open("127.0.0.1:1");
    let portal = &clinic.portal.address;
    let mut live = Live::join(portal);
    assert!(live.hear().contains("welcome"));
    live.say("are you there");
    assert_eq!(live.hear(), "are you there");

    let booking = r#"{"patient":"p-1006","at":"2099-05-04T09:30","reason":"Headache"}"#;
    let (status, answer) = ask(portal, "POST /api/appointments", booking);
    assert_eq!(status, "HTTP/1.1 201 Created", "{answer}");
    assert!(live.hear().contains("Farid Juniper"));
    for (again, why) in [
        (booking.to_owned(), "409"),
        (booking.replace("05-04", "02-30"), "422"),
        (booking.replace("p-1006", "p-9999"), "404"),
        (booking.replace("Headache", ""), "422"),
    ] {
        let (status, answer) = ask(portal, "POST /api/appointments", &again);
        assert!(status.contains(why), "{again}: {status} {answer}");
    }
    let foreign = "POST /appointments/a-2001/reminder HTTP/1.1\r\nSec-Fetch-Site: cross-site\r\nX:";
    assert!(ask(portal, foreign, "").0.contains("403"));
    assert!(ask(portal, "DELETE /api/patients/p-1001", "").0.contains("405"));
    assert!(ask(portal, "GET /api/patients/..%2fhealth", "").0.contains("404"));
}

#[test]
fn a_mail_server_that_is_away_or_silent_is_reported_and_costs_two_seconds_at_most() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (smtp, why) in
        [("127.0.0.1:1".to_owned(), "no connection"), (silent.local_addr().unwrap().to_string(), "too long")]
    {
        let mailer = Service::start("mailer", &[("CLINIC_SMTP", &smtp)]);
        let start = Instant::now();
        let message = r#"{"to":"a@b.example","subject":"Hi","text":"There"}"#;
        let (status, answer) = ask(&mailer.address, "POST /messages", message);
        assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
        assert!(answer.contains(why), "{answer}");
        assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    }
}

#[test]
fn a_callee_that_is_away_costs_its_part_of_the_page_only() {
    let patients = Service::start("patients", &[]);
    let away = ("RINGFENCE_APPOINTMENTS_URL", "http://127.0.0.1:1");
    let billing = Service::start("billing", &[("RINGFENCE_PATIENTS_URL", &patients.url())]);
    let portal = Service::start(
        "portal",
        &[("RINGFENCE_PATIENTS_URL", &patients.url()), away, ("RINGFENCE_BILLING_URL", &billing.url())],
    );
    let (status, page) = ask(&portal.address, "GET /", "");
    assert_eq!(status, "HTTP/1.1 200 OK");
    for part in ["appointments cannot be reached", "Alma Birch", "i-3002"] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(ask(&portal.address, "GET /api/appointments", "").0.contains("502"));
}

/// As much of a WebSocket client as short texts need.
struct Live(BufReader<TcpStream>);

impl Live {
    fn join(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut live = Self(BufReader::new(stream));
        let request = "GET /live HTTP/1.1\r\nHost: clinic\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        live.0.get_mut().write_all(request.as_bytes()).unwrap();
        let head: Vec<String> =
            live.0.by_ref().lines().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
        assert!(head[0].contains("101"), "{head:?}");
        // The answer to this key, from RFC 6455.
        assert!(head.iter().any(|line| line.ends_with("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        live
    }

    fn hear(&mut self) -> String {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x81, "not one whole text");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn say(&mut self, text: &str) {
        let mask = [1, 2, 3, 4];
        let masked = text.bytes().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
        frame.extend(mask);
        frame.extend(masked);
        self.0.get_mut().write_all(&frame).unwrap();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.0.get_mut().shutdown(Shutdown::Both));
    }
}
