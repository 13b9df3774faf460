//! All views, and what changes them.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ringfence_snapshot::{Service, Snapshot, Target, egress_ip, service_ip};
use tokio::sync::watch;

use crate::check::{Check, CheckKind, MAX_OUTPUT, Status, cut};
use crate::registration::{Registration, Ttl};
use crate::view::{Entry, Instance, View};

/// A service inside its own network.
const ITSELF: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// All views; cheap to ask, locked for a moment to change.
#[derive(Debug, Default)]
pub struct Registry {
    state: Mutex<State>,
    seats: RwLock<HashMap<Arc<str>, Arc<Seat>>>,
}

/// Where one service is answered from.
#[derive(Debug)]
pub struct Seat {
    view: watch::Sender<Arc<View>>,
    waiting: Arc<AtomicUsize>,
}

/// Requests of one service that wait for news at a time.
const MAX_WAITING: usize = 256;

/// One request waits, until this is dropped.
#[derive(Debug)]
pub struct Waiting {
    news: watch::Receiver<Arc<View>>,
    count: Arc<AtomicUsize>,
}

impl Waiting {
    /// Returns when the view has another index than `index`, at once if it has.
    pub async fn newer(&mut self, index: u64) {
        // Its sender lives as long as the seat; without one there is no news any more.
        let _ = self.news.wait_for(|view| view.index != index).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    fn new(view: View) -> Self {
        Self { view: watch::Sender::new(view.into()), waiting: Arc::default() }
    }

    /// What it is told now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    fn tell(&self, mut view: View) {
        let before = self.view();
        if !before.says(&view) {
            view.index = before.index + 1;
            self.view.send_replace(view.into());
        }
    }

    /// Waits for what it is told next; none if too many requests of this service do already.
    pub fn wait(&self) -> Option<Waiting> {
        let waiting = Waiting { news: self.view.subscribe(), count: self.waiting.clone() };
        (waiting.count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(waiting)
    }
}

/// A service as all who may call it see it.
#[derive(Clone, Debug)]
struct Known {
    number: u16,
    port: u16,
    listen: Option<u16>,
    protocol: &'static str,
    /// On another machine, or outside the fence.
    elsewhere: bool,
    calls: Vec<Arc<str>>,
    egress: Vec<(Arc<str>, Ipv4Addr)>,
}

#[derive(Debug, Default)]
struct State {
    node: Arc<str>,
    trust_domain: Arc<str>,
    services: BTreeMap<Arc<str>, Known>,
    ready: HashMap<Arc<str>, bool>,
    registered: HashMap<Arc<str>, Registration>,
}

impl Registry {
    /// Takes over what a snapshot says; `node` is who answers.
    pub fn follow(&self, snapshot: &Snapshot, node: &str) {
        let mut state = self.state();
        state.node = node.into();
        state.trust_domain = snapshot.trust_domain.to_ascii_lowercase().into();
        let here = |service: &Service| snapshot.runs_at(service, node) && service.at.len() < 2;
        state.services =
            snapshot.services.iter().map(|s| (s.name.as_str().into(), known(s, here(s)))).collect();
        let State { services, registered, ready, .. } = &mut *state;
        registered.retain(|name, _| services.contains_key(name));
        ready.retain(|name, _| services.contains_key(name));
        self.publish(&state);
    }

    /// The sidecar sees whether a service answers.
    pub fn ready(&self, service: &str, ready: bool) {
        let mut state = self.state();
        if state.ready.insert(service.into(), ready) != Some(ready) {
            self.publish_for(&state, service);
        }
    }

    /// The service's processes are gone, and with them what they said of themselves.
    pub fn gone(&self, service: &str) {
        let mut state = self.state();
        let ended = state.registered.remove(service).is_some();
        if state.ready.insert(service.into(), false) != Some(false) || ended {
            self.publish_for(&state, service);
        }
    }

    /// Where `service` is answered from; none if it is not in the snapshot.
    pub fn seat(&self, service: &str) -> Option<Arc<Seat>> {
        self.seats.read().unwrap_or_else(PoisonError::into_inner).get(service).cloned()
    }

    /// The port on which a service listens inside its own network.
    pub fn listens(&self, service: &str) -> Option<u16> {
        self.state().services.get(service)?.listen
    }

    /// What a service says of itself from now on. Who says it was proved by whoever calls this.
    pub fn register(&self, service: &str, registration: Registration) {
        let mut state = self.state();
        if let Some((name, _)) = state.services.get_key_value(service) {
            let name = name.clone();
            state.registered.insert(name, registration);
            self.publish_for(&state, service);
        }
    }

    /// It says nothing more. `false` if it has no such registration.
    pub fn deregister(&self, service: &str, id: &str) -> bool {
        let mut state = self.state();
        if state.registered.get(service).is_none_or(|registration| registration.id != id) {
            return false;
        }
        state.registered.remove(service);
        self.publish_for(&state, service);
        true
    }

