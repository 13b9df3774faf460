//! Who is at the other end of a client's connection, and where its requests may go: route and authorize.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ringfence_snapshot::{OWN_HOST, REGISTRY_PORT};
use ringfence_spiffe::SpiffeId;

use crate::access::{ClientCertificate, RouteAccess};
use crate::deny::Deny;
use crate::handling::{Handled, choose};
use crate::limits::Plan;
use crate::policy::is_told;
use crate::protect::Protection;
use crate::responses::Dress;
use crate::table::{self, Dialled, EdgeRef, OUTSIDE, Routed, TableRef, Via};
use crate::view::HeadView;
use crate::worker::Worker;

/// The enforcement points, as events name them.
pub(crate) mod point {
    pub(crate) const GATEWAY: &str = "gateway";
    pub(crate) const OUTBOUND: &str = "sidecar-out";
    pub(crate) const INBOUND: &str = "sidecar-in";
}

/// Whoever opened a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name: a service, or [`OUTSIDE`].
    pub(crate) caller: Arc<str>,
    /// Its verified identity.
    pub(crate) caller_id: Option<SpiffeId>,
    pub(crate) source: SocketAddr,
    /// Whether it speaks TLS to us.
    pub(crate) tls: bool,
    /// The certificate that a client from outside showed.
    pub(crate) certificate: OnceCell<ClientCertificate>,
    pub(crate) way: Way,
}

/// Where it came in, which decides where it may go.
#[derive(Debug)]
pub(crate) enum Way {
    /// From outside: by host and path.
    Gateway,
    /// From a service's own network: by the address that was dialled.
    Outbound { address: IpAddr, port: u16 },
    /// Over the mesh: to the service that the handshake was for.
    Inbound { callee: Arc<str> },
}

/// What a request along this way needs to be known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    /// Without port, as received.
    pub(crate) host: &'a str,
    /// Normalized.
    pub(crate) path: &'a str,
    pub(crate) view: HeadView<'a>,
    /// Any number below a hundred, the same as long as it runs.
    pub(crate) draw: u32,
    /// The service that it went to already.
    pub(crate) stay: Option<&'a str>,
}

/// A request that may pass.
#[derive(Clone, Debug)]
pub(crate) struct Authorized {
    /// The edge that allows it.
    pub(crate) edge: EdgeRef,
    /// The connection it goes on with: the edge itself, or the delivery behind it.
    pub(crate) next: EdgeRef,
    /// Who may pass, if not everybody.
    pub(crate) access: Option<Arc<RouteAccess>>,
    /// Who judges more than the head, if anybody does.
    pub(crate) protection: Option<Arc<Protection>>,
    /// How it is counted here, if it is.
    pub(crate) limit: Option<Arc<Plan>>,
    /// What responses look like.
    pub(crate) dress: Option<Arc<Dress>>,
    /// How long it may take, what of it is tried again and what its callee is spared, where that is said.
    pub(crate) handling: Option<Arc<Handled>>,
}

impl Authorized {
    /// Along an edge that is also the next connection.
    pub(crate) fn direct(edge: EdgeRef) -> Self {
        let (access, protection, limit, dress, handling) = (None, None, None, None, None);
        Self { next: edge.clone(), edge, access, protection, limit, dress, handling }
    }
}

