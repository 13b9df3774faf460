//! The classes of OCSF 1.8 that Ringfence produces, borrowed from whoever saw them happen.

use std::net::{IpAddr, SocketAddr};

use crate::id::{EventId, TraceId, now_ms};
use crate::json::Object;

/// One event. Build it with [`Event::new`], refine it, hand it to an [`crate::Emitter`].
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its id; the `instance` of a problem document is this.
    pub id: EventId,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    /// The trace that it belongs to.
    pub trace: Option<TraceId>,
    /// Revision of the snapshot in force.
    pub revision: u64,
    /// What happened.
    pub kind: Kind<'a>,
}

/// What happened, by OCSF class.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// HTTP Activity (4002): a request, allowed or denied.
    Call(Call<'a>),
    /// Network Activity (4001): a connection, allowed, denied or cut.
    Connection(Connection<'a>),
    /// Network Activity (4001), refused: a packet that reached the sink.
    Dial(Dial<'a>),
    /// Detection Finding (2004): many dials that look like one search.
    Scan(Scan<'a>),
    /// Detection Finding (2004): a service reached for what is not its own.
    Tamper(Tamper<'a>),
    /// Application Lifecycle (6002).
    Lifecycle(Lifecycle<'a>),
    /// Entity Management (3004): a certificate, key or snapshot made, renewed or retired.
    Entity(Entity<'a>),
}

/// How a call or connection was judged.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// It passed.
    Allowed,
    /// It was refused.
    Denied {
        /// Pipeline stage, such as `authorize`.
        stage: &'a str,
        /// Stable name of the rule, such as `edge.undeclared`.
        rule: &'a str,
        /// `file:line:column` of the rule, where one exists.
        position: Option<&'a str>,
        /// For the operator: what was wrong.
        reason: &'a str,
        /// The line of the fence that would allow it.
        missing: Option<&'a str>,
    },
    /// It passed without what it must not carry.
    Corrected {
        /// Stable name of the rule, such as `header.spoofed`.
        rule: &'a str,
        /// For the operator: what was taken out.
        reason: &'a str,
    },
    /// It was allowed, but failed further on (upstream gone, timeout).
    Failed {
        /// For the operator: what failed.
        reason: &'a str,
    },
}

/// The user or client on whose behalf a request is.
#[derive(Clone, Copy, Debug, Default)]
pub struct User<'a> {
    /// Its name.
    pub name: &'a str,
    /// Name of the provider that vouches for it, or the kind of its credential.
    pub domain: &'a str,
    /// What names the credential without being one, such as the public part of an API key.
    pub credential: Option<&'a str>,
    /// The client that a user acts through.
    pub client: Option<&'a str>,
    /// What the transaction is called in every log along the way (`txn`).
    pub transaction: Option<&'a str>,
    /// The services on the way, oldest first, separated by commas; empty where there is none yet.
    pub chain: &'a str,
}

/// A request on one hop.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Name of the calling service, or `outside`.
    pub caller: &'a str,
    /// The caller's verified SPIFFE ID, where it has one.
    pub caller_id: Option<&'a str>,
    /// The user or client that stands behind it.
    pub user: Option<User<'a>>,
    /// The caller's address.
    pub source: Option<IpAddr>,
    /// Name of the called service.
    pub callee: &'a str,
    /// Which enforcement point: `gateway`, `sidecar-out`, `sidecar-in`.
    pub point: &'a str,
    /// HTTP method as received.
    pub method: &'a [u8],
    /// Path as judged (normalized), without the query, which may hold secrets.
    pub path: &'a [u8],
    /// Status answered; 0 while none was.
    pub status: u16,
    /// Microseconds from the head's arrival to the answer's end.
    pub duration_us: u64,
    /// `true` if it had been let pass and was ended by this.
    pub cut: bool,
    /// What policies that only watch would have said; none when none holds.
    pub observed: Option<Observed<'a>>,
    /// Allowed or not, and why.
    pub verdict: Verdict<'a>,
}

/// Policies in observe mode that hold for a request.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Their names.
    pub policies: &'a [&'a str],
    /// Whether policies would let it pass if these counted.
    pub would_pass: bool,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Name of the calling service, or `outside`.
    pub caller: &'a str,
    /// The caller's SPIFFE ID: verified if allowed, claimed if denied.
    pub caller_id: Option<&'a str>,
    /// The caller's address.
    pub source: Option<SocketAddr>,
    /// Name of the called service or egress host.
    pub callee: &'a str,
    /// Port dialled.
    pub port: u16,
    /// Which enforcement point.
    pub point: &'a str,
    /// `true` if an established connection was cut.
    pub cut: bool,
    /// Allowed or not, and why.
    pub verdict: Verdict<'a>,
}

/// A packet that a service sent to somewhere it has no edge to.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// The service it came from.
    pub service: &'a str,
    /// `tcp`, `udp`, `icmp` or a protocol number.
    pub protocol: &'a str,
    /// Where to.
    pub destination: IpAddr,
    /// Port, 0 where the protocol has none.
    pub port: u16,
    /// The name asked for, if it was a DNS question.
    pub query: Option<&'a str>,
    /// How many alike since the last such event.
    pub count: u64,
    /// `loopback` if inside the service's own network, else `outside`.
    pub place: &'a str,
}