    /// A service says how it does. `false` if it has no such check.
    pub fn report(&self, service: &str, check: &str, status: Status, output: &str, now_ms: u64) -> bool {
        let mut state = self.state();
        let Some(found) = state.registered.get_mut(service).and_then(|r| r.ttl(check)) else { return false };
        found.due_ms = now_ms.saturating_add(found.ttl_ms);
        let since = found.critical_since_ms.unwrap_or(now_ms);
        found.critical_since_ms = (status == Status::Critical).then_some(since);
        let output = cut(output, MAX_OUTPUT);
        // Renewed and nothing else: the usual case, which nobody needs to hear of.
        if found.status != status || found.output != output {
            (found.status, found.output) = (status, output.into());
            self.publish_for(&state, service);
        }
        true
    }

    /// A service takes itself out, or comes back. `false` if it has not registered under that id.
    pub fn maintain(&self, service: &str, id: &str, reason: Option<&str>) -> bool {
        let mut state = self.state();
        let Some(found) = state.registered.get_mut(service).filter(|r| r.id == id) else { return false };
        found.maintenance = reason.map(|reason| cut(reason, MAX_OUTPUT).into());
        self.publish_for(&state, service);
        true
    }

    /// Time passes: what was not renewed is critical, and gone if it asked for that.
    pub fn tick(&self, now_ms: u64) {
        let mut state = self.state();
        let mut changed = false;
        state.registered.retain(|_, registration| {
            let mut stays = true;
            for ttl in &mut registration.ttls {
                if now_ms >= ttl.due_ms && ttl.critical_since_ms.is_none() {
                    ttl.expire(now_ms);
                    changed = true;
                }
                let since = ttl.critical_since_ms.unwrap_or(u64::MAX);
                stays &= ttl.deregister_ms.is_none_or(|after| now_ms.saturating_sub(since) < after);
            }
            changed |= !stays;
            stays
        });
        if changed {
            self.publish(&state);
        }
    }

    /// Callers whose view says something else than before get the new one, and nobody else notices.
    fn publish(&self, state: &State) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|name, _| state.services.contains_key(name));
        for name in state.services.keys() {
            let Some(view) = state.view(name) else { continue };
            match seats.get(name) {
                Some(seat) => seat.tell(view),
                None => {
                    seats.insert(name.clone(), Arc::new(Seat::new(view)));
                }
            }
        }
    }

    /// The same after a change of one service, for itself and its callers.
    fn publish_for(&self, state: &State, service: &str) {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        let sees = |name: &str, known: &Known| name == service || known.calls.iter().any(|c| **c == *service);
        for (name, _) in state.services.iter().filter(|(name, known)| sees(name, known)) {
            if let (Some(seat), Some(view)) = (seats.get(name), state.view(name)) {
                seat.tell(view);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn view(&self, caller: &Arc<str>) -> Option<View> {
        let own = self.services.get(caller)?;
        let callable = own.calls.iter().filter(|name| *name != caller).chain([caller]);
        let entries = callable.filter_map(|name| {
            let (name, known) = self.services.get_key_value(name)?;
            let place = match name == caller {
                true => (ITSELF, known.listen?),
                false => (service_ip(known.number), known.port),
            };
            let instances = vec![self.instance(name, known, place)];
            Some((name.clone(), Entry { protocol: known.protocol, instances }))
        });
        Some(View {
            index: 1,
            caller: caller.clone(),
            node: self.node.clone(),
            trust_domain: self.trust_domain.clone(),
            entries: entries.collect(),
            egress: own.egress.iter().cloned().collect(),
        })
    }

    fn instance(&self, name: &Arc<str>, known: &Known, (address, port): (Ipv4Addr, u16)) -> Instance {
        // Of what runs elsewhere, or there too, nobody here knows more than that it is declared.
        let ready = known.elsewhere || self.ready.get(name).copied().unwrap_or(false);
        let sidecar = Check {
            id: format!("sidecar:{name}"),
            name: "Sidecar".into(),
            kind: CheckKind::Sidecar,
            status: if ready { Status::Passing } else { Status::Critical },
            output: if ready { "ready" } else { "not ready" }.into(),
        };
        let mut instance = Instance {
            host: self.node.clone(),
            address,
            port,
            id: name.to_string(),
            tags: Vec::new(),
            meta: BTreeMap::new(),
            checks: vec![sidecar],
        };
        if let Some(registration) = self.registered.get(name) {
            instance.id.clone_from(&registration.id);
            instance.tags.clone_from(&registration.tags);
            instance.meta.clone_from(&registration.meta);
            instance.checks.extend(registration.ttls.iter().map(Ttl::check));
            instance.checks.extend(registration.maintenance.iter().map(|reason| Check {
                id: format!("_service_maintenance:{}", registration.id),
                name: "Service Maintenance Mode".into(),
                kind: CheckKind::Maintenance,
                status: Status::Critical,
                output: reason.clone(),
            }));
        }
        instance
    }
}

fn known(service: &Service, only_here: bool) -> Known {
    Known {
        number: service.address,
        port: service.port.unwrap_or(80),
        listen: service.listen,
        protocol: service.protocol.as_str(),
        elsewhere: !only_here || matches!(service.target, Target::External { .. }),
        calls: service.calls.iter().map(|call| call.service.as_str().into()).collect(),
        egress: service
            .egress
            .iter()
            .map(|egress| (egress.rule.host.to_ascii_lowercase().into(), egress_ip(egress.address)))
            .collect(),
    }
}
