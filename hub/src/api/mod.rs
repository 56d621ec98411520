//! The Control API: every URL in one table, what handlers work with, and the middleware that gives every answer its
//! request id and every error the one shape.

pub mod agents;
pub mod body;
pub mod caller;
pub mod error;
pub mod health;
pub mod idempotency;
pub mod keys;
pub mod limit;
pub mod lists;
pub mod present;
pub mod problems;
pub mod public;
pub mod services;
pub mod shares;
pub mod tunnels;

use std::{net::IpAddr, sync::Arc, time::Instant};

use actix_web::{HttpRequest, web};
use dashmap::DashMap;
use domain::{ids::KeyId, time::Timestamp};
use projections::{access_log::AccessLogReader, catalog::CatalogReader, routes::Routes};

use crate::{
    actors::Executor, clock::SharedClock, creation::Creator, edge::recorder::Recorder, event_log::SharedLog,
    gateway::Gateway, keyring::Keyring, links::Links, metrics::Metrics, readers::Views, settings::Settings,
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
    pub running: Arc<crate::running::Running>,
    pub catalog: CatalogReader,
    pub accesses: AccessLogReader,
    pub views: Arc<Views>,
    pub recorder: Recorder,
    pub edge: Arc<crate::edge::metrics::Metrics>,
    pub log_stats: Arc<crate::event_log::segments::LogStats>,
    pub links: Links,
    pub metrics: Arc<Metrics>,
    pub limits: Arc<crate::limits::Limiter>,
    pub started: Instant,
    pub draining: Arc<std::sync::atomic::AtomicBool>,
    /// When each key was used last, as far as this process knows.
    pub last_used: DashMap<KeyId, Timestamp>,
    /// Where each key wrote last: its lists wait for that.
    pub last_written: DashMap<KeyId, u64>,
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
        let forwarded = request.headers().get("x-forwarded-for").and_then(|value| value.to_str().ok());
        Some(caller::peer_behind(peer, forwarded, &self.settings.trusted_proxies))
    }
    pub fn key_used(&self, id: KeyId, now: Timestamp) {
        self.last_used.insert(id, now);
    }
}

/// Every URL of the API except the agents' session, which the gateway adds before these.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        // For orchestrators and dashboards, without credentials.
        .route("/health", web::get().to(health::health))
        .route("/v1/health", web::get().to(health::health))
        .route("/livez", web::get().to(health::livez))
        .route("/readyz", web::get().to(health::readyz))
        .route("/metrics", web::get().to(health::metrics))
        // Workspace and keys.
        .route("/v1/whoami", web::get().to(keys::whoami))
        .route("/v1/workspace", web::get().to(keys::workspace))
        .service(
            web::resource("/v1/api-keys")
                .route(web::get().to(keys::list))
                .route(web::post().to(keys::create)),
        )
        .service(web::resource("/v1/api-keys/{id}").route(web::delete().to(keys::revoke)))
        // Agents.
        .service(web::resource("/v1/agents/register").route(web::post().to(agents::register)))
        .service(web::resource("/v1/agents/provision").route(web::post().to(agents::provision)))
        .service(web::resource("/v1/agents").route(web::get().to(agents::list)))
        .service(web::resource("/v1/agents/online").route(web::get().to(agents::online)))
        .service(
            web::resource("/v1/agents/{id}")
                .route(web::get().to(agents::get))
                .route(web::delete().to(agents::delete)),
        )
        // Tunnels, and the same things as services.
        .service(
            web::resource("/v1/tunnels")
                .route(web::get().to(tunnels::list))
                .route(web::post().to(tunnels::create)),
        )
        .service(
            web::resource("/v1/tunnels/{id}")
                .route(web::get().to(tunnels::get))
                .route(web::patch().to(tunnels::update))
                .route(web::delete().to(tunnels::delete)),
        )
        .service(web::resource("/v1/tunnels/{id}/connect").route(web::post().to(tunnels::connect)))
        .service(web::resource("/v1/tunnels/{id}/share").route(web::post().to(shares::create_for_tunnel)))
        .service(web::resource("/v1/services/register").route(web::post().to(services::register)))
        .service(web::resource("/v1/services").route(web::get().to(tunnels::list)))
        .service(
            web::resource("/v1/services/{id}")
                .route(web::get().to(tunnels::get))
                .route(web::patch().to(tunnels::update))
                .route(web::delete().to(tunnels::delete)),
        )
        .service(
            web::resource("/v1/services/{id}/shares")
                .route(web::get().to(shares::list_of_service))
                .route(web::post().to(shares::create_for_service)),
        )
        .service(web::resource("/v1/services/{id}/check").route(web::post().to(services::check)))
        // Shares.
        .service(web::resource("/v1/shares").route(web::get().to(shares::list)))
        .service(
            web::resource("/v1/shares/{id}")
                .route(web::get().to(shares::get))
                .route(web::delete().to(shares::revoke)),
        )
        .service(web::resource("/v1/shares/{id}/logs").route(web::get().to(shares::logs)))
        .service(web::resource("/v1/shared/{token}/info").route(web::get().to(shares::info)))
        .default_service(web::to(problems::no_such_url));
}
