//! A fence is read whole, every element knows its place, and what is wrong is told all at once.

use ringfence_model::{Diagnostics, Fence, Kind, Position, Protocol};

const CLINIC: &str = include_str!("data/clinic.yaml");

fn parse(text: &str) -> Result<Fence, Diagnostics> {
    Fence::parse(vec![("ringfence.yaml", text)])
}

fn at(position: &Position) -> String {
    position.to_string()
}

/// A fence around the lines of one service, `portal`, beside `patients`, which listens.
fn with_portal(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "fence: t\ntrust_domain: t.example\ngateway: {{ listen: 127.0.0.1:1 }}\nservices:\n  patients: {{ listen: 1 }}\n  portal:\n{indented}"
    )
}

fn codes(text: &str) -> Vec<&'static str> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.errors.iter().map(|e| e.code).collect(),
    }
}

#[test]
fn the_clinic_is_a_fence_and_its_elements_know_their_lines() {
    let fence = parse(CLINIC).unwrap();
    assert_eq!((fence.name.as_str(), fence.trust_domain.as_str()), ("clinic", "clinic.example"));
    assert!(fence.warnings.is_empty(), "{:?}", fence.warnings);
    let names: Vec<&str> = fence.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["portal", "patients", "appointments", "billing", "mailer"]);
    let gateway = fence.gateway.as_ref().unwrap();
    assert_eq!(
        (gateway.listen[0].to_string(), at(&gateway.position)),
        ("127.0.0.1:8443".into(), "ringfence.yaml:3:1".into())
    );
    let appointments = fence.service("appointments").unwrap();
    assert_eq!(at(&appointments.position), "ringfence.yaml:14:3");
    let [patients, mailer] = appointments.calls.as_slice() else { panic!("two calls") };
    assert_eq!(
        (at(&patients.position), at(&mailer.position)),
        ("ringfence.yaml:18:18".into(), "ringfence.yaml:20:9".into())
    );
    assert_eq!(at(&patients.allow[0].position), "ringfence.yaml:19:17");
    assert!(
        patients.allows("GET", "/patients/7")
            && !patients.allows("POST", "/patients/7")
            && !patients.allows("GET", "/")
    );
    assert!(mailer.allows("DELETE", "/anything"));
    assert_eq!(fence.service("billing").unwrap().protocol, Protocol::Grpc);
    let egress = &fence.service("mailer").unwrap().egress[0];
    assert_eq!(
        (egress.host.as_str(), egress.port, egress.tls, at(&egress.position)),
        ("smtp.example.net", 587, false, "ringfence.yaml:29:14".into())
    );
    let portal = fence.service("portal").unwrap();
    assert!(matches!(&portal.kind, Kind::Run { command, .. } if command == &["clinic", "portal"]));
    assert_eq!(
        (portal.listen, portal.port, at(&portal.routes[0].position)),
        (Some(9000), Some(9000), "ringfence.yaml:9:14".into())
    );
}

#[test]
fn all_errors_are_told_at_once_each_with_its_picture_and_next_step() {
    let text = CLINIC
        .replace("billing]", "biling]")
        .replace("listen: 9001", "lisen: 9001")
        .replace("port: 587", "port: 70000");
    let diagnostics = parse(&text).unwrap_err();
    let shown = diagnostics.to_string();
    assert_eq!(diagnostics.errors.len(), 3, "no error follows from another:\n{shown}");
    for picture in [
        "error: unknown service `biling`\n  --> ringfence.yaml:10:37\n   |\n10 |     calls: [appointments, patients, biling]\n   |                                     ^^^^^^ did you mean `billing`?\n",
        "error: unknown key `lisen` in service\n  --> ringfence.yaml:13:5\n   |\n13 |     lisen: 9001\n   |     ^^^^^ did you mean `listen`?\n",
        "error: expected a number from 1 to 65535, found `70000`\n  --> ringfence.yaml:29:46\n",
    ] {
        assert!(shown.contains(picture), "missing\n{picture}\nin\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "no colour unless asked");
    assert!(diagnostics.render(true).contains("\u{1b}[1;31merror"));
}
