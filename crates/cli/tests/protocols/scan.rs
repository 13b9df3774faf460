//! A service that looks around is seen.

use std::time::Instant;

use crate::lab::{Lab, SOON, Who};

#[test]
fn nmap_from_inside_a_service_is_seen_within_seconds() {
    for who in [Who::Root, Who::Nobody] {
        let lab = Lab::start(
            who,
            "
  web: { PY web_service.py 9000, listen: 9000, routes: [{ path: / }] }
  curious: { PY caller.py 9100, listen: 9100 }
",
            &[],
        );
        let start = Instant::now();
        let found = lab.clinic.inside(
            "curious",
            "import subprocess\n\
             print(subprocess.run(['nmap', '-sT', '-Pn', '-n', '--max-retries', '0', '--host-timeout', '20s', '-p', '1-300',\n\
             \x20 '198.18.1.1', '10.0.0.1', '127.0.0.2'], capture_output=True, text=True).stdout)",
        );
        let took = start.elapsed();
        assert!(found.contains("Nmap done"), "{who:?}: {found}");
        let event = lab.clinic.event(SOON, |e| {
            e["unmapped"]["event"] == "scan" && e["src_endpoint"]["svc_name"] == "curious"
                || e["class_uid"] == 2004 && e.to_string().contains("curious")
        });
        let event = event.unwrap_or_else(|| panic!("{who:?}: no scan was seen; nmap took {took:?}"));
        assert_eq!(event["class_uid"], 2004, "{event}");
        assert!(!found.contains("9000/tcp open"), "{who:?}: nothing of others is found: {found}");
    }
}
