//! The public URL of a tunnel under another name: a new permanent link first, the end of the former one second, so that
//! there is always one that works.

use domain::{
    ids::{ShareId, TunnelId},
    share::{Command, RevokeReason},
    time::Timestamp,
    tunnel::Details,
};
use projections::routes::Routes;

use super::{CreateError, Creator, NewLink, NewShare};
use crate::{actors::Who, secrets::Seed};

impl Creator {
    /// Gives a public tunnel another URL: under a chosen subdomain, or a random one. The former link ends.
    ///
    /// # Errors
    /// As [`Creator::share`]; the former link is as it was then.
    pub async fn readdress(
        &self,
        who: &Who,
        seed: &Seed,
        tunnel_id: TunnelId,
        subdomain: Option<String>,
    ) -> Result<NewLink, CreateError> {
        let entry = self.routes.tunnel(tunnel_id).ok_or(CreateError::TunnelUnknown(tunnel_id))?;
        let details = entry.state.open().ok_or(CreateError::TunnelUnknown(tunnel_id))?;
        let new = public_link(tunnel_id, details, subdomain);
        // The newest by its id is the public URL, also when the clock stands still or was set back.
        let live = live_public_shares(&self.routes, tunnel_id);
        let after_former = live.iter().map(|id| made_at(*id).plus_ms(1)).max();
        let at = self.clock.now().max(after_former.unwrap_or(Timestamp::from_millis(0)));
        let id = ShareId::new(seed.uuid(at, "public-share"));
        let link = self.share_with_id(who, seed, id, new).await?;
        for former in former_public_shares(&self.routes, tunnel_id) {
            let command = Command::Revoke { reason: RevokeReason::Requested };
            if let Err(error) = self.executor.share(former, who.clone(), command).await {
                // The follower ends it as well.
                tracing::warn!(%former, %error, "a former public link was not revoked at once");
            }
        }
        Ok(link)
    }
}

/// The permanent link of a public tunnel.
pub(super) fn public_link(tunnel_id: TunnelId, details: &Details, subdomain: Option<String>) -> NewShare {
    NewShare {
        tunnel_id,
        name: details.created.name.clone(),
        description: None,
        expires_at: None,
        allowed_paths: None,
        allowed_methods: None,
        rate_limit_per_min: None,
        subdomain,
        public: true,
        read_only: true,
    }
}

/// The time in an id.
fn made_at(id: ShareId) -> Timestamp {
    let (seconds, nanos) = id.uuid().get_timestamp().map(|stamp| stamp.to_unix()).unwrap_or_default();
    let millis = i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
    Timestamp::from_millis(millis.saturating_add(i64::from(nanos / 1_000_000)))
}

/// The live permanent links of a tunnel but the newest, whose slug is the public URL.
pub fn former_public_shares(routes: &Routes, tunnel: TunnelId) -> Vec<ShareId> {
    let mut live = live_public_shares(routes, tunnel);
    live.pop();
    live
}

fn live_public_shares(routes: &Routes, tunnel: TunnelId) -> Vec<ShareId> {
    let mut live = routes.shares_of(tunnel);
    live.retain(|id| {
        routes.share(*id).is_some_and(|entry| {
            entry.state.ended.is_none() && entry.state.created.as_ref().is_some_and(|it| it.public)
        })
    });
    live
}
