//! The composition root: what starts in which order and why, and how it stops.
//!
//! Start: certificates (what would be refused is refused before anything is opened), then log and state (nothing is true
//! before them), then the readers, then what acts on facts, then the listeners, and only when both are bound the one line
//! on stdout. Stop: not ready, no new work, running work drains,
//! agents are told, access records are flushed, readers and actors stop, the log is sealed and closed last.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::web;
use anyhow::{Context as _, Result};
use dashmap::DashMap;
use domain::{
    log_format,
    node::{self, NodeStarted},
};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use wire::peers::PeerLimits;

use crate::{
    actors::{
        Who,
        follower::{self, Follower},
        timekeeper::Timekeeper,
    },
    api::{self, Ports, public},
    clock::{SharedClock, SystemClock},
    core::Core,
    creation::Creator,
    diagnostics::Kept,
    edge::{self, Edge, EdgeDeps, EdgeOptions, Entrance},
    environments::{Codes, Environments},
    gateway::{self, Gateway, GatewaySettings, acceptor::Speech},
    health_monitor::HealthMonitor,
    limits::{Limiter, kept::KeptFile},
    links::Links,
    metrics::Metrics,
    operator::{self, Socket},
    readers::{Views, former::former_shares},
    retention::{Keep, Retention},
    running::Running,
    secrets::Secret,
    settings::Settings,
    tls::{
        Tls,
        acme::{Issued, keeper::Keeper},
        certificates::keep_fresh,
        plan::{self, Plan},
    },
    tunnel_ports::{TunnelPortSettings, TunnelPorts},
    upgrade::{RELEASE, Upgrade},
    usage::{Usage, UsageRecorder},
    webhooks::Webhooks,
};

mod parts;

use parts::{edge_options, free_edge_address, port_pool, recorder, serve_api, show_admin_key, webhook_parts};

/// How many addresses, keys and shares the limiter knows at once; further ones share by address prefix.
const LIMITER_KEYS_MAX: usize = 100_000;

/// How long a start waits for views that are behind.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A running hub.
pub struct Hub {
    pub core: Arc<Core>,
    pub ports: web::Data<Ports>,
    pub api_addr: SocketAddr,
    pub edge_addr: SocketAddr,
    pub tls: Tls,
    settings: Arc<Settings>,
    edge: Edge,
    tunnel_ports: TunnelPorts,
    api: actix_server::ServerHandle,
    data_plane: DataPlane,
    tasks: TaskTracker,
    stop: CancellationToken,
    signals: (Signal, Signal),
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("api", &self.api_addr)
            .field("edge", &self.edge_addr)
            .finish_non_exhaustive()
    }
}

/// The threads that bytes move on. A start that fails drops them where nothing may wait: they are left to end by
/// themselves, and the failure is heard instead of a panic about it.
struct DataPlane(Option<runtime::Runtime>);

