//! The parts of a start that stand for themselves: what settings mean for the edge, the recorder, ports and the API.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use actix_web::{App, middleware::from_fn, web};
use anyhow::{Context as _, Result};
use domain::claim::ClaimKind;
use uuid::Uuid;
use wire::tls::trust::Trust;

use super::bind;
use crate::{
    api::{self, Ports, body::BODY_BYTES_MAX, misdirected, problems},
    core::Core,
    creation::PortPool,
    edge::{
        EdgeOptions,
        recorder::{Recorder, RecorderDeps, RecorderOptions},
    },
    environments::Codes,
    gateway::{
        self, Gateway,
        acceptor::{self, AcceptorSettings, Speech},
    },
    readers::Views,
    settings::Settings,
    tls::Tls,
    webhooks::{
        self,
        behind::Index,
        message::Messages,
        sending::{Network, Reach},
        signature::Secrets,
    },
};

/// The edge shares its port among its own threads (SO_REUSEPORT), so another process on it would not be noticed by its
/// own bind: this one notices.
pub(super) fn free_edge_address(settings: &Settings, free_ports: bool) -> Result<SocketAddr> {
    bind(settings.edge_listen, free_ports)
        .and_then(|probe| probe.local_addr())
        .with_context(|| format!("while binding the edge's address {}", settings.edge_listen))
}

pub(super) fn edge_options(settings: &Settings, tls: &Tls, listen: SocketAddr) -> EdgeOptions {
    // A proxy in front may speak another scheme than the listener.
    let named = settings.link_base_url.as_deref().and_then(|url| url.split_once("://"));
    EdgeOptions {
        listen,
        head_timeout_ms: settings.head_timeout_ms,
        visitor_stall_ms: settings.visitor_stall_ms,
        upstream_timeout_ms: settings.upstream_timeout_ms,
        agent_wait_ms: settings.agent_wait_ms,
        body_bytes_max: settings.body_bytes_max,
        base_domain: settings.base_domain.clone(),
        scheme: named.map_or(Tls::scheme(tls.edge.as_ref()), |(scheme, _)| scheme).to_owned(),
        trusted_proxies: settings.trusted_proxies.clone(),
        banner: settings.banner.is_on(),
        access_log: settings.access_log,
        limit_share_per_min: settings.limit_share_per_min,
        limit_public_per_min: settings.limit_public_per_min,
        ..EdgeOptions::default()
    }
}

pub(super) fn recorder(core: &Core, settings: &Settings, boot: Uuid) -> Result<Recorder> {
    let keyring = Arc::clone(&core.keyring);
    // Gathered for an eighth of the time, or three eighths where many come: the rest is for sealing, writing and syncing,
    // and for a machine whose processors are busy with other work.
    let gather_ms = (settings.access_flush_ms / 8).max(1);
    let options = RecorderOptions { access_flush_ms: gather_ms, ..RecorderOptions::default() };
    let deps = RecorderDeps {
        log: core.log.clone(),
        sealer: Arc::new(move |workspace, share, at, plain| {
            keyring.seal_personal(workspace, Some(share), at, plain).map_err(|error| error.to_string())
        }),
        clock: core.clock.clone(),
        boot,
    };
    Recorder::start(options, deps).context("while starting the access recorder")
}

/// What couriers work with. `own`: where the hub listens itself.
pub(super) fn webhook_parts(
    core: &Core,
    settings: &Settings,
    views: &Views,
    own: Vec<SocketAddr>,
) -> Result<webhooks::Parts> {
    let secret = |name| core.keyring.secret(name).with_context(|| format!("while making the key of {name}"));
    let trust = settings.webhook_ca.clone().map_or(Trust::System, Trust::File);
    let reach = Reach { allowed: settings.webhook_allow.clone(), own };
    Ok(webhooks::Parts {
        log: core.log.clone(),
        clock: core.clock.clone(),
        routes: Arc::clone(&core.routes),
        executor: core.executor.clone(),
        messages: Messages {
            log: core.log.clone(),
            keyring: Arc::clone(&core.keyring),
            codes: Codes::new(&secret("environment-codes")?),
        },
        secrets: Secrets::new(&secret("webhook-secrets")?),
        post: Box::new(Network::new(reach, &trust)),
        schedule: settings.webhook_retry_schedule.clone(),
        index: Some(Index { audit: views.audit(), audited: views.audited() }),
        counts: webhooks::counts::Counts::default(),
    })
}

pub(super) fn port_pool(core: &Core, settings: &Settings) -> PortPool {
    let claims = core.routes.all_claims();
    let taken = claims.iter().filter_map(|(_, entry)| {
        entry.state.holder().filter(|held| held.kind == ClaimKind::TunnelPort)?.key.parse().ok()
    });
    PortPool::new(settings.tunnel_ports.clone(), settings.tunnel_bind, taken)
}

pub(super) fn serve_api(
    listener: TcpListener,
    gateway: &Gateway,
    settings: &Settings,
    ports: &web::Data<Ports>,
    speech: Speech,
) -> Result<actix_server::ServerHandle> {
    let limits =
        AcceptorSettings { head_timeout_ms: settings.head_timeout_ms, ..AcceptorSettings::default() };
    let (ports, sessions) = (ports.clone(), gateway.clone());
    let app = move || {
        App::new()
            .app_data(ports.clone())
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .wrap(from_fn(misdirected::refuse))
            .wrap(from_fn(problems::around))
            .configure(gateway::session::configure(sessions.clone()))
            .configure(api::routes)
    };
    let (_, server) = acceptor::serve(listener, gateway.clone(), &limits, speech, app)
        .context("while starting the API's threads")?;
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(handle)
}

/// Shows the first admin key once: on a terminal, or in a file that only the hub's user reads.
pub(super) fn show_admin_key(data: &Path, secret: &str) -> Result<()> {
    use std::{
        io::{IsTerminal as _, Write as _},
        os::unix::fs::OpenOptionsExt as _,
    };
    if io::stderr().is_terminal() {
        let mut err = io::stderr().lock();
        return writeln!(err, "admin key (shown once): {secret}").context("while showing the admin key");
    }
    let path = data.join("admin.key");
    let writing = || format!("while writing {}", path.display());
    // Whatever lies there, a link or a file that others may read: the key goes into a file of its own.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(writing),
        Ok(()) | Err(_) => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(writing)?;
    writeln!(file, "{secret}").and_then(|()| file.sync_all()).with_context(writing)?;
    tracing::info!("the admin key is in {}", path.display());
    Ok(())
}
