//! nginx, one worker, by itself or with ModSecurity as a module. It has no check of a URI SAN: behind mTLS it verifies authority and DNS name, before it the authority
//! only. So it does a little less than asked.

use std::fmt::Write;
use std::io;
use std::path::Path;

use super::{Contender, Launch, Setup};
use crate::case::Case;
use crate::certs::NAME;
use crate::install;

pub(super) struct Nginx;

/// nginx with Debian's module of libmodsecurity, which runs the Core Rule Set.
pub(super) struct Modsecurity;

const MODULE: &str = "/usr/lib/nginx/modules/ngx_http_modsecurity_module.so";

impl Contender for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn version(&self) -> io::Result<String> {
        let said = install::version(&install::debian("nginx", "nginx-light")?, "-v")?;
        Ok(said.trim().rsplit('/').next().unwrap_or_default().to_owned())
    }

    fn launch(&self, setup: &Setup<'_>) -> io::Result<Launch> {
        let file = setup.folder.join("nginx.conf");
        std::fs::write(&file, configuration(setup))?;
        let mut command = setup.program(&install::debian("nginx", "nginx-light")?)?;
        command
            .arg("-p")
            .arg(&setup.folder)
            .arg("-c")
            .arg(file)
            .arg("-e")
            .arg(setup.folder.join("error.log"));
        Ok(command.into())
    }

    fn countable(&self) -> bool {
        true
    }
}

impl Contender for Modsecurity {
    fn name(&self) -> &'static str {
        "modsecurity"
    }

    fn version(&self) -> io::Result<String> {
        install::debian_file(MODULE, "libnginx-mod-http-modsecurity")?;
        install::package_version("libmodsecurity3")
    }

    fn launch(&self, setup: &Setup<'_>) -> io::Result<Launch> {
        install::debian("nginx", "nginx-light")?;
        install::debian_file(MODULE, "libnginx-mod-http-modsecurity")?;
        if let (Some(paranoia), Some(rules)) = (setup.case.paranoia(), &setup.rules) {
            std::fs::write(setup.folder.join("modsecurity.conf"), rules_of(rules, paranoia))?;
        }
        Nginx.launch(setup)
    }

    fn takes(&self, case: Case) -> bool {
        case.paranoia().is_some()
    }
}

/// The engine as its makers recommend it, blocking, and the rule set at a paranoia level.
fn rules_of(rules: &Path, paranoia: u8) -> String {
    let rules = rules.display();
    format!(
        "SecRuleEngine On\nSecRequestBodyAccess On\nSecResponseBodyAccess Off\n\
         SecRequestBodyLimit 20971520\nSecRequestBodyNoFilesLimit 20971520\nSecRequestBodyLimitAction Reject\n\
         SecRequestBodyJsonDepthLimit 512\nSecArgumentsLimit 1000\nSecAuditEngine Off\nSecArgumentSeparator &\n\
         SecRule REQUEST_HEADERS:Content-Type \"^(?:application(?:/soap\\+|/)|text/)xml\" \
         \"id:200000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML\"\n\
         SecRule REQUEST_HEADERS:Content-Type \"^application/json\" \
         \"id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON\"\n\
         SecAction \"id:900000,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level={paranoia}\"\n\
         Include {rules}/crs-setup.conf.example\nInclude {rules}/rules/*.conf\n"
    )
}

fn configuration(setup: &Setup<'_>) -> String {
    let Setup { folder, listen, upstream, certs, case, .. } = setup;
    let folder = folder.display();
    let (mut listener, mut server) = (listen.to_string(), String::new());
    if case.tls() {
        listener += if case.h2() { " ssl http2" } else { " ssl" };
        server += &format!(
            "ssl_certificate {};\nssl_certificate_key {};\nssl_protocols TLSv1.3;\nssl_ecdh_curve X25519;\n\
             ssl_session_tickets off;\nssl_session_cache off;\n",
            certs.file("gateway.pem"),
            certs.file("gateway.key")
        );
    }
    let mut location = match case {
        Case::Grpc => "grpc_pass grpc://upstream;\n".to_owned(),
        Case::Mtls => "proxy_pass https://upstream;\n".to_owned(),
        _ => "proxy_pass http://upstream;\n".to_owned(),
    };
    if case.mutual_before() {
        server += &format!("ssl_verify_client on;\nssl_client_certificate {};\n", certs.file("ca.pem"));
    }
    if case.mutual_behind() {
        location += &format!(
            "proxy_ssl_certificate {};\nproxy_ssl_certificate_key {};\nproxy_ssl_trusted_certificate {};\n\
             proxy_ssl_verify on;\nproxy_ssl_name {NAME};\nproxy_ssl_server_name on;\nproxy_ssl_protocols TLSv1.3;\n",
            certs.file("gateway.pem"),
            certs.file("gateway.key"),
            certs.file("ca.pem")
        );
    }
    if *case != Case::Grpc {
        location += "proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n";
    }
    let (mut modules, mut firewall) = (String::new(), String::new());
    if case.paranoia().is_some() && setup.rules.is_some() {
        modules = format!("load_module {MODULE};\n");
        firewall = format!("modsecurity on;\nmodsecurity_rules_file {folder}/modsecurity.conf;\n");
    }
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(temporary, "{kind}_temp_path {folder}/{kind};").expect("invariant: strings take all");
    }
    let master = if setup.counted_in.is_some() { "master_process off;\n" } else { "" };
    format!(
        "{modules}worker_processes 1;\ndaemon off;\n{master}pid {folder}/pid;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\naccess_log off;\n{firewall}client_max_body_size 20m;\n{temporary}\
         keepalive_timeout 120s;\nkeepalive_requests 1000000000;\n\
         upstream upstream {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{\nlisten {listener};\n{server}location / {{\n{location}}}\n}}\n}}\n"
    )
}
