//! How each class is written in OCSF.

use super::{Finding, Kind, Severity, Verdict};
use crate::json::Object;

impl Kind<'_> {
    /// Who acted.
    pub(crate) const fn subject(&self) -> &str {
        match self {
            Self::Call(call) => call.caller,
            Self::Connection(connection) => connection.caller,
            Self::Dial(dial) => dial.service,
            Self::Scan(scan) => scan.service,
            Self::Tamper(tamper) => tamper.service,
            Self::Lifecycle(lifecycle) => lifecycle.name,
            Self::Entity(entity) => entity.name,
        }
    }

    /// How long it took, where that is known.
    pub(super) const fn duration_us(&self) -> u64 {
        match self {
            Self::Call(call) => call.duration_us,
            _ => 0,
        }
    }

    /// Category, class, activity, severity.
    pub(super) fn uids(&self) -> (u64, u64, u64, Severity) {
        match self {
            Self::Call(call) => (4, 4002, method_activity(call.method), call.verdict.severity()),
            Self::Connection(c) => {
                let activity = match (c.cut, &c.verdict) {
                    (true, _) => 3,
                    (_, Verdict::Allowed | Verdict::Corrected { .. }) => 1,
                    (_, Verdict::Denied { .. }) => 5,
                    (_, Verdict::Failed { .. }) => 4,
                };
                (4, 4001, activity, c.verdict.severity())
            }
            Self::Dial(_) => (4, 4001, 5, Severity::Medium),
            Self::Scan(_) | Self::Tamper(_) => (2, 2004, 1, Severity::High),
            Self::Lifecycle(l) => (6, 6002, l.activity as u64, l.severity),
            Self::Entity(e) => {
                let severity = if e.granted { Severity::Informational } else { Severity::High };
                (3, 3004, u64::from(e.activity), severity)
            }
        }
    }

    pub(super) fn write(&self, event: &mut Object<'_>, revision: u64) {
        match self {
            Self::Call(c) => {
                event.object("src_endpoint", |e| {
                    e.text("svc_name", c.caller).some("uid", c.caller_id);
                    if let Some(ip) = c.source {
                        e.ip("ip", ip);
                    }
                    if let Some(user) = c.user {
                        e.object("owner", |owner| {
                            owner.text("name", user.name).text("domain", user.domain);
                            owner.some("credential_uid", user.credential);
                        });
                    }
                });
                event.object("dst_endpoint", |e| {
                    e.text("svc_name", c.callee);
                });
                event.object("http_request", |r| {
                    r.bytes("http_method", c.method).object("url", |u| {
                        u.bytes("path", c.path);
                    });
                });
                if c.status != 0 {
                    event.object("http_response", |r| {
                        r.number("code", u64::from(c.status));
                    });
                }
                // OCSF durations are milliseconds; ours needs more.
                c.verdict.write(event, revision, |u| {
                    u.text("point", c.point).number("duration_us", c.duration_us);
                    if c.cut {
                        u.holds("cut");
                    }
                    if let Some(user) = &c.user {
                        u.some("client", user.client).some("txn", user.transaction);
                        if !user.chain.is_empty() {
                            u.texts("chain", user.chain.split(','));
                        }
                    }
                    if !c.findings.is_empty() {
                        u.objects("findings", c.findings, |finding, f| finding.write(f));
                    }
                    if !c.shape.is_empty() {
                        u.text("shape", c.shape);
                    }
                    if let Some(observed) = &c.observed {
                        u.texts("observed", observed.policies.iter().copied());
                        u.plain("observed_verdict", if observed.would_pass { "allow" } else { "deny" });
                    }
                });
            }
            Self::Connection(c) => {
                event.object("src_endpoint", |e| {
                    e.text("svc_name", c.caller).some("uid", c.caller_id);
                    if let Some(source) = c.source {
                        e.ip("ip", source.ip()).number("port", u64::from(source.port()));
                    }
                });
                event.object("dst_endpoint", |e| {
                    e.text("svc_name", c.callee).number("port", u64::from(c.port));
                });
                c.verdict.write(event, revision, |u| {
                    u.text("point", c.point);
                    if c.cut {
                        u.holds("cut");
                    }
                });
            }
            Self::Dial(d) => {
                event.object("src_endpoint", |e| {
                    e.text("svc_name", d.service);
                });
                event.object("dst_endpoint", |e| {
                    e.text("ip", &d.destination.to_string())
                        .number("port", u64::from(d.port))
                        .some("hostname", d.query);
                });
                event.object("connection_info", |c| {
                    c.text("protocol_name", d.protocol).number("direction_id", 2);
                });
                event.number("count", d.count).number("action_id", 2).number("disposition_id", 2);
                event.object("unmapped", |u| {
                    u.text("event", "dial").text("place", d.place).number("revision", revision);
                });
            }
            Self::Scan(s) => {
                event.object("finding_info", |f| {
                    f.text("uid", "scan").text("title", "a service searches its network");
                });
                event.number("count", s.packets).number("action_id", 2).number("disposition_id", 2);
                event.object("unmapped", |u| {
                    u.text("event", "scan").text("service", s.service);
                    u.number("ports", s.ports).number("addresses", s.addresses).number("revision", revision);
                });
            }
            Self::Tamper(t) => {
                event.object("finding_info", |f| {
                    f.text("uid", t.what).text("title", "a service reaches for what is not its own");
                });
                event.text("message", t.message);
                event.number("count", t.count).number("action_id", 2).number("disposition_id", 2);
                event.object("unmapped", |u| {
                    u.text("event", "tamper").text("service", t.service).number("revision", revision);
                });
            }
            Self::Lifecycle(l) => {
                event.object("app", |a| {
                    a.text("name", l.name).text("vendor_name", "Ringfence");
                });
                event.text("message", l.message);
                event.object("unmapped", |u| {
                    u.text("event", "lifecycle").number("revision", revision);
                });
            }
            Self::Entity(e) => {
                event.object("entity", |o| {
                    o.text("type", e.entity).number("type_id", 99).text("name", e.name).some("uid", e.uid);
                });
                let (action, disposition) = if e.granted { (1, 1) } else { (2, 2) };
                event
                    .text("message", e.message)
                    .number("action_id", action)
                    .number("disposition_id", disposition);
                event.object("unmapped", |u| {
                    u.text("event", "entity").number("revision", revision);
                });
            }
        }
    }
}

