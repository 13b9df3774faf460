//! Where browsers tell what a Content-Security-Policy stopped. Anybody may send anything here, so it is short, and few of it is told.

use std::cell::Cell;

use ringfence_event::{Call, Event, EventId, Kind as EventKind, Verdict};
use serde_json::Value;

use crate::deny::{Deny, PROBLEM_TYPE, problem};
use crate::front::Front;
use crate::handle::{Ctx, Next, finish};
use crate::headers::trace_of;
use crate::limits::{self, Limited};
use crate::note::{Note, Notes};
use crate::upload::{self, Gone};
use crate::view::HeadView;

const PATH: &str = "/.ringfence/csp";
/// What a policy says so that browsers report.
pub(super) const DIRECTIVE: &str = "; report-uri /.ringfence/csp";
/// Largest body, and most reports of one that are looked at.
const MAX_BODY: usize = 16 * 1024;
const MAX_REPORTS: usize = 8;
/// Events that may come at once, and milliseconds after which there may be one more.
const BURST: u64 = 30;
const EVERY_MS: u64 = 2_000;

/// How many reports a thread still tells of.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// When the budget will be whole again, by the worker's clock.
    whole_at: Cell<u64>,
}

impl Reports {
    fn take(&self, now_ms: u64) -> bool {
        let at = self.whole_at.get().max(now_ms) + EVERY_MS;
        let free = at <= now_ms + BURST * EVERY_MS;
        if free {
            self.whole_at.set(at);
        }
        free
    }
}

/// Whether a path takes reports.
pub(crate) fn is_report(path: &str) -> bool {
    path == PATH
}

/// Takes a report.
pub(crate) async fn serve(ctx: &Ctx<'_>, view: HeadView<'_>, front: &mut Front<'_>) -> Next<'static> {
    let (started, id) = (ctx.worker.touch(), EventId::new());
    ctx.live.set_busy(true);
    let refuse = |status, reason: String| Deny::new(status, "respond", "csp.malformed", reason);
    let (mut limited, notes) = (Limited::default(), Notes::default());
    let read = match (limits::gateway(ctx, &mut limited, &notes), view.method()) {
        (Err(deny), _) => Ok(Err(deny)),
        (Ok(()), "POST") => upload::read(ctx, view, front, MAX_BODY, refuse).await,
        _ => Ok(Err(refuse(405, "reports are posted".to_owned()))),
    };
    let outcome = match read {
        Err(Gone) => {
            ctx.live.set_busy(false);
            return Next::Close;
        }
        Ok(Ok(body)) => note_all(&body, &notes).map_err(|reason| refuse(400, reason.to_owned())),
        Ok(Err(deny)) => Err(deny),
    };
    let status = outcome.as_ref().map_or_else(|deny| deny.status, |()| 204);
    // What is refused must not leave real reports untold.
    if outcome.is_ok() && ctx.worker.reports.take(ctx.worker.now_ms()) {
        notes.with(|findings| {
            let call = Call {
                caller: &ctx.peer.caller,
                caller_id: None,
                user: None,
                source: Some(ctx.peer.source.ip()),
                callee: "-",
                point: ctx.peer.point(),
                method: view.method().as_bytes(),
                path: view.path().as_bytes(),
                status,
                duration_us: ctx.worker.touch().saturating_sub(started),
                cut: false,
                observed: None,
                findings,
                shape: "",
                verdict: outcome.as_ref().map_or_else(Deny::verdict, |()| Verdict::Allowed),
            };
            let event = Event::new(EventKind::Call(call)).trace(trace_of(view).trace);
            ctx.worker.events.emit(&event.revision(ctx.worker.revision()).with_id(id));
        });
    }
    let put = |front: &mut Front<'_>| match status {
        204 => front.put_own(204, &[], String::new()),
        _ => front.put_own(status, &[("content-type", PROBLEM_TYPE)], problem(status, id)),
    };
    let next = finish(ctx, front, put).await;
    ctx.live.set_busy(false);
    next
}

/// Both forms that browsers send: one report (CSP, section 5.3), or a list (Reporting API).
fn note_all(body: &[u8], notes: &Notes) -> Result<(), &'static str> {
    let value: Value = serde_json::from_slice(body).map_err(|_| "a report is JSON")?;
    let list = match &value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    for report in list.iter().take(MAX_REPORTS) {
        let report = report.get("csp-report").or_else(|| report.get("body")).unwrap_or(report);
        let text = |names: [&str; 2]| {
            names.iter().find_map(|name| report.get(name)?.as_str()).unwrap_or_default().to_owned()
        };
        let directive = text(["effective-directive", "effectiveDirective"]);
        let directive =
            if directive.is_empty() { text(["violated-directive", "violatedDirective"]) } else { directive };
        if directive.is_empty() {
            return Err("a report names the directive");
        }
        notes.add(Note {
            stage: "respond",
            rule: "csp.report".to_owned(),
            message: format!(
                "a browser stopped something at {}",
                plain(&text(["document-uri", "documentURL"]))
            ),
            target: plain(&directive),
            value: plain(&text(["blocked-uri", "blockedURL"])).into(),
            observed: true,
            ..Note::default()
        });
    }
    Ok(())
}

/// Without query, which may hold secrets, and without what no address has.
fn plain(text: &str) -> String {
    text.split(['?', '#'])
        .next()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_graphic)
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_both_forms_are_noted_and_others_are_refused() {
        let one = br#"{"csp-report":{"document-uri":"https://a.example/x?token=1","violated-directive":"script-src","blocked-uri":"https://evil.example/a.js?b"}}"#;
        let list = br#"[{"type":"csp-violation","body":{"documentURL":"https://a.example/y","effectiveDirective":"img-src","blockedURL":"data"}}]"#;
        let notes = Notes::default();
        assert_eq!((note_all(one, &notes), note_all(list, &notes)), (Ok(()), Ok(())));
        notes.with(|found| {
            assert_eq!(found.len(), 2);
            assert_eq!((found[0].target, found[0].value), ("script-src", &b"https://evil.example/a.js"[..]));
            assert!(found[0].message.ends_with("https://a.example/x"), "{}", found[0].message);
            assert_eq!((found[1].target, found[1].value), ("img-src", &b"data"[..]));
        });
        for bad in [&b""[..], b"x", b"{}", b"[1]", br#"{"csp-report":{}}"#] {
            assert!(note_all(bad, &notes).is_err());
        }
        let many = format!("[{}]", vec![r#"{"body":{"effectiveDirective":"a"}}"#; 100].join(","));
        let notes = Notes::default();
        assert_eq!(note_all(many.as_bytes(), &notes), Ok(()));
        notes.with(|found| assert_eq!(found.len(), MAX_REPORTS));
    }

    #[test]
    fn few_reports_are_told_at_once_and_few_later() {
        let reports = Reports::default();
        assert_eq!((0..1_000).filter(|_| reports.take(5_000)).count() as u64, BURST);
        assert!(!reports.take(5_000 + EVERY_MS - 1) && reports.take(5_000 + EVERY_MS));
        assert!(!reports.take(5_000 + EVERY_MS));
    }
}
