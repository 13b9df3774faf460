//! haproxy, one thread. As with nginx there is no check of a URI SAN: authority and DNS name behind, authority before.

use std::io;

use super::{Contender, Launch, Setup};
use crate::case::Case;
use crate::certs::NAME;
use crate::install;

pub(super) struct Haproxy;

impl Contender for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn version(&self) -> io::Result<String> {
        let said = install::version(&install::debian("haproxy", "haproxy")?, "-v")?;
        Ok(said.split_whitespace().nth(2).unwrap_or_default().to_owned())
    }

    fn launch(&self, setup: &Setup<'_>) -> io::Result<Launch> {
        let file = setup.folder.join("haproxy.cfg");
        std::fs::write(&file, configuration(setup))?;
        let mut command = setup.program(&install::debian("haproxy", "haproxy")?)?;
        command.arg("-db").arg("-q").arg("-f").arg(file);
        Ok(command.into())
    }
}

fn configuration(setup: &Setup<'_>) -> String {
    let Setup { listen, upstream, certs, case, .. } = setup;
    let (mut bind, mut server) =
        (format!("bind {listen}"), format!("server upstream {upstream} pool-max-conn 128"));
    let (ca, both) = (certs.file("ca.pem"), certs.file("gateway.both.pem"));
    if case.tls() {
        let alpn = if case.h2() { "h2" } else { "http/1.1" };
        bind += &format!(" ssl crt {both} alpn {alpn} curves X25519 ssl-min-ver TLSv1.3 no-tls-tickets");
    }
    if case.mutual_before() {
        bind += &format!(" ca-file {ca} verify required");
    }
    if case.mutual_behind() {
        server += &format!(
            " ssl crt {both} ca-file {ca} verify required verifyhost {NAME} sni str({NAME}) ssl-min-ver TLSv1.3"
        );
    }
    if *case == Case::Grpc {
        server += " proto h2";
    }
    format!(
        "global\n  nbthread 1\n  maxconn 8192\n  tune.ssl.cachesize 0\n  ssl-server-verify required\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 120s\n  timeout server 120s\n  \
         option http-keep-alive\n  http-reuse always\n\
         frontend before\n  {bind}\n  default_backend behind\n\
         backend behind\n  {server}\n"
    )
}
