//! The classes of OCSF 1.8 that Ringfence produces, borrowed from whoever saw them happen.

mod ocsf;

use std::net::{IpAddr, SocketAddr};

use crate::id::{EventId, TraceContext, TraceId, now_ms, write_span};
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
    /// Its own span in that trace, and the one that it came out of: what happened because of what.
    pub span: Option<([u8; 8], Option<[u8; 8]>)>,
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
    /// What stages found in it.
    pub findings: &'a [Finding<'a>],
    /// What it and its answer look like, as JSON without any value; empty for most. Descriptions of APIs are drafted from it.
    pub shape: &'a str,
    /// Allowed or not, and why.
    pub verdict: Verdict<'a>,
}

/// What a stage that reads more than heads found in a request or response.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finding<'a> {
    /// Pipeline stage, such as `inspect`.
    pub stage: &'a str,
    /// Stable name of the rule, such as `waf.942100`.
    pub rule: &'a str,
    /// What it is about.
    pub message: &'a str,
    /// Where it was found, such as `ARGS:q`.
    pub target: &'a str,
    /// What was found there, cut short; never a secret.
    pub value: &'a [u8],
    /// What was done to the value before it was looked at, in order, separated by commas.
    pub transformations: &'a str,
    /// How much it weighs.
    pub score: u64,
    /// Nobody is refused for it: the stage only watches.
    pub observed: bool,
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
        Self { id: EventId::at(time_ms), time_ms, trace: None, span: None, revision: 0, kind }
    }

    /// With the trace it belongs to.
    pub fn trace(self, trace: TraceId) -> Self {
        Self { trace: Some(trace), ..self }
    }

    /// With the trace it belongs to and its place in it.
    pub fn in_trace(self, context: TraceContext) -> Self {
        Self { trace: Some(context.trace), span: Some((context.parent, context.sender)), ..self }
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
                if let Some((span, parent)) = self.span {
                    let duration_ms = self.kind.duration_us() / 1000;
                    t.object("span", |s| {
                        s.raw("uid", |out| write_span(span, out));
                        if let Some(parent) = parent {
                            s.raw("parent_uid", |out| write_span(parent, out));
                        }
                        s.number("start_time", self.time_ms.saturating_sub(duration_ms));
                        s.number("end_time", self.time_ms);
                    });
                }
            });
        }
        self.kind.write(&mut event, self.revision);
        event.end();
        out.push(b'\n');
    }
}