impl Finding<'_> {
    fn write(&self, f: &mut Object<'_>) {
        f.text("stage", self.stage).text("rule", self.rule).text("message", self.message);
        f.text("target", self.target).bytes("value", self.value);
        if !self.transformations.is_empty() {
            f.texts("transformations", self.transformations.split(','));
        }
        f.number("score", self.score);
        if self.observed {
            f.holds("observed");
        }
    }
}

impl Verdict<'_> {
    fn severity(&self) -> Severity {
        match self {
            Self::Allowed => Severity::Informational,
            Self::Denied { .. } => Severity::Medium,
            Self::Corrected { .. } => Severity::Low,
            Self::Failed { .. } => Severity::Low,
        }
    }

    fn write(&self, event: &mut Object<'_>, revision: u64, more: impl FnOnce(&mut Object<'_>)) {
        match self {
            Self::Allowed => event.number("action_id", 1).number("disposition_id", 1),
            Self::Denied { rule, reason, .. } => event
                .number("action_id", 2)
                .number("disposition_id", 2)
                .object("firewall_rule", |r| {
                    r.text("uid", rule);
                })
                .text("status_detail", reason),
            Self::Corrected { rule, reason } => event
                .number("action_id", 1)
                .number("disposition_id", 11)
                .object("firewall_rule", |r| {
                    r.text("uid", rule);
                })
                .text("status_detail", reason),
            Self::Failed { reason } => event
                .number("action_id", 1)
                .number("disposition_id", 1)
                .number("status_id", 2)
                .text("status_detail", reason),
        };
        event.object("unmapped", |u| {
            more(u);
            u.number("revision", revision);
            if let Self::Denied { stage, position, missing, .. } = self {
                u.text("stage", stage).some("position", *position).some("missing", *missing);
            }
        });
    }
}

fn method_activity(method: &[u8]) -> u64 {
    match method {
        b"CONNECT" => 1,
        b"DELETE" => 2,
        b"GET" => 3,
        b"HEAD" => 4,
        b"OPTIONS" => 5,
        b"POST" => 6,
        b"PUT" => 7,
        b"TRACE" => 8,
        b"PATCH" => 9,
        _ => 99,
    }
}
