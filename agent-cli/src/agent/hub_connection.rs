//! A connection to the hub, before anything is said on it.

use std::io;

use wire::side::{Carrier, prepare};

use super::{dialer, hub_address::HubAddress};

/// Connects to the hub; the caller sets the deadline.
///
/// # Errors
/// The network's, in the words of the last address that was tried.
pub(super) async fn connect(hub: &HubAddress) -> io::Result<Carrier> {
    let socket = dialer::race(dialer::resolve(&hub.host, hub.port).await?).await?;
    prepare(&socket);
    Ok(socket.into())
}