/// A search over ports or addresses.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// The service it came from.
    pub service: &'a str,
    /// Distinct ports seen.
    pub ports: u64,
    /// Distinct addresses seen.
    pub addresses: u64,
    /// Packets seen.
    pub packets: u64,
}

/// A service reached for what is not its own: Ringfence's processes or files.
#[derive(Clone, Copy, Debug)]
pub struct Tamper<'a> {
    /// The service it came from.
    pub service: &'a str,
    /// `decoy` (the place where the data directory would be), `signal` or `trace` (a process that is not its own).
    pub what: &'a str,
    /// Details for the operator: the system call, the path.
    pub message: &'a str,
    /// How many alike since the last such event.
    pub count: u64,
}

/// A process or the fence started, stopped, changed.
#[derive(Clone, Copy, Debug)]
pub struct Lifecycle<'a> {
    /// Service or process of Ringfence.
    pub name: &'a str,
    /// What it did.
    pub activity: LifecycleActivity,
    /// Details for the operator.
    pub message: &'a str,
    /// Severity; exits and failures are not informational.
    pub severity: Severity,
}

/// `activity_id` of Application Lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the captions of OCSF")]
pub enum LifecycleActivity {
    Start = 3,
    Stop = 4,
    Restart = 5,
    Enable = 6,
    Disable = 7,
    Update = 8,
}

/// A managed thing changed: certificate, key, snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Entity<'a> {
    /// `certificate`, `jwt`, `snapshot`, `root`, `issuing`, …
    pub entity: &'a str,
    /// SPIFFE ID, name or revision.
    pub name: &'a str,
    /// Serial number or fingerprint.
    pub uid: Option<&'a str>,
    /// OCSF `activity_id`: 1 create, 2 read, 3 update, 4 delete.
    pub activity: u8,
    /// `false`: it was asked for and refused.
    pub granted: bool,
    /// Details for the operator.
    pub message: &'a str,
}

/// OCSF `severity_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the captions of OCSF")]
pub enum Severity {
    Informational = 1,
    Low = 2,
    Medium = 3,
    High = 4,
    Critical = 5,
}

impl<'a> Event<'a> {
    /// An event of now.
    pub fn new(kind: Kind<'a>) -> Self {
        let time_ms = now_ms();
        Self { id: EventId::at(time_ms), time_ms, trace: None, revision: 0, kind }
    }

    /// With the trace it belongs to.
    pub fn trace(self, trace: TraceId) -> Self {
        Self { trace: Some(trace), ..self }
    }

    /// With the revision in force.
    pub fn revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// With an id given out before.
    pub fn with_id(self, id: EventId) -> Self {
        Self { id, ..self }
    }

    /// Appends the event as one JSON line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (category, class, activity, severity) = self.kind.uids();
        out.reserve(1024);
        let mut event = Object::begin(out);
        event
            .number("time", self.time_ms)
            .number("class_uid", class)
            .number("category_uid", category)
            .number("activity_id", activity)
            .number("type_uid", class * 100 + activity)
            .number("severity_id", severity as u64)
            .object("metadata", |m| {
                m.plain("version", "1.8.0").raw("uid", |out| self.id.write(out));
                m.texts("profiles", ["security_control", "trace"]);
                m.object("product", |p| {
                    p.text("name", "Ringfence")
                        .text("vendor_name", "Ringfence")
                        .text("version", env!("CARGO_PKG_VERSION"));
                });
            });
        if let Some(trace) = self.trace {
            event.object("trace", |t| {
                t.raw("uid", |out| trace.write(out));
            });
        }
        self.kind.write(&mut event, self.revision);
        event.end();
        out.push(b'\n');
    }
}

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

    /// Category, class, activity, severity.
    fn uids(&self) -> (u64, u64, u64, Severity) {
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

    fn write(&self, event: &mut Object<'_>, revision: u64) {
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
