//! Raw bytes in both directions after a 101, until either side ends or the share does.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use domain::access::EndedBy;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};

use super::super::{conn::Cut, connection::ConnCtx, exchange::Exchange, upstream::Upstream};

/// After one side has ended, the other may say this long what it still has to say.
const LINGER: Duration = Duration::from_secs(5);

/// Both sides of an upgraded exchange.
pub(super) struct Ends {
    pub visitor: OnUpgrade,
    pub target: OnUpgrade,
    /// Keeps the stream until the relay is over.
    pub upstream: Upstream,
}

/// Carries bytes until one side ends, and has the exchange recorded. The connection's context stays registered, so
/// that the sweep and a revocation find it.
pub(super) async fn run(exchange: Rc<Exchange>, ctx: Rc<ConnCtx>, ends: Ends) {
    let Ends { visitor, target, upstream } = ends;
    let Ok((visitor, target)) = tokio::try_join!(visitor, target) else {
        exchange.finish(Some(exchange.conn.cut().ended_by()), None);
        return;
    };
    ctx.state.upgrade();
    let (from_visitor, mut to_visitor) = tokio::io::split(TokioIo::new(visitor));
    let (from_target, mut to_target) = tokio::io::split(TokioIo::new(target));
    let mut from_visitor = Counted { inner: from_visitor, bytes: &exchange.upload.bytes };
    let mut from_target = Counted { inner: from_target, bytes: &exchange.bytes_out };
    let ended_by = {
        let mut up = std::pin::pin!(async {
            let copied = tokio::io::copy(&mut from_visitor, &mut to_target).await;
            // The other direction goes on; a target that is gone already hears nothing.
            let _ = to_target.shutdown().await;
            copied.is_ok()
        });
        let mut down = std::pin::pin!(async {
            let copied = tokio::io::copy(&mut from_target, &mut to_visitor).await;
            let _ = to_visitor.shutdown().await;
            copied.is_ok()
        });
        tokio::select! {
            clean = &mut up => {
                let rest = tokio::time::timeout(LINGER, down).await;
                (!clean || rest.is_err()).then_some(EndedBy::Visitor)
            }
            clean = &mut down => {
                let rest = tokio::time::timeout(LINGER, up).await;
                (!clean || rest.is_err()).then_some(EndedBy::Upstream)
            }
        }
    };
    let cut = exchange.conn.cut();
    exchange.finish(if cut == Cut::Not { ended_by } else { Some(cut.ended_by()) }, None);
    drop(upstream);
}

/// Counts what is read.
struct Counted<'c, R> {
    inner: R,
    bytes: &'c Cell<u64>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<'_, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        self.bytes.set(self.bytes.get() + read as u64);
        polled
    }
}
