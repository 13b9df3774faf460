//! Over the network: TLS that knows the server, a password that is bound to it.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::sync::Arc;

use ringfence_store::{Batch, Durability, Limits, Postgres, Store, StoreError};
use ringfence_tls::EgressRoots;
use tempfile::TempDir;

use crate::engine::Database;
use crate::server::Server;

/// A server with a certificate, and an authority that has issued it.
struct Secured {
    database: Database,
    port: u16,
    roots: EgressRoots,
    folder: TempDir,
}

impl Secured {
    async fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let (authority, roots) = authority();
        let folder = tempfile::Builder::new().prefix("rf-cert-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
        parameters.use_authority_key_identifier_extension = true;
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let certificate = parameters.signed_by(&key, &authority).unwrap();
        let (certificate_file, key_file) =
            (folder.path().join("server.crt"), folder.path().join("server.key"));
        std::fs::write(&certificate_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).unwrap();
        if crate::server::is_root() {
            chown(&key_file, Some(crate::server::NOBODY), None).unwrap();
        }
        let files = [
            format!("ssl_cert_file={}", certificate_file.display()),
            format!("ssl_key_file={}", key_file.display()),
        ];
        let settings = ["ssl=on", &files[0], &files[1]];
        let (server, port) = listening(&settings);
        let database = Database::on(Arc::new(server)).await;
        let sql = format!(
            "CREATE ROLE app LOGIN PASSWORD 'correct horse'; ALTER DATABASE {} OWNER TO app; CREATE ROLE plain LOGIN",
            database.name
        );
        database.server.sql("postgres", &sql).await;
        Self { database, port, roots, folder }
    }

    fn password(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("password");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    fn at(&self, host: &str, roots: &EgressRoots) -> Postgres {
        Postgres::new(&self.database.name, "app")
            .host(host, self.port)
            .roots(roots.clone())
            .password_file(self.password("correct horse\n"))
            .limits(Limits { connect: std::time::Duration::from_secs(20), ..Limits::default() })
    }
}

fn authority() -> (rcgen::Issuer<'static, rcgen::KeyPair>, EgressRoots) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "Test Root");
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    let roots = EgressRoots::from_pem(certificate.pem().as_bytes()).unwrap();
    (rcgen::Issuer::new(parameters, key), roots)
}

/// A server at a free port of the loopback interface. Somebody else may take the port first; then it is another one.
fn listening(settings: &[&str]) -> (Server, u16) {
    for _ in 0..10 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = ["listen_addresses=127.0.0.1".to_owned(), format!("port={port}")];
        let mut all: Vec<&str> = settings.to_vec();
        all.extend(address.iter().map(String::as_str));
        if let Some(server) = Server::try_new(&all, port) {
            return (server, port);
        }
    }
    panic!("no port of the loopback interface stayed free");
}

async fn refusal(postgres: Postgres) -> String {
    let error = Store::connect(postgres, Durability::Full).await.unwrap_err();
    assert!(matches!(error, StoreError::Setup(_) | StoreError::Unavailable(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn the_server_is_known_by_its_certificate_and_the_password_is_bound_to_it() {
    let secured = Secured::new(&rcgen::PKCS_ECDSA_P256_SHA256).await;
    let store = Store::connect(secured.at("localhost", &secured.roots), Durability::Full).await.unwrap();
    let batch = Batch::new("test", "put").put("thing", "a", &1).unwrap();
    assert_eq!(store.apply(batch).await.unwrap(), 1);
    let client = secured.database.server.client(&secured.database.name).await;
    let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'app' AND NOT ssl";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);

    // Another name, another authority, another password.
    let why = refusal(secured.at("127.0.0.1", &secured.roots)).await;
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    let why = refusal(secured.at("localhost", &authority().1)).await;
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    let wrong = secured.at("localhost", &secured.roots);
    secured.password("wrong");
    let why = refusal(wrong).await;
    assert!(why.contains("password authentication failed"), "{why}");
    assert!(!why.contains("wrong\""), "{why}");

    // A server that takes anybody does not get to see a password, nor a store that has one to give.
    let hba = "host all all 127.0.0.1/32 trust\nlocal all all trust\n";
    std::fs::write(secured.database.server.data().join("pg_hba.conf"), hba).unwrap();
    secured.database.server.sql("postgres", "SELECT pg_reload_conf()").await;
    let open = secured.at("localhost", &secured.roots);
    crate::engine::eventually("a login that binds nothing is refused", async || {
        match Store::connect(open.clone(), Durability::Full).await {
            Ok(_) => false,
            Err(error) => error.to_string().contains("channel binding"),
        }
    })
    .await;
    // Nor one that asks for it in clear.
    let hba = "host all all 127.0.0.1/32 password\nlocal all all trust\n";
    std::fs::write(secured.database.server.data().join("pg_hba.conf"), hba).unwrap();
    secured.database.server.sql("postgres", "SELECT pg_reload_conf()").await;
    let why = refusal(open).await;
    assert!(why.contains("channel binding"), "{why}");
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to() {
    let (server, port) = listening(&[]);
    let database = Database::on(Arc::new(server)).await;
    let (_, roots) = authority();
    let why = refusal(Postgres::new(&database.name, "postgres").host("localhost", port).roots(roots)).await;
    assert!(why.to_lowercase().contains("tls"), "{why}");
}
