//! The Control API: every URL in one table with its description, what handlers work with, and the middleware that gives
//! every answer its request id and every error the one shape.

pub mod access_logs;
pub mod agent_audit;
pub mod agent_capabilities;
pub mod agent_commands;
pub mod agent_messages;
pub mod agent_upkeep;
pub mod agents;
pub mod audit;
pub mod body;
pub mod caller;
pub mod describe;
pub mod described;
pub mod desk;
pub mod device;
pub mod docs;
pub mod environments;
pub mod erasure;
pub mod error;
pub mod events;
pub mod health;
pub mod history;
pub mod idempotency;
pub mod keys;
pub mod limit;
pub mod lists;
pub mod misdirected;
pub mod present;
pub mod problems;
pub mod public;
pub mod service_health;
pub mod service_subdomain;
pub mod services;
pub mod shares;
pub mod status;
pub mod tunnels;
pub mod url;
pub mod webhooks;

use std::{net::IpAddr, sync::Arc, time::Instant};

use actix_web::{HttpRequest, web};
use dashmap::DashMap;
use domain::{
    ids::{AgentId, KeyId},
    time::Timestamp,
};
use projections::{
    access_log::AccessLogReader, catalog::CatalogReader, deliveries::DeliveriesReader, routes::Routes,
};

pub use self::desk::Desk;
pub use crate::device_login::DeviceLogins;

use self::url::{Described, Url};
use crate::{
    actors::Executor,
    clock::SharedClock,
    creation::Creator,
    edge::{FormerShares, recorder::Recorder},
    event_log::SharedLog,
    gateway::Gateway,
    keyring::Keyring,
    links::Links,
    metrics::{Metrics, api::RouteNumber},
    readers::Views,
    settings::Settings,
    tunnel_ports::TunnelPorts,
};

