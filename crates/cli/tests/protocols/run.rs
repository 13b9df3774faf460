//! `ringfence run NAME -- CMD`: a service that somebody else starts, behind the same fence.

use std::process::{Command, Stdio};

use crate::lab::{Lab, SOON, Who, eventually, text};

#[test]
fn a_service_started_by_run_is_fenced_like_any_other() {
    for who in [Who::Root, Who::Nobody] {
        let lab = Lab::start(
            who,
            "
  web: { PY web_service.py 9000, listen: 9000 }
  late: { listen: 9100, routes: [{ path: /caller }], calls: [web] }
",
            &[],
        );
        let (code, _) = lab.clinic.get("/caller");
        assert_eq!(code, 503, "{who:?}: declared, and not there yet");
        let said = text(&lab.clinic.ringfence(&["status"]).stdout);
        assert!(said.contains("ringfence run late"), "{who:?}: {said}");

        let mut run = lab
            .clinic
            .command(&["run", "late", "--", "/usr/bin/python3", "-B", "caller.py", "9100"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let up = eventually(SOON, || (lab.clinic.get("/caller").0 == 200).then_some(()));
        assert!(up.is_some(), "{who:?}: {}", text(&lab.clinic.ringfence(&["status"]).stdout));
        let said = lab.tell(
            crate::lab::From::Caller,
            "web_client",
            "plain_get",
            &serde_json::json!({ "address": "web", "port": 9000 }),
        );
        assert!(said.to_string().contains("spiffe://lab.example/service/late"), "{who:?}: {said}");
        let said = lab.clinic.inside(
            "late",
            "import socket\ntry: socket.create_connection(('203.0.113.9', 443), 3).getpeername(); print('CONNECTED')\n\
             except OSError as e: print('refused', e)",
        );
        assert!(said.starts_with("refused"), "{who:?}: {said}");

        // Ctrl-C ends the service with it.
        Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
        let ended = eventually(SOON, || run.try_wait().unwrap());
        assert!(ended.is_some(), "{who:?}");
        let gone = eventually(SOON, || (lab.clinic.get("/caller").0 == 503).then_some(()));
        assert!(gone.is_some(), "{who:?}: {:?}", lab.clinic.get("/caller"));

        // A command that ends by itself is not started again: its exit code is ours.
        let output = lab.clinic.ringfence(&["run", "late", "--", "sh", "-c", "echo said; exit 3"]);
        assert_eq!(output.status.code(), Some(3), "{who:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("said"), "{who:?}: {}", text(&output.stdout));
    }
}
