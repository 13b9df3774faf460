//! HTTP/2 by curl, to services that speak HTTP/1.1 only.

use crate::lab::{Lab, Who, text};

const SERVICES: &str = "
  web: { PY web_service.py 9000, listen: 9000, routes: [{ path: / }] }
";

#[test]
fn curl_speaks_http2_with_a_service_that_does_not() {
    let lab = Lab::start(Who::Nobody, SERVICES, &[]);
    let how = ["--http2", "--write-out", "\n%{http_version} %{http_code} %{size_download}"];
    let curl = |args: &[&str]| {
        let output = lab.clinic.curl(&[&how, args].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        let said = text(&output.stdout);
        let (body, facts) = said.rsplit_once('\n').unwrap();
        (body.to_owned(), facts.to_owned())
    };
    assert_eq!(curl(&["/plain/x"]), ("/plain/x".into(), "2 200 8".into()));
    assert_eq!(curl(&["--output", "/dev/null", "/bytes/20971520"]).1, "2 200 20971520");
    assert_eq!(curl(&["--head", "/bytes/7"]).1, "2 200 0");
    assert_eq!(curl(&["--head", "/drop"]).1, "2 502 0");

    // A body of 5 MiB there and back; curl sends no length for what it reads from a pipe.
    let file = lab.clinic.folder.join("large");
    let data: Vec<u8> = (0..5 << 20).map(|n: u32| (n % 251) as u8).collect();
    std::fs::write(&file, &data).unwrap();
    let upload = format!("@{}", file.display());
    let back = lab.clinic.curl(&["--http2", "--data-binary", &upload, "/echo"]);
    assert!(back.stdout == data, "{} bytes came back", back.stdout.len());
    let file = file.display().to_string();
    let (body, facts) = curl(&["--header", "content-length:", "--upload-file", &file, "/heard"]);
    assert!(body.contains("5242880") && facts.starts_with("2 200"), "{body} {facts}");

    for (path, status) in [("/drop", "502"), ("/junk", "502")] {
        let (body, facts) = curl(&[path]);
        assert!(
            facts.starts_with(&format!("2 {status}")) && body.contains("urn:uuid:"),
            "{path}: {body} {facts}"
        );
    }
    // A broken answer is a broken stream, or a 502 if nothing of it had gone out: never a short body that looks whole.
    let output = lab.clinic.curl(&["--http2", "--write-out", "%{http_code}", "/half"]);
    assert!(!output.status.success() || text(&output.stdout).ends_with("502"), "{}", text(&output.stdout));
}

#[test]
fn a_hundred_requests_at_once_share_one_connection() {
    let lab = Lab::start(Who::Nobody, SERVICES, &[]);
    let base = format!("https://127.0.0.1:{}/number", lab.clinic.port);
    let output = lab.clinic.curl(&[
        "--http2",
        "--parallel",
        "--parallel-max",
        "100",
        "--write-out",
        "%{http_version} %{http_code} %{num_connects}\n",
        "--output",
        "/dev/null",
        &format!("{base}/[1-100]"),
        "--output",
        "/dev/null",
        "/last/1",
    ]);
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 101, "{said} {}", text(&output.stderr));
    assert!(lines.iter().all(|l| l.starts_with("2 200 ")), "{said}");
    let connections: u32 = lines.iter().map(|l| l.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum();
    assert!(connections <= 5, "{connections} connections");
}
