//! What is attacked: the running fence, as it tells of itself, and the declaration that it should enforce.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ringfence_control::supervisor::{Applied, Report};
use ringfence_model::{Fence, GatewayTls, Protocol, Route, Service};
use ringfence_snapshot::{Der, service_ip};
use serde::Deserialize;

use super::{DrillArgs, Unable};
use crate::client::Client;
use crate::view::Failure;

/// A running fence.
pub(crate) struct Target {
    data: PathBuf,
    fence: Fence,
    report: Report,
    applied: Applied,
    client: Client,
    gateway: Option<SocketAddr>,
    /// Whether another listener stands in for the gateway.
    stand_in: bool,
    mesh: Option<SocketAddr>,
    without: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    report: Report,
}

/// An SVID from the running fence's own authority.
#[derive(Deserialize)]
pub(crate) struct Minted {
    pub(crate) chain: Vec<Der>,
    pub(crate) key: Der,
    pub(crate) not_after: u64,
}

/// Who calls whom.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) caller: &'a Service,
    pub(crate) callee: &'a Service,
}

impl Target {
    pub(crate) fn find(args: &DrillArgs, fence: &Path, data: &Path) -> Result<Self, Failure> {
        let client = Client::new(data)?;
        let Status { report } = client.get("/v1/status")?;
        let applied = client.get("/v1/fence")?;
        let fence = Fence::load(fence).map_err(|d| Failure::Wrong(d.to_string()))?;
        let gateway = args.gateway.or_else(|| report.gateway.iter().find_map(|g| reachable(g)));
        let mesh = args.mesh.or_else(|| reachable(&report.mesh));
        let stand_in = args.gateway.is_some();
        // Inside a service only the real path stands for it.
        let data = std::fs::canonicalize(data)?;
        let without = args.without.clone();
        Ok(Self { data, fence, report, applied, client, gateway, stand_in, mesh, without })
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.data.join("events")
    }

    pub(crate) fn fence_name(&self) -> &str {
        &self.fence.name
    }

    pub(crate) fn trust_domain(&self) -> &str {
        &self.fence.trust_domain
    }

    pub(crate) fn isolated(&self) -> bool {
        self.report.isolation == "on"
    }

    pub(crate) fn gateway(&self) -> Result<SocketAddr, Unable> {
        self.gateway.ok_or_else(|| Unable::new("the fence has no gateway"))
    }

    /// What stands in for every gateway, to see that a drill can fail.
    pub(crate) fn stand_in(&self) -> Option<SocketAddr> {
        self.gateway.filter(|_| self.stand_in)
    }

    /// A fence that a drill brings, less what it is to fail without.
    pub(crate) fn lenient(&self, fence: &str) -> String {
        self.without.as_ref().map_or_else(|| fence.to_owned(), |words| fence.replace(words.as_str(), ""))
    }

    /// Whether clients speak TLS to the gateway.
    pub(crate) fn gateway_tls(&self) -> bool {
        self.stand_in || self.fence.gateway.as_ref().is_none_or(|g| g.tls != GatewayTls::Off)
    }

    pub(crate) fn mesh(&self) -> Result<SocketAddr, Unable> {
        self.mesh
            .ok_or_else(|| Unable::new("the running `ringfence up` does not say where its mesh listener is"))
    }

    /// Host and path of something that is reachable from outside: by everybody, if anything is, so that nothing is refused for want of a
    /// credential before what is attacked comes to its turn.
    pub(crate) fn route(&self) -> Result<(String, String), Unable> {
        let gateway = self.gateway()?;
        let routes = || {
            let services = self.fence.services.iter().filter(|s| s.protocol != Protocol::Tcp);
            services.flat_map(|s| s.routes.iter().map(move |route| (s, route)))
        };
        let is_open = |(s, route): &(&Service, &Route)| s.access.is_open() && route.access.is_open();
        let route = routes().find(is_open).or_else(|| routes().next()).map(|(_, route)| route);
        let route = route.ok_or_else(|| Unable::new("the fence has no route from outside"))?;
        Ok((route.host.clone().unwrap_or_else(|| gateway.to_string()), route.path.clone()))
    }

