//! A server of entity data: Python, over TLS, with whatever the test last wrote.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const SERVER: &str = "
import hashlib, http.server, os, ssl, sys
folder = sys.argv[1]
class Data(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open(folder + '/data', 'rb').read()
        tag = '\"' + hashlib.sha256(body).hexdigest() + '\"'
        known = self.headers.get('if-none-match') == tag
        with open(folder + '/asked', 'a') as log:
            log.write('%s %d\\n' % (self.path, 304 if known else 200))
        self.send_response(304 if known else 200)
        self.send_header('etag', tag)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', '0' if known else str(len(body)))
        self.end_headers()
        if not known:
            self.wfile.write(body)
    def log_message(self, *ignored): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Data)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + '/cert.pem', folder + '/key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";

pub(crate) struct Data {
    pub(crate) url: String,
    /// Its private authority, PEM.
    pub(crate) ca: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl Data {
    pub(crate) fn start(data: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, certificate, key) = certificate();
        for (name, text) in [("cert.pem", &*certificate), ("key.pem", &*key), ("data", data), ("asked", "")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut child = Command::new("python3")
            .args(["-c", SERVER])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let url = format!("https://localhost:{}/entities?of=clinic", port.trim());
        Self { url, ca, folder, child }
    }

    /// What it answers from now on; a request sees the old or the new, nothing between.
    pub(crate) fn says(&self, data: &str) {
        let new = self.path("new");
        std::fs::write(&new, data).unwrap();
        std::fs::rename(new, self.path("data")).unwrap();
    }

    /// Path and status of every request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::fs::read_to_string(self.path("asked")).unwrap().lines().map(ToOwned::to_owned).collect()
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A CA and a certificate for `localhost`, with its key; PEM.
fn certificate() -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
    (root, leaf, key.serialize_pem())
}
