//! As much SMTP (RFC 5321) as one short message needs. It neither encrypts nor logs in, so the clinic writes only when an
//! appointment is, never why.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::records::Message;

const SENDER: &str = "appointments@clinic.example";
const LINE_BYTES: u64 = 1000;
const REPLY_LINES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no connection: {0}")]
    NoConnection(std::io::Error),
    #[error("it hung up after {0}")]
    HungUp(&'static str),
    #[error("it answered {1:?} to {0}")]
    Refused(&'static str, String),
    #[error("it took too long")]
    Late,
}

/// Whether a message can be put on the wire as it is: a line break in an address or subject would be a command.
pub(crate) fn check(message: &Message) -> Result<(), &'static str> {
    let plain = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    let address = &message.to;
    let shape = address.split('@').count() == 2 && !address.starts_with('@') && !address.ends_with('@');
    if !shape || !plain(address, 254) || address.contains([' ', '<', '>', '"', '\\', ',', ';', ':']) {
        return Err("`to` is not a mail address");
    }
    if !plain(&message.subject, 200) {
        return Err("`subject` is not one line of printable ASCII");
    }
    if message.text.len() > 8192 || message.text.lines().any(|line| line.len() > 900) {
        return Err("`text` is longer than 8 KiB, or has a line longer than 900 bytes");
    }
    if message.text.chars().any(|c| c.is_control() && c != '\n') {
        return Err("`text` has control characters");
    }
    Ok(())
}

/// Delivers a checked message and returns the server's last word.
pub(crate) async fn deliver(server: &str, message: &Message) -> Result<String, Failure> {
    let stream = TcpStream::connect(server).await.map_err(Failure::NoConnection)?;
    let mut session = BufReader::new(stream);
    expect(&mut session, "the greeting", "220").await?;
    say(&mut session, "EHLO", "EHLO mailer.clinic.example\r\n", "250").await?;
    say(&mut session, "MAIL", &format!("MAIL FROM:<{SENDER}>\r\n"), "250").await?;
    say(&mut session, "RCPT", &format!("RCPT TO:<{}>\r\n", message.to), "25").await?;
    say(&mut session, "DATA", "DATA\r\n", "354").await?;
    let reply = say(&mut session, "the message", &letter(message), "250").await?;
    // The message is taken; how the session ends changes nothing.
    drop(session.write_all(b"QUIT\r\n").await);
    Ok(reply)
}

fn letter(message: &Message) -> String {
    let head = format!("From: <{SENDER}>\r\nTo: <{}>\r\nSubject: {}\r\n", message.to, message.subject);
    let mut letter = head + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n";
    for line in message.text.lines() {
        if line.starts_with('.') {
            letter.push('.');
        }
        letter.push_str(line);
        letter.push_str("\r\n");
    }
    letter + ".\r\n"
}

async fn say(
    session: &mut BufReader<TcpStream>,
    step: &'static str,
    text: &str,
    want: &str,
) -> Result<String, Failure> {
    session.write_all(text.as_bytes()).await.map_err(|_| Failure::HungUp(step))?;
    expect(session, step, want).await
}

async fn expect(
    session: &mut BufReader<TcpStream>,
    step: &'static str,
    want: &str,
) -> Result<String, Failure> {
    for _ in 0..REPLY_LINES {
        let mut line = Vec::new();
        let read = (&mut *session).take(LINE_BYTES).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(n) if n > 0) || !line.ends_with(b"\n") {
            return Err(Failure::HungUp(step));
        }
        let line: String =
            String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).take(200).collect();
        // "250-" promises another line.
        if line.get(3..4) == Some("-") {
            continue;
        }
        return if line.starts_with(want) { Ok(line) } else { Err(Failure::Refused(step, line)) };
    }
    Err(Failure::Refused(step, "a reply without end".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(to: &str, subject: &str, text: &str) -> Message {
        Message { to: to.to_owned(), subject: subject.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_line_break_cannot_become_a_command() {
        assert!(check(&message("a@b.example", "Your appointment", "At nine.\nBring nothing.")).is_ok());
        for (to, subject) in [
            ("a@b.example>\r\nRCPT TO:<c@d.example", "Hi"),
            ("a@b.example\n", "Hi"),
            ("a b@c.example", "Hi"),
            ("@", "Hi"),
            ("", "Hi"),
            ("a@b.example", "Hi\r\nBcc: c@d.example"),
            ("a@b.example", ""),
        ] {
            assert!(check(&message(to, subject, "text")).is_err(), "{to:?} {subject:?}");
        }
        assert!(check(&message("a@b.example", "Hi", "one\r\n.\r\nMAIL FROM:<x@y.example>")).is_err());
    }

    #[test]
    fn a_lone_dot_in_the_text_does_not_end_the_message() {
        let letter = letter(&message("a@b.example", "Hi", "one\n.\ntwo"));
        assert!(letter.ends_with("\r\n\r\none\r\n..\r\ntwo\r\n.\r\n"));
    }
}
