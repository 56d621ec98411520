//! A connection to the hub, before anything is said on it.

use std::{io, sync::Arc};

use rustls::ClientConfig;
use wire::{
    side::{Carrier, prepare},
    tls::{self, AGENT, HTTP_11},
};

use super::{dialer, hub_address::HubAddress};
use crate::hub_tls;

/// What all connections of an agent share, so that a later one takes up the session of an earlier one.
pub(super) fn config(believing: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = believing.clone();
    config.alpn_protocols = vec![AGENT.to_vec(), HTTP_11.to_vec()];
    Arc::new(config)
}

/// Connects to the hub; the caller sets the deadline.
///
/// # Errors
/// The network's, in the words of the last address that was tried; or why the hub is not believed.
pub(super) async fn connect(hub: &HubAddress, config: &Arc<ClientConfig>) -> io::Result<Carrier> {
    let socket = dialer::race(dialer::resolve(&hub.host, hub.port).await?).await?;
    prepare(&socket);
    let Some(name) = &hub.certified else { return Ok(socket.into()) };
    match tls::connect(Arc::clone(config), name.clone(), socket).await {
        Ok(encrypted) => Ok(Carrier::Wrapped(Box::new(encrypted))),
        Err(error) => Err(match tls::reason(&error) {
            Some(reason) => {
                let (what, hint) = hub_tls::explained(reason);
                io::Error::new(error.kind(), format!("{what}; {hint}"))
            }
            None => error,
        }),
    }
}

#[cfg(test)]
mod tests;
