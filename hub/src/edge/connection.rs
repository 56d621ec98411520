//! A visitor's connection from its accept on: what it speaks is found out, then it is served.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, UpgradeableConnection},
    service::Service,
};
use hyper_util::rt::TokioIo;

use super::{
    body::VisitorBody,
    conn::ConnState,
    exchange::{Answer, Exchange},
    headers::ForwardedFor,
    http2, proxy,
    server::{Core, HEAD_BYTES_MAX},
    visitor_io::{Open, Socket, Speaks, VisitorIo},
};

/// Whoever is at the other end, the same for all requests of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub ip: IpAddr,
    pub text: String,
    /// The connection is encrypted.
    pub is_secure: bool,
    /// The name that the visitor asked for in the TLS handshake, in lower case.
    pub server_name: Option<String>,
    /// Known after the first request, where it is the same for all.
    pub forwarded: RefCell<Option<Rc<ForwardedFor>>>,
}

/// A connection, or a stream of one, as its core knows it.
#[derive(Debug)]
pub(super) struct ConnCtx {
    pub state: Arc<ConnState>,
    pub peer: Rc<Peer>,
    pub exchange: RefCell<Weak<Exchange>>,
    /// HTTP/2: requests under way.
    pub streams: Cell<u32>,
}

impl ConnCtx {
    /// A stream of this connection.
    pub(super) fn stream(&self) -> Self {
        Self {
            state: ConnState::stream_of(&self.state),
            peer: Rc::clone(&self.peer),
            exchange: RefCell::default(),
            streams: Cell::new(0),
        }
    }
}

/// A connection that was accepted: the socket itself, or what TLS made of it.
#[derive(Debug)]
pub(super) struct Accepted<S> {
    pub socket: S,
    pub peer: SocketAddr,
    pub is_secure: bool,
    /// As in [`Peer`].
    pub server_name: Option<String>,
    /// What was agreed on; `None`: the first bytes say it.
    pub speaks: Option<Speaks>,
    pub open: Open,
}

/// Serves a connection to its end, on a task of its own.
pub(super) fn serve<S>(core: &Rc<Core>, accepted: Accepted<S>)
where
    S: Socket + Send + 'static,
{
    let Accepted { socket, peer, is_secure, server_name, speaks, open } = accepted;
    let state = core.connection_state();
    let peer = Peer {
        ip: peer.ip().to_canonical(),
        text: peer.to_string(),
        is_secure,
        server_name,
        forwarded: RefCell::default(),
    };
    let ctx = Rc::new(ConnCtx {
        state: Arc::clone(&state),
        peer: Rc::new(peer),
        exchange: RefCell::default(),
        streams: Cell::new(0),
    });
    core.register(&ctx);
    let core = Rc::clone(core);
    let mut io = VisitorIo::new(socket, state, open);
    tokio::task::spawn_local(async move {
        let speaks = match speaks {
            Some(speaks) => Some(speaks),
            None => io.listen(|| core.draining.get()).await,
        };
        match speaks {
            Some(Speaks::Http1) => Http1::new(core, ctx, io).await,
            Some(Speaks::Http2) => http2::serve(core, ctx, io).await,
            None => {}
        }
    });
}

/// hyper's view of the requests of one connection.
#[derive(Debug)]
struct Requests {
    core: Rc<Core>,
    ctx: Rc<ConnCtx>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request = request.map(VisitorBody::Http1);
        Box::pin(proxy::serve(Rc::clone(&self.core), Rc::clone(&self.ctx), request))
    }
}

/// An HTTP/1 connection's task: asked to close when the core drains.
struct Http1<S: Socket + Send + 'static> {
    core: Rc<Core>,
    is_closing: bool,
    connection: UpgradeableConnection<TokioIo<VisitorIo<S>>, Requests>,
}

impl<S: Socket + Send + 'static> Http1<S> {
    fn new(core: Rc<Core>, ctx: Rc<ConnCtx>, io: VisitorIo<S>) -> Self {
        let service = Requests { core: Rc::clone(&core), ctx };
        let connection = Builder::new()
            .half_close(false)
            .header_read_timeout(None)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX * 2)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        Self { core, is_closing: false, connection }
    }
}

impl<S: Socket + Send + 'static> Future for Http1<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.core.draining.get() && !this.is_closing {
            this.is_closing = true;
            Pin::new(&mut this.connection).graceful_shutdown();
        }
        // Errors are the visitor's: what he sent was no HTTP, or he left.
        Pin::new(&mut this.connection).poll(cx).map(|_| ())
    }
}
