//! What the settings ask of TLS, and what is refused before anything listens.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    API_PROTOCOLS, EDGE_PROTOCOLS, Speaker, Tls,
    acme::{AcmePlan, Issued},
    certificates::{Certificates, PairFiles},
    hello::EdgeNames,
};
use crate::settings::Settings;

/// What the settings ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub api: Option<PairFiles>,
    /// Only where the edge has a pair of its own.
    pub edge: Option<PairFiles>,
    pub acme: Option<AcmePlan>,
    /// Where both listeners share one address: what tells them apart.
    pub shared: Option<EdgeNames>,
}

impl Plan {
    /// Reads the settings.
    ///
    /// # Errors
    /// Half a pair; a listener beyond this machine without TLS; one address for both listeners that nothing can tell
    /// apart. Each says what to do.
    pub fn of(settings: &Settings) -> Result<Self> {
        let plan = Self {
            api: pair("tls", settings.tls_cert.as_ref(), settings.tls_key.as_ref())?,
            edge: pair("edge-tls", settings.edge_tls_cert.as_ref(), settings.edge_tls_key.as_ref())?,
            acme: AcmePlan::of(settings)?,
            shared: shared(settings)?,
        };
        ensure!(
            plan.shared.is_none() || plan.has_api_tls(),
            "one address for API and edge needs TLS, since the name that a client asks for tells them apart: \
             set --tls-cert and --tls-key, or give --edge-listen another port"
        );
        for (what, flag, address, has_tls) in [
            ("the API", "--listen", settings.listen, plan.has_api_tls()),
            ("the edge", "--edge-listen", settings.edge_listen, plan.has_edge_tls()),
        ] {
            if !has_tls {
                judge(what, flag, address, settings)?;
            }
        }
        Ok(plan)
    }

    fn has_api_tls(&self) -> bool {
        self.api.is_some() || self.acme.is_some()
    }

    fn has_edge_tls(&self) -> bool {
        self.has_api_tls() || self.edge.is_some()
    }

    /// Reads the certificates.
    ///
    /// # Errors
    /// A pair that cannot be used.
    pub fn open(&self, issued: Option<&Arc<Issued>>) -> Result<Tls> {
        let speaker =
            |certificates, protocols| Speaker::new(certificates, protocols).context("while starting TLS");
        let open = |files: &PairFiles| {
            Certificates::open(Some(files.clone()), issued.cloned())
                .context("while reading a TLS certificate")
        };
        let api = match &self.api {
            Some(files) => Some(open(files)?),
            None if self.acme.is_some() => {
                Some(Certificates::open(None, issued.cloned()).context("while starting TLS")?)
            }
            None => None,
        };
        let edge = match &self.edge {
            Some(files) => Some(open(files)?),
            None => api.clone(),
        };
        Ok(Tls {
            api: api.map(|certificates| speaker(certificates, API_PROTOCOLS)).transpose()?,
            edge: edge.map(|certificates| speaker(certificates, EDGE_PROTOCOLS)).transpose()?,
        })
    }
}

fn pair(flags: &str, cert: Option<&PathBuf>, key: Option<&PathBuf>) -> Result<Option<PairFiles>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(PairFiles { cert: cert.clone(), key: key.clone() })),
        (None, None) => Ok(None),
        (Some(_), None) => bail!("--{flags}-cert is set without --{flags}-key: a certificate needs its key"),
        (None, Some(_)) => bail!("--{flags}-key is set without --{flags}-cert: a key needs its certificate"),
    }
}

/// Keys, tokens and what is shared would be readable on the way.
fn judge(what: &str, flag: &str, address: SocketAddr, settings: &Settings) -> Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    if settings.insecure_public.is_on() {
        tracing::warn!("{what} listens on {address} without TLS: keys and links can be read on the way");
        return Ok(());
    }
    bail!(
        "{what} would listen on {address} without TLS, so that keys and links could be read on the way. Either\n  \
         set --tls-cert and --tls-key (HUB_TLS_CERT, HUB_TLS_KEY), or --tls-acme-domains; or\n  \
         let it listen on this machine only ({flag} 127.0.0.1:{port}) and put a proxy with TLS in front; or\n  \
         say --insecure-public (HUB_INSECURE_PUBLIC=on) to do it all the same",
        port = address.port()
    )
}

fn shared(settings: &Settings) -> Result<Option<EdgeNames>> {
    // Port 0 twice is two free ports.
    if settings.listen != settings.edge_listen || settings.listen.port() == 0 {
        return Ok(None);
    }
    let names = EdgeNames {
        api: settings.public_url.as_deref().and_then(host_of),
        links: settings.link_base_url.as_deref().and_then(host_of),
        base_domain: settings.base_domain.clone(),
    };
    let has_links = names.links.is_some() || names.base_domain.is_some();
    ensure!(
        has_links && names.links_are_apart(),
        "one address for API and edge needs a host name for links that is not the API's: \
         set --base-domain, or --link-base-url with another host than --public-url"
    );
    Ok(Some(names))
}

/// The host of a URL that the settings have taken, in lower case; an address without brackets.
pub fn host_of(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

/// What links begin with where both listeners share one address and no setting says it.
pub fn shared_link_base(names: &EdgeNames, address: SocketAddr) -> Option<String> {
    let domain = names.base_domain.as_ref()?;
    Some(match address.port() {
        443 => format!("https://{domain}"),
        port => format!("https://{domain}:{port}"),
    })
}

/// Says which of the hub's names its certificates are not for: whoever uses those will be warned or refused.
pub fn warn_of_unnamed(tls: &Tls, settings: &Settings) {
    let any_slug = settings.base_domain.as_ref().map(|domain| format!("a-link.{domain}"));
    let of = |url: &Option<String>| url.as_deref().and_then(host_of);
    for (speaker, host, shown) in [
        (&tls.api, of(&settings.public_url), None),
        (&tls.edge, of(&settings.link_base_url), None),
        (&tls.edge, any_slug, settings.base_domain.as_ref().map(|domain| format!("*.{domain}"))),
    ] {
        if let (Some(speaker), Some(host)) = (speaker, host)
            && !speaker.certificates.names(&host)
        {
            let shown = shown.unwrap_or(host);
            tracing::warn!("no TLS certificate of the hub is for {shown}: clients will not believe it there");
        }
    }
}

/// Where an ACME account and its certificates are kept.
pub fn acme_folder(data: &Path) -> PathBuf {
    data.join("state").join("acme")
}

#[cfg(test)]
mod tests;
