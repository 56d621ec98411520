//! How what has ended leaves.

use std::sync::atomic::Ordering;

use domain::ids::ShareId;

use super::{ENDED_KEPT_MAX, Gone, Routes, unhex};

impl Routes {
    /// Lets go of the oldest ends, as far as the reader has passed them.
    pub(super) fn forget(&self) {
        let kept = self.ended_kept.unwrap_or(ENDED_KEPT_MAX);
        let unread = self.unread.load(Ordering::SeqCst);
        loop {
            let gone = {
                let mut ended = self.ended.lock();
                if ended.len() <= kept {
                    return;
                }
                match ended.first_entry() {
                    Some(first) if *first.key() < unread => first.remove(),
                    Some(_) | None => return,
                }
            };
            match gone {
                Gone::Tunnel(id, revision) => {
                    self.tunnels.remove_if(&id, |_, entry| entry.revision == revision);
                }
                Gone::Claim(stream, revision) => {
                    self.claims.remove_if(&stream, |_, entry| entry.revision == revision);
                }
                Gone::Share(id, revision) => self.forget_share(id, revision),
                Gone::Environment(id, revision) => self.forget_environment(id, revision),
                Gone::Webhook(id, revision) => {
                    self.webhooks.remove_if(&id, |_, entry| entry.revision == revision);
                }
                Gone::Command(id) => drop(self.commands.remove(&id)),
                Gone::Message(id, revision) => {
                    self.messages.remove_if(&id, |_, entry| entry.revision == revision);
                }
            }
        }
    }

    fn forget_share(&self, id: ShareId, revision: u64) {
        let Some((_, entry)) = self.shares.remove_if(&id, |_, entry| entry.revision == revision) else {
            return;
        };
        let Some(created) = &entry.state.created else { return };
        if let Some(digest) = unhex(&created.token_hash) {
            self.shares_by_token.remove_if(&digest, |_, holder| *holder == id);
        }
        self.shares_by_slug.remove_if(&created.slug, |_, holder| *holder == id);
        if let Some(mut shares) = self.shares_by_tunnel.get_mut(&created.tunnel_id) {
            shares.remove(&id);
        }
        self.shares_by_tunnel.remove_if(&created.tunnel_id, |_, shares| shares.is_empty());
    }
}