impl Peer {
    pub(crate) fn point(&self) -> &'static str {
        match self.way {
            Way::Gateway => point::GATEWAY,
            Way::Outbound { .. } => point::OUTBOUND,
            Way::Inbound { .. } => point::INBOUND,
        }
    }

    /// Whether it wants to be answered by its own sidecar.
    pub(crate) fn is_internal(&self) -> bool {
        matches!(self.way, Way::Outbound { address, port: 80 | REGISTRY_PORT } if table::place(address) == table::Place::Own)
    }

    /// Whether it wants to know who runs where.
    pub(crate) fn asks_registry(&self) -> bool {
        matches!(self.way, Way::Outbound { port: REGISTRY_PORT, .. }) && self.is_internal()
    }

    /// Whether requests are counted here: once, where the caller's side is.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self.way, Way::Inbound { .. })
    }

    /// Whether calls are counted here: where the callee is, and for one without a side of ours where they leave. What came through the
    /// gateway was counted there.
    fn counts_calls(&self, authorized: &Authorized) -> bool {
        match self.way {
            Way::Gateway => false,
            Way::Inbound { .. } => &*self.caller != OUTSIDE,
            Way::Outbound { .. } => !is_told(&authorized.next),
        }
    }

    /// Name of whom it wants to reach, as far as that is known without a route.
    pub(crate) fn callee_name(&self, worker: &Worker) -> Arc<str> {
        match &self.way {
            Way::Gateway => "-".into(),
            Way::Inbound { callee } => callee.clone(),
            Way::Outbound { address, port } => {
                let dialled = worker.table().map(|t| table::dialled(&t, &self.caller, *address, *port));
                match dialled {
                    Some(Dialled::Edge(edge)) => edge.callee.clone(),
                    Some(Dialled::Undeclared { callee, .. } | Dialled::WrongPort(callee)) => {
                        callee.name.clone()
                    }
                    Some(Dialled::Egress(egress)) => egress.host.clone(),
                    Some(Dialled::Own) => OWN_HOST.into(),
                    _ => address.to_string().into(),
                }
            }
        }
    }

    /// Route, then authorize: the edge that allows this request, or why there is none.
    pub(crate) fn authorize(&self, worker: &Worker, asked: Asked<'_>) -> Result<Authorized, Deny> {
        let table = in_force(worker)?;
        let mut authorized = match &self.way {
            Way::Gateway => route(&table, asked)?,
            Way::Outbound { .. } | Way::Inbound { .. } => self.edge(&table)?,
        };
        if let Some(other) = self.elsewhere(&table, &authorized, asked) {
            authorized = other?;
        }
        if self.counts_calls(&authorized) {
            authorized.limit.clone_from(&authorized.edge.limit);
        }
        let edge = &authorized.edge;
        if !edge.allows(asked.method, asked.path) {
            let reason = format!(
                "the edge {} → {} does not allow {} {}",
                edge.caller, edge.callee, asked.method, asked.path
            );
            return Err(Deny::new(403, "authorize", "edge.rule", reason).position(edge.rules_position()));
        }
        if let Via::Shim { shim, .. } = &authorized.next.via
            && !shim.is_ready()
        {
            return Err(Deny::failure(503, "service.not-ready", format!("{} is not ready", edge.callee)));
        }
        Ok(authorized)
    }

    /// The same request as one to another service, where a split says so. What that one says of it is all that counts, and it is not split again.
    fn elsewhere(
        &self,
        table: &TableRef,
        authorized: &Authorized,
        asked: Asked<'_>,
    ) -> Option<Result<Authorized, Deny>> {
        let split = authorized.handling.as_ref()?.said.split.as_ref()?;
        let to = choose(split, &asked, self.source.ip())?;
        // An edge that is not in force yet, or no more, takes nothing.
        let edge = table::inbound(table, &self.caller, to)?;
        Some(match self.way {
            Way::Gateway => along(table::route_to(table, &edge, asked.path), asked.host, asked.path),
            Way::Outbound { .. } => Ok(called(edge)),
            Way::Inbound { .. } => return None,
        })
    }

    /// The edge of a connection whose callee is fixed.
    pub(crate) fn edge(&self, table: &TableRef) -> Result<Authorized, Deny> {
        match &self.way {
            Way::Gateway => Err(Deny::new(404, "route", "route.none", "no route")),
            Way::Outbound { address, port } => match table::dialled(table, &self.caller, *address, *port) {
                Dialled::Edge(edge) => Ok(called(edge)),
                Dialled::Undeclared { callee, position } => {
                    Err(undeclared(&self.caller, &callee.name, Some(position.to_string())))
                }
                Dialled::WrongPort(callee) => {
                    let reason = format!(
                        "{} is not found at port {port}, but at 80 and {:?}",
                        callee.name, callee.port
                    );
                    Err(Deny::new(403, "route", "edge.port", reason))
                }
                Dialled::Egress(_) | Dialled::NoEgress | Dialled::Own | Dialled::Nowhere => {
                    Err(Deny::new(403, "route", "address.unknown", format!("nothing is at {address}:{port}")))
                }
            },
            Way::Inbound { callee } => {
                let Some(edge) = table::inbound(table, &self.caller, callee) else {
                    let position = table.position_of(&self.caller).map(ToString::to_string);
                    return Err(undeclared(&self.caller, callee, position));
                };
                let Some(next) = table::delivery(table, callee) else {
                    let reason = format!("{callee} is not a service of this node");
                    return Err(Deny::new(503, "route", "callee.elsewhere", reason));
                };
                let access = table.callee(callee).and_then(|callee| callee.access.clone());
                Ok(Authorized { next, access, ..Authorized::direct(edge) })
            }
        }
    }
}

/// The table, if there is one and it is fresh.
pub(crate) fn in_force(worker: &Worker) -> Result<TableRef, Deny> {
    let Some(table) = worker.table() else {
        return Err(Deny::new(
            503,
            "snapshot",
            "snapshot.none",
            "no snapshot has arrived yet: does control run?",
        ));
    };
    if worker.is_stale() {
        let reason = "the snapshot's lease has run out and control does not renew it";
        return Err(Deny::new(503, "snapshot", "snapshot.stale", reason));
    }
    Ok(table)
}

fn route(table: &TableRef, asked: Asked<'_>) -> Result<Authorized, Deny> {
    let lower;
    let host = if asked.host.bytes().any(|b| b.is_ascii_uppercase()) {
        lower = asked.host.to_ascii_lowercase();
        &lower
    } else {
        asked.host
    };
    // A name with its root dot is the same name.
    let host = host.strip_suffix('.').unwrap_or(host);
    along(table::route(table, host, asked.path), host, asked.path)
}

/// A call by its edge.
fn called(edge: EdgeRef) -> Authorized {
    let handling = edge.handling.clone();
    Authorized { handling, ..Authorized::direct(edge) }
}

/// A request by its route.
fn along(routed: Routed, host: &str, path: &str) -> Result<Authorized, Deny> {
    match routed {
        Routed::To { edge, access, protection, limit, dress, handling } => {
            let dress = Some(dress);
            Ok(Authorized { access, protection, limit, dress, handling, ..Authorized::direct(edge) })
        }
        Routed::Case { path: other, position } => {
            let reason = format!(
                "many services take {} for what lies below the route {other}, which lets in other callers: write it in its case",
                path
            );
            Err(Deny::new(404, "route", "route.case", reason).position(Some(position)))
        }
        Routed::Nowhere => {
            Err(Deny::new(404, "route", "route.none", format!("no route leads to {host}{path}")))
        }
    }
}

fn undeclared(caller: &str, callee: &str, position: Option<String>) -> Deny {
    let reason = format!("{caller} does not declare that it calls {callee}");
    let missing = if caller == OUTSIDE {
        format!("services.{callee}.routes: [{{ path: / }}]")
    } else {
        format!("services.{caller}.calls: [{callee}]")
    };
    let at = position.clone().unwrap_or_default();
    let missing = if at.is_empty() { missing } else { format!("{missing} at {at}") };
    Deny::new(403, "authorize", "edge.undeclared", reason).position(position).missing(missing)
}