    /// A service that runs fenced here, so that an attack can start from it.
    pub(crate) fn running(&self) -> Result<&Service, Unable> {
        self.inhabited().next().ok_or_else(|| Unable::new("no service of the fence runs here"))
    }

    /// A caller that runs here, and a callee that it does not declare.
    pub(crate) fn undeclared(&self) -> Result<Pair<'_>, Unable> {
        let pair = |protocol_is_http: bool| {
            self.pairs().find(|p| !declares(*p) && (p.callee.protocol != Protocol::Tcp) == protocol_is_http)
        };
        pair(true).or_else(|| pair(false)).ok_or_else(|| {
            Unable::new(
                "every service that runs here may call every other: there is no undeclared call to try",
            )
        })
    }

    /// A declared pair if there is one, so that only the identity decides.
    pub(crate) fn declared(&self) -> Result<Pair<'_>, Unable> {
        let pair = self.pairs().find(|p| declares(*p) && self.inhabited().any(|s| s.name == p.callee.name));
        pair.or_else(|| self.pairs().next())
            .ok_or_else(|| Unable::new("the fence needs two services that run here"))
    }

    /// A pair for dialling past the fence: the callee listens where the caller does not.
    pub(crate) fn neighbours(&self) -> Result<Pair<'_>, Unable> {
        self.pairs()
            .find(|p| p.callee.listen != p.caller.listen && !p.callee.is_external())
            .ok_or_else(|| Unable::new("the fence needs two services that listen at different ports"))
    }

    /// The address at which others find a service inside their networks.
    pub(crate) fn address(&self, service: &str) -> Option<Ipv4Addr> {
        self.applied.services.iter().find(|(name, _)| name == service).map(|(_, n)| service_ip(*n))
    }

    /// Processes of this fence that are no service's own, and those of the services other than `service`.
    pub(crate) fn strangers(&self, service: &str) -> Vec<u32> {
        let own = self.report.processes.iter().map(|p| p.pid);
        let others = self.report.services.iter().filter(|s| s.name != service).flat_map(|s| [s.shim, s.init]);
        let mut all: Vec<u32> =
            own.chain(others).chain(self.inits_children(service)).filter(|pid| *pid != 0).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn inits_children(&self, service: &str) -> Vec<u32> {
        let inits = self.report.services.iter().filter(|s| s.name != service && s.init != 0).map(|s| s.init);
        let children = |init: u32| {
            std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default()
        };
        inits
            .flat_map(|init| {
                children(init).split_whitespace().filter_map(|c| c.parse().ok()).collect::<Vec<_>>()
            })
            .collect()
    }

    /// A real SVID of a service, for a moment.
    pub(crate) fn mint(&self, service: &str, seconds: u64) -> Result<Minted, Unable> {
        let body = ringfence_control::Mint { service: service.to_owned(), ttl: seconds };
        self.client.post("/v1/svid", &body).map_err(|e| Unable::new(e.to_string()))
    }

    fn inhabited(&self) -> impl Iterator<Item = &Service> {
        let runs = |name: &str| {
            self.report
                .services
                .iter()
                .any(|s| s.name == name && s.shim != 0 && matches!(s.state.as_str(), "ready" | "starting"))
        };
        self.fence.services.iter().filter(move |s| runs(&s.name))
    }

    fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.inhabited().flat_map(|caller| {
            let callees = self.fence.services.iter().filter(|s| s.name != caller.name && s.port.is_some());
            callees.map(move |callee| Pair { caller, callee })
        })
    }
}

fn declares(pair: Pair<'_>) -> bool {
    pair.caller.calls.iter().any(|call| call.service == pair.callee.name)
}

/// An address as told, where this host reaches it.
fn reachable(text: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = text.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(address)
}
