//! TLS of the hub's two listeners: what may listen without it, which certificate is shown, and who speaks to whom.
//!
//! Reading order: [`plan`] (what the settings ask for, and what is refused), [`certificates`] (files that are read again
//! when they change), [`plain`] (who speaks HTTP where TLS is spoken),
//! [`hello`] (one port for both listeners), [`acme`] (certificates from an authority).
//! Invariants: a hub with TLS never answers in the clear more than that it wants TLS; a certificate that cannot be used
//! never takes the place of one that can; a name that somebody asks for decides which certificate he sees and nothing
//! else, so that no link can be found by trying names.

pub mod acme;
pub mod certificates;
pub mod hello;
pub mod plain;
pub mod plan;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rustls::ServerConfig;
use wire::tls::{AGENT, HTTP_2, HTTP_11, VERSIONS, provider, validity::first_host};

use acme::ACME_TLS;
use certificates::Certificates;

/// What the API's listener offers: agents' connections, and HTTP for everybody else.
pub const API_PROTOCOLS: &[&[u8]] = &[AGENT, HTTP_11];
/// What the edge's listener offers visitors, the dearest first.
pub const EDGE_PROTOCOLS: &[&[u8]] = &[HTTP_2, HTTP_11];

/// A listener that speaks TLS.
#[derive(Debug)]
pub struct Speaker {
    pub certificates: Arc<Certificates>,
    pub config: Arc<ServerConfig>,
    /// Connections that never became encrypted ones.
    pub failures: AtomicU64,
}

impl Speaker {
    /// # Errors
    /// The system's random source gives nothing.
    pub fn new(certificates: Arc<Certificates>, protocols: &[&[u8]]) -> Result<Arc<Self>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        if certificates.answers_acme() {
            config.alpn_protocols.push(ACME_TLS.to_vec());
        }
        // Agents open many connections: with tickets a later one costs neither signature nor memory here.
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        Ok(Arc::new(Self { certificates, config: Arc::new(config), failures: AtomicU64::new(0) }))
    }

    /// Counts a connection that never became an encrypted one.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }
}

/// The listeners that speak TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub api: Option<Arc<Speaker>>,
    pub edge: Option<Arc<Speaker>>,
}

impl Tls {
    /// By the names that metrics have for them.
    pub fn speakers(&self) -> impl Iterator<Item = (&'static str, &Arc<Speaker>)> {
        [("api", &self.api), ("edge", &self.edge)]
            .into_iter()
            .filter_map(|(name, it)| Some((name, it.as_ref()?)))
    }

    /// The certificates of all listeners, each once.
    pub fn certificates(&self) -> Vec<Arc<Certificates>> {
        let mut all: Vec<Arc<Certificates>> = Vec::new();
        for (_, speaker) in self.speakers() {
            if !all.iter().any(|known| Arc::ptr_eq(known, &speaker.certificates)) {
                all.push(Arc::clone(&speaker.certificates));
            }
        }
        all
    }

    /// How a listener's URLs begin.
    pub fn scheme(speaker: Option<&Arc<Speaker>>) -> &'static str {
        if speaker.is_some() { "https" } else { "http" }
    }

    /// A listener's own URL.
    pub fn url(speaker: Option<&Arc<Speaker>>, address: SocketAddr) -> String {
        format!("{}://{address}", Self::scheme(speaker))
    }

    /// The same for others, as far as the hub knows: where it listens on all addresses, the first name of its certificate,
    /// or `localhost`.
    pub fn shown_url(speaker: Option<&Arc<Speaker>>, address: SocketAddr) -> String {
        if !address.ip().is_unspecified() {
            return Self::url(speaker, address);
        }
        let shown = speaker.and_then(|speaker| speaker.certificates.shown());
        let certificate = shown.as_ref().and_then(|shown| shown.key.cert.first());
        let host = certificate.and_then(|der| first_host(der)).unwrap_or_else(|| "localhost".to_owned());
        format!("{}://{host}:{}", Self::scheme(speaker), address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_on_all_addresses_shows_one_that_can_be_asked_for() {
        let shown = |address: &str| Tls::shown_url(None, address.parse().unwrap());
        assert_eq!(shown("127.0.0.1:7080"), "http://127.0.0.1:7080");
        assert_eq!(shown("0.0.0.0:7080"), "http://localhost:7080");
        assert_eq!(shown("[::]:7080"), "http://localhost:7080");
    }
}
