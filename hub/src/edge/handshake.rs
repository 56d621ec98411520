//! What comes before a visitor's first byte where the edge speaks TLS: the handshake, with as much patience as for a head
//! and among the open connections like any other.

use std::{io, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use wire::tls::{self, Encrypted};

use super::server::Core;
use crate::tls::{
    Speaker,
    hello::HANDSHAKE,
    plain::{self, Listener},
};

/// Shakes hands. `None`: nothing came of it.
pub(super) async fn shake(core: &Core, socket: TcpStream, speaker: &Speaker) -> Option<Encrypted> {
    let patience = Duration::from_millis(core.shared.options.head_timeout_ms);
    let shaking = async {
        let mut first = [0; 1];
        if socket.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
            plain::turn_away(socket, Listener::Edge, patience).await;
            return Ok(None);
        }
        tls::accept(Arc::clone(&speaker.config), socket).await.map(Some)
    };
    let error = match tokio::time::timeout(patience, shaking).await {
        Ok(Ok(shaken)) => return shaken,
        Ok(Err(error)) => error,
        Err(_) => {
            core.shared.metrics.slow_heads.add(1);
            io::ErrorKind::TimedOut.into()
        }
    };
    tracing::debug!(%error, "a visitor's TLS connection was not made");
    speaker.failed();
    None
}
