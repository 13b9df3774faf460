//! Listeners without the protection that a drill is about, in the place of ours.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::running::{eventually, free_port};

/// A server that ends with its test.
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    pub(crate) address: String,
}

impl Server {
    /// TLS that asks for a client certificate and takes any, whoever signed it and whenever it ended.
    pub(crate) fn any_certificate() -> Self {
        Self::start(|folder, port| {
            let mut command = Command::new("openssl");
            command.args([
                "s_server",
                "-accept",
                &format!("127.0.0.1:{port}"),
                "-verify",
                "3",
                "-www",
                "-quiet",
            ]);
            command.arg("-cert").arg(folder.join("cert.pem")).arg("-key").arg(folder.join("key.pem"));
            command
        })
    }

    /// TLS before an HTTP server that believes what it reads: it answers 200 to anything and sends back all that it got.
    pub(crate) fn naive_gateway() -> Self {
        Self::start(|folder, port| {
            let script = "
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + '/cert.pem', sys.argv[1] + '/key.pem')
def serve(raw):
    try:
        with context.wrap_socket(raw, server_side=True) as s:
            got = s.recv(65536)
            s.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(got) + got)
    except OSError: pass
listener = socket.create_server(('127.0.0.1', int(sys.argv[2])))
while True: threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()";
            let mut command = Command::new("python3");
            command.args(["-c", script]).arg(folder).arg(port.to_string());
            command
        })
    }

    fn start(command: impl FnOnce(&Path, u16) -> Command) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("ringfence-server-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "1",
            ])
            .args(["-subj", "/CN=naive", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let child = command(&folder, port)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, folder, address: format!("127.0.0.1:{port}") };
        let listens =
            eventually(Duration::from_secs(60), || std::net::TcpStream::connect(&server.address).ok());
        assert!(listens.is_some(), "the server does not listen");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
