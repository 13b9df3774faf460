//! The shim: one process per service, which outlives control, proxy and supervisor.

mod lifecycle;
mod logs;
mod networks;
mod pid1;
mod places;
mod proxy;
mod ready;
mod server;
mod service;
mod user;

use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use ringfence_channel::{BlockingChannel, stdin_channel, sys};
use ringfence_event::{Event, Kind, Lifecycle, LifecycleActivity, Severity, Writer, WriterOptions};

use crate::launch::Started;
use crate::mounts;
use crate::protocol::{Exit, Hello};
use crate::seccomp::Filter;
use crate::spec::{Isolation, SERVICE_ID, Spec};
use crate::{SandboxError, capability, error::Context as _, sink};
use networks::Networks;
pub(crate) use networks::Wires;
use places::Places;
use service::Service;
pub(crate) use user::{Identity, mapper};

/// Where a shim's owner is.
pub(crate) enum Front {
    /// A supervisor that waits for one message.
    Supervisor(BlockingChannel<Started, Spec>),
    /// A person.
    Terminal,
}

pub(crate) fn main() -> Result<(), SandboxError> {
    let channel: BlockingChannel<Started, Spec> =
        BlockingChannel::new(stdin_channel().step(|| "find the channel".into())?);
    let (spec, _) = channel.recv()?;
    rustix::process::setsid().step(|| "start a session".into())?;
    let reporting = channel.try_clone()?;
    match run(&spec, Front::Supervisor(channel)) {
        Ok(_) => Ok(()),
        Err(e) => {
            // Nobody reads it if the supervisor was told that we are up.
            let _ = reporting.send(&Started::Failed(e.to_string()), &[]);
            Err(e)
        }
    }
}

/// Runs a service until it ends for good or somebody stops it.
pub(crate) fn run(spec: &Spec, front: Front) -> Result<ExitCode, SandboxError> {
    spec.validate()?;
    // Whoever starts us may keep its files to itself: the service's root is laid out by one user for another.
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o022));
    // Registered first, before there is anything to leave behind.
    let (stop_signal, on_signal) = UnixStream::pair().step(|| "make a socket pair".into())?;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let writer = on_signal.try_clone().step(|| "copy a descriptor".into())?;
        signal_hook::low_level::pipe::register(signal, writer).step(|| "handle signals".into())?;
    }
    drop(on_signal);
    // What lies in the data directory is opened while we are still who started us.
    let mut places = Places::open(spec)?;
    let view = places::view(spec)?;
    let identity = Identity::of(spec)?;
    let isolated = spec.isolation == Isolation::On;
    let networks = if isolated {
        if identity.is_root() {
            // Only root can still traverse what the service's uid cannot.
            sys::unshare_namespaces(rustix::thread::UnshareFlags::NEWNS)
                .step(|| "make a mount namespace".into())?;
            mounts::build(&view, identity.init_on_host())?;
        }
        identity.enter()?;
        Some(Networks::make()?)
    } else {
        None
    };
    let sinks = networks.as_ref().map(|networks| sink::Opened::open(spec, &networks.wires())).transpose()?;
    // Before the first thread that stays, so that none keeps more.
    if isolated {
        capability::keep_only(capability::SHIM)?;
    }
    rustix::thread::set_no_new_privs(true).step(|| "give up gaining privileges".into())?;
    sys::set_undumpable().step(|| "forbid tracing".into())?;
    Filter::shim()?.enforce()?;
    let events = Writer::open(&places.events(), &format!("shim-{}", spec.service), WriterOptions::default())
        .step(|| "open the event log".into())?;
    let emitter = events.emitter();
    let sinks = sinks.map(|sinks| sinks.start(&spec.service, &events)).transpose()?;
    let log = logs::start(&places, &spec.service, matches!(front, Front::Terminal))?;
    let foreground = matches!(front, Front::Terminal);
    let emitter_of_service = events.emitter();
    let setting =
        service::Setting { view, identity, networks: networks.map(Arc::new), sinks, log, foreground };
    let service = Service::new(spec, setting, emitter_of_service);
    let server = server::Server::new(service.clone(), places.listener()?);
    let hello = server.hello();
    server.clone().start()?;
    spawn("signals", {
        let service = service.clone();
        move || {
            use std::io::Read;
            let mut signals = stop_signal;
            while signals.read(&mut [0]).is_ok_and(|n| n > 0) {
                service.stop();
            }
        }
    })?;
    say(&emitter, spec, LifecycleActivity::Enable, "the shim is up", Severity::Informational);
    announce(front, hello)?;
    let exit = service.supervise();
    say(
        &emitter,
        spec,
        LifecycleActivity::Disable,
        "the shim ends, and all of its service with it",
        Severity::Informational,
    );
    drop(events);
    drop(places);
    server.farewell();
    Ok(match exit {
        Some(Exit::Code(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Some(_) => ExitCode::from(1),
        None => ExitCode::SUCCESS,
    })
}

fn announce(front: Front, hello: Hello) -> Result<(), SandboxError> {
    match front {
        Front::Supervisor(channel) => Ok(channel.send(&Started::Up(hello), &[])?),
        Front::Terminal => Ok(()),
    }
}

fn say(
    emitter: &ringfence_event::Emitter,
    spec: &Spec,
    activity: LifecycleActivity,
    message: &str,
    severity: Severity,
) {
    emitter.emit(&Event::new(Kind::Lifecycle(Lifecycle {
        name: &spec.service,
        activity,
        message,
        severity,
    })));
}

/// The service's uid, where it differs from ours.
fn service_id(identity: &Identity, spec: &Spec) -> Option<u32> {
    match (identity.is_root(), spec.isolation, spec.uids) {
        (true, Isolation::On, _) => Some(SERVICE_ID),
        (true, Isolation::Off, Some(range)) => Some(range.base + SERVICE_ID),
        _ => None,
    }
}

/// A named thread.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), SandboxError> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop).step(|| "start a thread".into())
}