impl DataPlane {
    fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread().thread_name("data-plane").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &runtime::Handle {
        self.0.as_ref().expect("there until it is dropped").handle()
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Every connection is a descriptor and a hub has thousands: takes what the system allows at most. The usual soft limit
/// of 1,024 is there for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}

/// What only the embedded log can do is refused rather than left undone.
fn refuse_with_external_log(settings: &Settings) -> Result<()> {
    let is_external = settings.data.log.as_ref().is_some_and(|log| !log.is_empty());
    let retires = settings.access_retention_days > 0 || settings.access_retention_bytes > 0;
    anyhow::ensure!(
        !(is_external && retires),
        "access_retention_days and access_retention_bytes need the embedded event log: with --log nothing is retired \
         yet, so leave them at 0"
    );
    Ok(())
}

/// Binds the address, or a free port of it where the caller allows that.
fn bind(address: SocketAddr, or_free: bool) -> io::Result<TcpListener> {
    match TcpListener::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && or_free => {
            TcpListener::bind(SocketAddr::new(address.ip(), 0))
        }
        bound => bound,
    }
}

impl Hub {
    /// Starts everything. `free_ports`: takes free ports where the wanted ones are in use.
    ///
    /// # Errors
    /// The data directory is in use, the log is damaged, an address cannot be bound.
    pub async fn start(settings: Settings, free_ports: bool) -> Result<Self> {
        Self::start_at(settings, free_ports, Arc::new(SystemClock)).await
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Hub::start`].
    pub async fn start_at(settings: Settings, free_ports: bool, clock: SharedClock) -> Result<Self> {
        let started = Instant::now();
        raise_descriptor_limit();
        // Whoever reads that the hub listens may send a signal at once, and it must drain then.
        let signals = signal(SignalKind::terminate())
            .and_then(|term| Ok((term, signal(SignalKind::interrupt())?)))
            .context("while asking the system for signals")?;
        let tls_plan = Plan::of(&settings)?;
        let issued = tls_plan.acme.as_ref().map(Issued::new);
        let tls = tls_plan.open(issued.as_ref())?;
        plan::warn_of_unnamed(&tls, &settings);
        let settings = Arc::new(settings);
        let data = settings.data.path.clone();
        refuse_with_external_log(&settings)?;
        let core = Arc::new(Core::open_at(&data, settings.data.log.as_ref(), &settings.node, clock).await?);
        let boot = Uuid::now_v7();
        let begun = NodeStarted {
            node: settings.node.clone(),
            boot,
            version: RELEASE.to_owned(),
            reads_format: Some(log_format::NEWEST),
        };
        core.executor
            .node(&settings.node, Who::system("hub"), node::Command::Start(begun))
            .await
            .map_err(|error| anyhow::anyhow!("the start could not be recorded: {error:?}"))?;
        let show = |secret: &Secret| show_admin_key(&data, secret.reveal());
        core.bootstrap(settings.admin_key.as_deref(), show).await?;

        let views = Views::start(&data, &core.log, Arc::clone(&core.routes), core.routes_position)
            .context("while opening the views")?;
        let views = Arc::new(views);
        let keeper = match (tls_plan.acme, issued) {
            (Some(plan), Some(issued)) => {
                Some(Keeper::open(plan, issued, &plan::acme_folder(&data), core.clock.clone())?)
            }
            (_, _) => None,
        };
        let api_listener = bind(settings.listen, free_ports)
            .with_context(|| format!("while binding the API's address {}", settings.listen))?;
        let api_addr = api_listener.local_addr().context("while binding the API's address")?;
        let running = Arc::new(Running::default());
        let limits_file = KeptFile::of(&data);
        let limiter = Arc::new(Limiter::resumed(LIMITER_KEYS_MAX, limits_file.load(), core.clock.now()));
        let draining = Arc::new(AtomicBool::new(false));
        let data_plane = DataPlane::start().context("while starting the data plane's threads")?;
        let creator = Arc::new(Creator::new(
            core.executor.clone(),
            Arc::clone(&core.routes),
            core.clock.clone(),
            port_pool(&core, &settings),
        ));
        let usage = Arc::new(Usage::new(core.clock.clone()));
        let gateway = Gateway::start(gateway::Parts {
            usage: Arc::clone(&usage),
            routes: Arc::clone(&core.routes),
            executor: core.executor.clone(),
            creator: Arc::clone(&creator),
            running: Arc::clone(&running),
            clock: core.clock.clone(),
            node: settings.node.clone(),
            boot,
            hub_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime: data_plane.handle().clone(),
            settings: GatewaySettings {
                open_timeout_ms: settings.open_timeout_ms,
                ..GatewaySettings::default()
            },
        })?;
        let tunnel_ports = TunnelPorts::new(
            gateway.clone(),
            TunnelPortSettings {
                private_address: settings.tunnel_bind,
                public_address: settings.public_tunnel_bind,
                peers: PeerLimits {
                    idle: Duration::from_millis(settings.udp_idle_ms),
                    sessions_max: usize::try_from(settings.udp_sessions_max).unwrap_or(usize::MAX),
                    ..PeerLimits::default()
                },
                ..TunnelPortSettings::default()
            },
        );
        for (tunnel, refusal) in tunnel_ports.sync_all() {
            tracing::warn!(%tunnel, error = %refusal, "a tunnel's port does not listen");
        }

        let recorder = recorder(&core, &settings, boot)?;
        let known_ports: Arc<OnceLock<web::Data<Ports>>> = Arc::default();
        let entrance = if tls_plan.shared.is_some() { Entrance::Shared } else { Entrance::Own };
        let wanted = match entrance {
            Entrance::Shared => api_addr,
            Entrance::Own => free_edge_address(&settings, free_ports)?,
        };
        let deps = EdgeDeps {
            routes: Arc::clone(&core.routes),
            streams: Arc::new(gateway.clone()),
            running: Arc::clone(&running),
            recorder: recorder.clone(),
            limiter: Arc::clone(&limiter),
            clock: core.clock.clone(),
            former: former_shares(views.catalog()),
            public: public::endpoints(Arc::clone(&known_ports)),
        };
        let options =
            EdgeOptions { entrance, tls: tls.edge.clone(), ..edge_options(&settings, &tls, wanted) };
        let edge = edge::start(options, deps).context("while starting the share edge")?;
        let edge_addr = edge.local_addr;
        let shared_base = tls_plan.shared.as_ref().and_then(|names| plan::shared_link_base(names, api_addr));
        let links = Links::new(
            &Tls::shown_url(tls.api.as_ref(), api_addr),
            &Tls::shown_url(tls.edge.as_ref(), edge_addr),
            settings.public_url.as_deref(),
            settings.link_base_url.as_deref().or(shared_base.as_deref()),
            settings.base_domain.as_deref(),
        );
        if edge_addr.ip().is_unspecified() && settings.link_base_url.is_none() {
            tracing::warn!(
                links = links.link_base,
                "links begin with a guess: set link_base_url (--link-base-url) to what visitors use"
            );
        }
        let codes = core.keyring.secret("environment-codes");
        let codes = Codes::new(&codes.context("while making the key of environment codes")?);
        let environments = Arc::new(Environments::new(
            core.executor.clone(),
            Arc::clone(&core.routes),
            gateway.clone(),
            core.clock.clone(),
            codes,
            settings.wrong_codes(),
        ));
        let diagnostics = Arc::new(Kept::new(Arc::clone(&core.routes), core.clock.clone()));
        let health = Arc::new(HealthMonitor::new(
            Arc::clone(&core.routes),
            core.executor.clone(),
            gateway.clone(),
            Arc::clone(&diagnostics),
        ));
        let own = vec![api_addr, edge_addr];
        let webhooks = Arc::new(Webhooks::new(
            webhook_parts(&core, &settings, &views, own)?,
            data_plane.handle().clone(),
        ));
        let ports = web::Data::new(Ports {
            webhooks: Arc::clone(&webhooks),
            deliveries: views.deliveries(),
            environments: Arc::clone(&environments),
            diagnostics,
            former: former_shares(views.catalog()),
            settings: Arc::clone(&settings),
            clock: core.clock.clone(),
            log: core.log.clone(),
            keyring: Arc::clone(&core.keyring),
            routes: Arc::clone(&core.routes),
            executor: core.executor.clone(),
            creator: Arc::clone(&creator),
            gateway: gateway.clone(),
            tunnel_ports: tunnel_ports.clone(),
            running: Arc::clone(&running),
            catalog: views.catalog(),
            accesses: views.accesses(),
            readings: crate::api::access_logs::Readings::default(),
            event_streams: crate::api::events::streaming::Streams::default(),
            views: Arc::clone(&views),
            recorder,
            edge: Arc::clone(&edge.metrics),
            log_stats: Arc::clone(&core.log_stats),
            links,
            tls: tls.clone(),
            metrics: Arc::new(Metrics::new(api::templates())),
            limits: Arc::clone(&limiter),
            started,
            draining,
            last_used: DashMap::new(),
            last_written: DashMap::new(),
            last_seen: DashMap::new(),
            desk: api::Desk::default(),
            devices: api::DeviceLogins::new(settings.device_limits()),
        });

        // Only this start-up sets it.
        let _ = known_ports.set(ports.clone());

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let timekeeper =
            Arc::new(Timekeeper::new(core.executor.clone(), Arc::clone(&core.routes), core.clock.clone()));
        let follower = Follower::new(follower::Parts {
            log: core.log.clone(),
            clock: core.clock.clone(),
            routes: Arc::clone(&core.routes),
            executor: core.executor.clone(),
            creator,
            gateway: gateway.clone(),
            tunnel_ports: tunnel_ports.clone(),
            running,
            timekeeper: Arc::clone(&timekeeper),
            environments,
            health: Arc::clone(&health),
            webhooks: Arc::clone(&webhooks),
        });
        tasks.spawn_on(follower.run(stop.clone()), data_plane.handle());
        tasks.spawn_on(timekeeper.run(stop.clone()), data_plane.handle());
        tasks.spawn_on(limits_file.keep(limiter, stop.clone()), data_plane.handle());
        tasks.spawn_on(health.run(stop.clone()), data_plane.handle());
        tasks.spawn_on(Arc::clone(&webhooks).run(stop.clone()), data_plane.handle());
        let recording = UsageRecorder { usage, log: core.log.clone(), clock: core.clock.clone(), boot };
        tasks.spawn_on(recording.run(stop.clone()), data_plane.handle());
        let keep = Keep { days: settings.access_retention_days, bytes: settings.access_retention_bytes };
        if let Some(segments) = core.segments.clone() {
            let retention = Retention {
                log: core.log.clone(),
                segments,
                views: Arc::clone(&views),
                webhooks: Arc::clone(&webhooks),
                clock: core.clock.clone(),
                keep,
            };
            tasks.spawn_on(retention.run(stop.clone()), data_plane.handle());
        }
        tasks.spawn_on(Upgrade::of(&core).run(stop.clone()), data_plane.handle());
        let certificates = tls.certificates();
        if let Some(keeper) = keeper {
            tasks.spawn_on(keeper.run(stop.clone()), data_plane.handle());
        }
        if !certificates.is_empty() {
            tasks.spawn_on(keep_fresh(certificates, stop.clone()), data_plane.handle());
        }
        match Socket::bind(&data) {
            Ok(socket) => {
                let answers = operator::serve(socket, Arc::clone(&core), stop.clone());
                tasks.spawn_on(answers, data_plane.handle());
            }
            // A hub on a file system without sockets is a hub yet.
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(
                    reason,
                    "no operator's socket: `hub key` and `hub workspace` need the hub stopped"
                );
            }
        }

        // Lists of the first callers should show what there is; views that are far behind catch up in the open.
        let head = *core.log.head().borrow();
        if !ports.views.wait_for_catalog(head, CATCH_UP).await {
            tracing::info!("the views are behind the log and catch up while the hub serves");
        }
        let speech = Speech::of(tls.api.as_ref(), tls_plan.shared, Arc::new(edge.hand_over()));
        let api = serve_api(api_listener, &gateway, &settings, &ports, speech)?;
        Ok(Self {
            core,
            ports,
            api_addr,
            edge_addr,
            tls,
            settings,
            edge,
            tunnel_ports,
            api,
            data_plane,
            tasks,
            stop,
            signals,
        })
    }

    pub fn api_url(&self) -> String {
        Tls::url(self.tls.api.as_ref(), self.api_addr)
    }
    pub fn edge_url(&self) -> String {
        Tls::url(self.tls.edge.as_ref(), self.edge_addr)
    }

    /// Waits for SIGTERM or SIGINT, counted from the start of the hub.
    pub async fn until_signal(&mut self) {
        let (term, int) = &mut self.signals;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }

    /// Drains and stops; see the top of this file for the order.
    pub async fn stop(self) {
        let limit = Duration::from_millis(self.settings.drain_timeout_ms);
        tracing::info!("draining");
        self.ports.draining.store(true, Ordering::SeqCst);
        self.ports.gateway.drain();
        self.tunnel_ports.close();
        // Visitors first: their answers still need the agents.
        self.edge.drain(limit).await;
        self.api.stop(true).await;
        if !self.ports.gateway.stop(limit).await {
            tracing::warn!("some agents' tasks did not end in time");
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!("the follower, the timekeeper or the operator's socket did not end in time");
        }
        self.ports.recorder.close().await;
        self.ports.views.stop().await;
        self.core.close().await;
        drop(self.data_plane);
        tracing::info!("stopped");
    }
}