/// What handlers work with. One for the whole API, shared by its threads.
pub struct Ports {
    pub settings: Arc<Settings>,
    pub clock: SharedClock,
    pub log: SharedLog,
    pub keyring: Arc<Keyring>,
    pub routes: Arc<Routes>,
    pub executor: Executor,
    pub creator: Arc<Creator>,
    pub gateway: Gateway,
    pub environments: Arc<crate::environments::Environments>,
    pub diagnostics: Arc<crate::diagnostics::Kept>,
    pub webhooks: Arc<crate::webhooks::Webhooks>,
    pub deliveries: DeliveriesReader,
    pub tunnel_ports: TunnelPorts,
    pub running: Arc<crate::running::Running>,
    /// Shares that `Routes` has forgotten, by their tokens.
    pub former: FormerShares,
    pub catalog: CatalogReader,
    pub accesses: AccessLogReader,
    pub readings: access_logs::Readings,
    pub event_streams: events::streaming::Streams,
    pub views: Arc<Views>,
    pub recorder: Recorder,
    pub edge: Arc<crate::edge::metrics::Metrics>,
    pub log_stats: Arc<crate::event_log::segments::LogStats>,
    pub links: Links,
    pub tls: crate::tls::Tls,
    pub metrics: Arc<Metrics>,
    pub limits: Arc<crate::limits::Limiter>,
    pub started: Instant,
    pub draining: Arc<std::sync::atomic::AtomicBool>,
    /// When each key was used last, as far as this process knows.
    pub last_used: DashMap<KeyId, Timestamp>,
    /// Where each key wrote last: its lists wait for that.
    pub last_written: DashMap<KeyId, u64>,
    /// When each agent said that it lives, by a heartbeat, as far as this process knows.
    pub last_seen: DashMap<AgentId, Timestamp>,
    pub desk: Desk,
    /// Machines that wait for a key.
    pub devices: DeviceLogins,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

impl Ports {
    /// The address that a request really comes from.
    pub fn peer_of(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip();
        // A proxy may add a line of its own below the one that the client sent.
        let lines = request.headers().get_all("x-forwarded-for");
        let forwarded: Vec<&str> = lines.map(|value| value.to_str().unwrap_or_default()).collect();
        Some(caller::peer_behind(peer, &forwarded, &self.settings.trusted_proxies))
    }
    pub fn key_used(&self, id: KeyId, now: Timestamp) {
        self.last_used.insert(id, now);
    }
}

/// Every URL of the API except the agents' session, which the gateway adds before these. A method stands beside its
/// description (see CONTRIBUTING.md for a new one).
fn urls() -> Vec<Url> {
    use described as d;
    vec![
        // For orchestrators and dashboards, without credentials.
        Url::at("/health").get(health::health, d::health::short()),
        Url::at("/v1/health").get(health::health, d::health::health()),
        Url::at("/livez").get(health::livez, d::health::livez()),
        Url::at("/readyz").get(health::readyz, d::health::readyz()),
        Url::at("/metrics").get(health::metrics, d::health::metrics()),
        // The description of all this.
        Url::at("/openapi.json").get(docs::document, d::docs::document()),
        Url::at("/docs").get(docs::page, d::docs::page()),
        Url::at("/docs/{file}").get(docs::file, d::docs::file()),
        // Workspace and keys.
        Url::at("/v1/whoami").get(keys::whoami, d::keys::whoami()),
        Url::at("/v1/workspace").get(keys::workspace, d::keys::workspace()),
        Url::at("/v1/api-keys").get(keys::list, d::keys::list()).post(keys::create, d::keys::create()),
        Url::at("/v1/api-keys/{id}").delete(keys::revoke, d::keys::revoke()),
        // Agents.
        Url::at("/v1/agents/register").post(agents::register, d::agents::register()),
        Url::at("/v1/agents/provision").post(agents::provision, d::agents::provision()),
        Url::at("/v1/agents").get(agents::list, d::agents::list()),
        Url::at("/v1/agents/online").get(agents::online, d::agents::online()),
        // What agents need to live, say and do; before the URL that takes any id.
        Url::at("/v1/agents/rotate-token").post(agent_upkeep::rotate_token, d::agent_upkeep::rotate_token()),
        Url::at("/v1/agents/heartbeat").post(agent_upkeep::heartbeat, d::agent_upkeep::heartbeat()),
        Url::at("/v1/agents/by-capability/{capability}")
            .get(agent_capabilities::offering, d::agent_upkeep::offering()),
        Url::at("/v1/agents/{id}")
            .get(agents::get, d::agents::get())
            .delete(agents::delete, d::agents::delete()),
        Url::at("/v1/agents/{id}/capabilities")
            .post(agent_capabilities::set, d::agent_upkeep::set_capabilities()),
        Url::at("/v1/agents/{id}/audit-logs").get(agent_audit::list, d::agent_upkeep::audit_logs()),
        Url::at("/v1/agents/{id}/command").post(agent_commands::send, d::agent_commands::send()),
        Url::at("/v1/agents/{id}/commands").get(agent_commands::list, d::agent_commands::list()),
        Url::at("/v1/agents/{id}/commands/{command}").get(agent_commands::get, d::agent_commands::get()),
        Url::at("/v1/agents/{id}/messages").get(agent_messages::list, d::agent_messages::list()),
        Url::at("/v1/agents/{id}/messages/send").post(agent_messages::send, d::agent_messages::send()),
        Url::at("/v1/agents/{id}/messages/broadcast")
            .post(agent_messages::broadcast, d::agent_messages::broadcast()),
        Url::at("/v1/agents/{id}/messages/read")
            .post(agent_messages::mark_read, d::agent_messages::mark_read()),
        // Device login.
        Url::at("/v1/device/code").post(device::start, d::device::start()),
        Url::at("/v1/device/token").get(device::token, d::device::token()),
        Url::at("/v1/device/approve").post(device::approve, d::device::approve()),
        Url::at("/v1/device/deny").post(device::deny, d::device::deny()),
        Url::at("/device")
            .get(device::page, d::device::page())
            .post(device::page_decision, d::device::page_decision()),
        // Tunnels, and the same things as services.
        Url::at("/v1/tunnels")
            .get(tunnels::list, d::tunnels::list())
            .post(tunnels::create, d::tunnels::create()),
        Url::at("/v1/tunnels/{id}")
            .get(tunnels::get, d::tunnels::get())
            .patch(tunnels::update, d::tunnels::update())
            .delete(tunnels::delete, d::tunnels::delete()),
        Url::at("/v1/tunnels/{id}/connect").post(tunnels::connect, d::tunnels::connect()),
        Url::at("/v1/tunnels/{id}/share").post(shares::create_for_tunnel, d::shares::create_for_tunnel()),
        Url::at("/v1/services/register").post(services::register, d::services::register()),
        Url::at("/v1/services").get(tunnels::list, d::services::list()),
        Url::at("/v1/services/{id}")
            .get(tunnels::get, d::services::get())
            .patch(tunnels::update, d::services::update())
            .delete(tunnels::delete, d::services::delete()),
        Url::at("/v1/services/{id}/shares")
            .get(shares::list_of_service, d::shares::list_of_service())
            .post(shares::create_for_service, d::shares::create_for_service()),
        Url::at("/v1/services/{id}/check").post(services::check, d::services::check()),
        Url::at("/v1/services/{id}/subdomain").patch(service_subdomain::set, d::service_subdomain::set()),
        Url::at("/v1/services/{id}/subdomain/check")
            .get(service_subdomain::check, d::service_subdomain::check()),
        Url::at("/v1/services/{id}/reach").post(service_health::reach, d::service_health::reach()),
        Url::at("/v1/services/{id}/diagnostics")
            .get(service_health::diagnostics, d::service_health::diagnostics()),
        Url::at("/v1/services/{id}/health-config")
            .patch(service_health::configure, d::service_health::configure()),
        // Environment shares.
        Url::at("/v1/env-shares")
            .get(environments::list, d::environments::list())
            .post(environments::create, d::environments::create()),
        Url::at("/v1/env-shares/{code}")
            .get(environments::get, d::environments::get())
            .delete(environments::revoke, d::environments::revoke()),
        Url::at("/v1/env-shares/{code}/join").post(environments::join, d::environments::join()),
        Url::at("/v1/env-shares/{code}/pending").get(environments::pending, d::environments::pending()),
        Url::at("/v1/env-shares/{code}/approve").post(environments::approve, d::environments::approve()),
        Url::at("/v1/env-shares/{code}/deny").post(environments::deny, d::environments::deny()),
        Url::at("/v1/teammates").get(environments::teammates, d::environments::teammates()),
        Url::at("/v1/status").get(status::status, d::status::status()),
        // Shares.
        Url::at("/v1/shares").get(shares::list, d::shares::list()),
        Url::at("/v1/shares/{id}")
            .get(shares::get, d::shares::get())
            .delete(shares::revoke, d::shares::revoke()),
        Url::at("/v1/shares/{id}/logs").get(access_logs::list, d::access_logs::list()),
        Url::at("/v1/shares/{id}/logs/stats").get(access_logs::stats, d::access_logs::stats()),
        Url::at("/v1/shares/{id}/logs/export").get(access_logs::export, d::access_logs::export()),
        // What was recorded.
        Url::at("/v1/audit").get(audit::list, d::audit::list()),
        Url::at("/v1/audit/stats").get(audit::stats, d::audit::stats()),
        Url::at("/v1/audit/erase").post(erasure::of_workspace, d::audit::erase()),
        Url::at("/v1/shares/{id}/logs/erase").post(erasure::of_share, d::audit::erase_of_share()),
        Url::at("/v1/audit/agents/{id}").get(audit::of_agent, d::audit::of_agent()),
        Url::at("/v1/audit/tunnels/{id}").get(audit::of_tunnel, d::audit::of_tunnel()),
        Url::at("/v1/audit/shares/{id}").get(audit::of_share, d::audit::of_share()),
        Url::at("/v1/events").get(events::page, d::events::page()),
        Url::at("/v1/events/export").get(events::export, d::events::export()),
        Url::at("/v1/events/stream").get(events::streaming::stream, d::events::stream()),
        Url::at("/v1/shared/{token}/info").get(shares::info, d::shares::info()),
        // Webhooks; the types of events before the URL that takes any id.
        Url::at("/v1/webhooks")
            .get(webhooks::list, d::webhooks::list())
            .post(webhooks::create, d::webhooks::create()),
        Url::at("/v1/webhooks/events").get(webhooks::types, d::webhooks::types()),
        Url::at("/v1/webhooks/{id}")
            .get(webhooks::get, d::webhooks::get())
            .patch(webhooks::update, d::webhooks::update())
            .delete(webhooks::delete, d::webhooks::delete()),
        Url::at("/v1/webhooks/{id}/rotate-secret")
            .post(webhooks::rotate_secret, d::webhooks::rotate_secret()),
        Url::at("/v1/webhooks/{id}/test").post(webhooks::test, d::webhooks::test()),
        Url::at("/v1/webhooks/{id}/replay").post(webhooks::replay, d::webhooks::replay()),
        Url::at("/v1/webhooks/{id}/deliveries").get(webhooks::deliveries, d::webhooks::deliveries()),
        Url::at("/v1/webhooks/{id}/deliveries/{delivery}").get(webhooks::delivery, d::webhooks::delivery()),
        Url::at("/v1/webhooks/{id}/deliveries/{delivery}/redeliver")
            .post(webhooks::redeliver, d::webhooks::redeliver()),
    ]
}

/// What each method of each URL says of itself, in the order of the table.
pub fn table() -> Vec<Described> {
    urls().into_iter().flat_map(Url::described).collect()
}

/// The paths of all URLs with the names of their parts, in the order of their numbers.
pub fn templates() -> Vec<&'static str> {
    urls().iter().map(Url::template).collect()
}

/// Serves every URL of the table and nothing else.
pub fn routes(config: &mut web::ServiceConfig) {
    for (number, url) in urls().into_iter().enumerate() {
        config.service(url.finish(RouteNumber(number)));
    }
    config.default_service(web::to(problems::no_such_url));
}
