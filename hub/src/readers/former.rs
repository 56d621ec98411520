//! Shares that ended so long ago that `Routes` has forgotten them, out of the catalog.

use std::sync::Arc;

use futures_util::FutureExt as _;
use projections::catalog::{CatalogReader, FormerShare, ShareKey};
use tokio::sync::Semaphore;

use crate::edge::FormerShares;

/// At most so many questions at once, on the blocking pool; the others wait. The limits on unknown tokens let through
/// some fifty a second, each of them takes a fraction of a millisecond.
const AT_ONCE_MAX: usize = 4;

/// Asks a catalog. What it cannot read it does not know: the visitor is told that there is no such link.
pub fn former_shares(catalog: CatalogReader) -> FormerShares {
    let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
    Arc::new(move |key| {
        let (catalog, places) = (catalog.clone(), Arc::clone(&places));
        async move {
            let _place = places.acquire().await.ok()?;
            tokio::task::spawn_blocking(move || ask(&catalog, &key)).await.ok()?
        }
        .boxed()
    })
}

fn ask(catalog: &CatalogReader, key: &ShareKey) -> Option<FormerShare> {
    catalog.former_share(key).unwrap_or_else(|error| {
        tracing::error!(%error, "the catalog cannot be asked about a share that ended");
        None
    })
}
