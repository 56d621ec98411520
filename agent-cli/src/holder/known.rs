//! The keys of services that this machine has reached, kept in the config beside its own.

use parking_lot::Mutex;
use wire::sealed::{PublicKey, handshake::Identity};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use crate::{
    agent::trust::{InMemory, KnownServices, Verdict, judge},
    settings::config_file::ConfigFile,
};

/// Pins in the config; without one, for as long as the process runs.
#[derive(Debug)]
pub(super) struct Pinned {
    config: Option<ConfigFile>,
    hub: String,
    met: Mutex<InMemory>,
}

impl Pinned {
    pub(super) fn new(config: Option<ConfigFile>, hub: String) -> Self {
        Self { config, hub, met: Mutex::default() }
    }
}

impl KnownServices for Pinned {
    fn judge(&self, service: &str, key: &PublicKey) -> Verdict {
        let Some(config) = &self.config else { return self.met.lock().judge(service, key) };
        // Read each time: another process may have pinned it, or its owner changed it. Handshakes are rare.
        let pinned = match config.read() {
            Ok(config) => config.hubs.get(&self.hub).and_then(|hub| hub.known_services.get(service)).cloned(),
            // What cannot be read cannot vouch for a key; what was met since the start still does.
            Err(_) => None,
        };
        if let Some(pinned) = pinned {
            return judge(&pinned, key);
        }
        let met = self.met.lock().judge(service, key);
        if met == Verdict::Trusted {
            let (config, hub) = (config.clone(), self.hub.clone());
            let (service, fingerprint) = (service.to_owned(), key.fingerprint());
            tokio::spawn(async move {
                let pinning = config.change(|config| {
                    let known = &mut config.hubs.entry(hub).or_default().known_services;
                    known.entry(service).or_insert(fingerprint);
                });
                if let Err(failure) = pinning.await {
                    tracing::warn!(failure = failure.message, "a service's key could not be pinned");
                }
            });
        }
        met
    }
}

/// This machine's key at a hub: the saved one, or a new one that is saved now.
pub(crate) async fn identity(config: Option<&ConfigFile>, hub: &str) -> Identity {
    let Some(config) = config else { return Identity::generate() };
    let fresh = Identity::generate();
    let mut kept = None;
    // One that cannot be saved is good for this run: others will notice the next one.
    let _ = config
        .change(|config| {
            let saved = config.hubs.entry(hub.to_owned()).or_default();
            kept = saved.seal_key.as_deref().and_then(read_key);
            if kept.is_none() {
                saved.seal_key = Some(STANDARD_NO_PAD.encode(fresh.to_bytes()));
            }
        })
        .await;
    kept.unwrap_or(fresh)
}

/// A key as the config has it.
pub(crate) fn read_key(text: &str) -> Option<Identity> {
    let bytes = STANDARD_NO_PAD.decode(text).ok()?;
    Some(Identity::from_bytes(bytes.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_made_once_and_a_services_key_is_pinned_across_processes() {
        let folder = tempfile::tempdir().unwrap();
        let config = ConfigFile::at_home(folder.path());
        let own = identity(Some(&config), "http://hub").await;
        assert_eq!(identity(Some(&config), "http://hub").await.public(), own.public());
        assert_ne!(identity(Some(&config), "http://other").await.public(), own.public());

        let pinned = || Pinned::new(Some(config.clone()), "http://hub".to_owned());
        let (first, second) = (PublicKey([1; 32]), PublicKey([2; 32]));
        assert_eq!(pinned().judge("db", &first), Verdict::Trusted);
        let saved = async {
            while !config.read().unwrap().hubs["http://hub"].known_services.contains_key("db") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), saved).await.unwrap();
        assert_eq!(pinned().judge("db", &second), Verdict::Changed { pinned: first.fingerprint() });
        assert_eq!(pinned().judge("db", &first), Verdict::Trusted);
    }
}
