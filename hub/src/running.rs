//! What runs now, by what it runs under: ending everything under a share, tunnel, agent or key is one look-up.
//!
//! Whoever starts a stream takes its tokens first and checks `Routes` second: then an end that comes in between is
//! seen by one of the two.

use dashmap::DashMap;
use domain::ids::{AgentId, KeyId, ShareId, TunnelId};
use tokio_util::sync::CancellationToken;

/// Something that streams run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Under {
    Share(ShareId),
    Tunnel(TunnelId),
    /// The agent's session.
    Agent(AgentId),
    Key(KeyId),
}

/// The tokens that running streams hold.
#[derive(Debug, Default)]
pub struct Running {
    tokens: DashMap<Under, CancellationToken>,
}

impl Running {
    /// The token of everything that starts under `under` from now on; cancelled when that ends.
    pub fn token(&self, under: Under) -> CancellationToken {
        if let Some(token) = self.tokens.get(&under) {
            return token.clone();
        }
        self.tokens.entry(under).or_default().clone()
    }

    /// Ends everything that runs under `under`. What starts afterwards gets a new token.
    pub fn end(&self, under: Under) {
        if let Some((_, token)) = self.tokens.remove(&under) {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_cancels_what_ran_before_it_and_nothing_after() {
        let running = Running::default();
        let under = Under::Share(ShareId::new(uuid::Uuid::from_u128(1)));
        let before = running.token(under);
        running.end(under);
        assert!(before.is_cancelled());
        assert!(!running.token(under).is_cancelled());
    }
}
