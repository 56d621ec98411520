//! Certificates from an ACME authority (RFC 8555), proven by TLS-ALPN-01 (RFC 8737): the authority asks the hub's own
//! TLS listener, so no third port has to be open (docs/adr/0008).

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, Result, ensure};
use arc_swap::ArcSwapOption;
use parking_lot::RwLock;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::ClientHello,
    sign::CertifiedKey,
};
use wire::tls::provider;

use super::certificates::Shown;
use crate::settings::Settings;

mod authority;
mod directory;
pub mod keeper;
mod store;

/// The protocol by which an authority asks.
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// What the settings ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmePlan {
    /// Lower case, each once, at least one.
    pub domains: Vec<String>,
    pub email: Option<String>,
    pub directory: String,
    /// The authority of the directory's own certificate.
    pub ca: Option<PathBuf>,
}

impl AcmePlan {
    /// # Errors
    /// A directory in the clear, or a name that no authority certifies.
    pub fn of(settings: &Settings) -> Result<Option<Self>> {
        let mut domains = settings.tls_acme_domains.clone();
        domains.sort();
        domains.dedup();
        if domains.is_empty() {
            let (email, ca) = (&settings.tls_acme_email, &settings.tls_acme_ca);
            ensure!(
                email.is_none() && ca.is_none(),
                "--tls-acme-email and --tls-acme-ca say nothing without --tls-acme-domains: which names are wanted?"
            );
            return Ok(None);
        }
        for domain in &domains {
            ensure!(
                domain.contains('.') && domain.parse::<std::net::IpAddr>().is_err(),
                "--tls-acme-domains: no authority certifies `{domain}`; it takes public host names"
            );
        }
        let directory = settings.tls_acme_directory.clone();
        ensure!(directory.starts_with("https://"), "--tls-acme-directory must begin with https://");
        let (email, ca) = (settings.tls_acme_email.clone(), settings.tls_acme_ca.clone());
        Ok(Some(Self { domains, email, directory, ca }))
    }
}

/// What the authority has given, and what it is asking.
#[derive(Debug)]
pub struct Issued {
    domains: Vec<String>,
    shown: ArcSwapOption<Shown>,
    /// The last try to get one failed.
    failing: AtomicBool,
    /// By name.
    challenges: RwLock<BTreeMap<String, Arc<CertifiedKey>>>,
}

impl Issued {
    pub fn new(plan: &AcmePlan) -> Arc<Self> {
        Arc::new(Self {
            domains: plan.domains.clone(),
            shown: ArcSwapOption::empty(),
            failing: AtomicBool::new(false),
            challenges: RwLock::default(),
        })
    }

    /// The certificate, once there is one.
    pub fn shown(&self) -> Option<Arc<Shown>> {
        self.shown.load_full()
    }

    /// Whether a name is one of those that were asked for.
    pub fn covers(&self, name: &str) -> bool {
        self.domains.iter().any(|domain| domain == name)
    }

    /// The answer to the authority about a name.
    pub fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.challenges.read().get(name).cloned()
    }

    /// Whether the last try to get a certificate failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// From now on shows who asks about a name what only the owner of the account can show (RFC 8737, section 3).
    pub(super) fn prove(&self, name: &str, digest: &[u8]) -> Result<()> {
        let proof = || -> Result<CertifiedKey> {
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
            let key = KeyPair::generate()?;
            let chain = vec![params.self_signed(&key)?.der().clone()];
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            // Not `from_der`: it wants to understand the certificate, and this one is for authorities alone.
            Ok(CertifiedKey::new(chain, provider().key_provider.load_private_key(key)?))
        };
        let proof = proof().context("while making a proof")?;
        self.challenges.write().insert(name.to_owned(), Arc::new(proof));
        Ok(())
    }

    fn forget_proofs(&self) {
        self.challenges.write().clear();
    }

    pub(super) fn show(&self, shown: Shown) {
        self.shown.store(Some(Arc::new(shown)));
    }
}

/// Whether it is an authority that asks.
pub fn is_challenge(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME_TLS))
}
