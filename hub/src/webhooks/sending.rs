//! Sends one message to one URL: whoever it leads to is judged here, at every try, and nobody else is connected to.
//!
//! A name is asked for once. Each of its addresses must be one that the hub may connect to, or none is; the connection goes
//! to exactly those, so that no second answer of a resolver leads elsewhere. Redirects are answers like any other.
//! One connection serves one try: it ends with the answer's head, whatever else the receiver has to say.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use domain::{
    delivery::{Problem, Said},
    policy::webhook_url::{Endpoint, Host},
    time::Timestamp,
};
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use wire::tls::{self, HTTP_11, trust::Trust};

/// How long a receiver may take, from the question for its address to the end of its answer's head (product.md).
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How much of an answer is read so that a receiver that says more than nothing is not cut off in the middle (bytes),
/// and how long that may take. Nobody looks at it.
const BODY_BYTES_READ: usize = 16 * 1024;
const BODY_PATIENCE: Duration = Duration::from_millis(500);
/// The longest answer's head (bytes).
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How many addresses of one name are tried one after the other.
const ADDRESSES_TRIED_MAX: usize = 3;
/// The most addresses of a name that are judged: one with more is none of ours.
const ADDRESSES_MAX: usize = 64;

/// A message, ready to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub said: Said,
    /// What the receiver asked for with 429 or 503 (milliseconds).
    pub asked_ms: Option<i64>,
}

impl Reply {
    pub const fn nothing(problem: Problem) -> Self {
        Self { said: Said::Nothing(problem), asked_ms: None }
    }
}

/// Sends messages. A seam: couriers are tested without a network.
pub trait Post: fmt::Debug + Send + Sync + 'static {
    /// Sends it once. `now`: for moments that a receiver names.
    fn post(&self, message: Outgoing, now: Timestamp) -> BoxFuture<'static, Reply>;
}

/// Answers the addresses of a name. Tests answer what they like.
pub type Resolver = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Where messages may go.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// What the operator allows although it is private, and without TLS.
    pub allowed: Vec<IpNet>,
    /// Where this hub listens itself: nobody reaches it through itself.
    pub own: Vec<SocketAddr>,
}

/// Sends messages over the network.
#[derive(Clone)]
pub struct Network {
    reach: Arc<Reach>,
    tls: Result<Arc<ClientConfig>, Arc<str>>,
    resolve: Resolver,
    patience: Duration,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Network {
    /// Believes certificates as `trust` says.
    pub fn new(reach: Reach, trust: &Trust) -> Self {
        Self::resolving(reach, trust, Arc::new(|name| Box::pin(addresses_of(name))))
    }

    /// The same with a resolver of the caller's.
    pub fn resolving(reach: Reach, trust: &Trust, resolve: Resolver) -> Self {
        let config = trust.client_config().map(|mut config| {
            config.alpn_protocols = vec![HTTP_11.to_vec()];
            Arc::new(config)
        });
        let tls = config.map_err(|error| {
            tracing::warn!(%error, "webhooks cannot be delivered over https");
            error.to_string().into()
        });
        Self { reach: Arc::new(reach), tls, resolve, patience: PATIENCE }
    }

    async fn exchange(&self, message: Outgoing, now: Timestamp) -> Result<Reply, Problem> {
        let endpoint = Endpoint::parse(&message.url).map_err(|_| Problem::UrlRefused)?;
        endpoint.admit(&self.reach.allowed).map_err(|_| Problem::AddressRefused)?;
        let request = request(&endpoint, message).ok_or(Problem::UrlRefused)?;
        let deadline = Instant::now() + self.patience;
        let asked = async {
            let addresses = self.addresses(&endpoint).await?;
            let socket = self.connect(&endpoint, &addresses).await?;
            if !endpoint.tls {
                return speak(socket, request, now).await;
            }
            let config = self.tls.clone().map_err(|_| Problem::Tls)?;
            let name = match &endpoint.host {
                Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| Problem::Tls)?,
                Host::Address(address) => ServerName::from(*address),
            };
            let encrypted = tls::connect(config, name, socket).await.map_err(|_| Problem::Tls)?;
            speak(encrypted, request, now).await
        };
        timeout_at(deadline, asked).await.unwrap_or(Err(Problem::TimedOut))
    }

    /// The addresses that a host has, all of them judged.
    async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Problem> {
        let found = match &endpoint.host {
            Host::Address(address) => vec![*address],
            // Whatever a resolver says of it. What the operator did not allow is left out, not a reason to refuse.
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                own.into_iter().filter(|it| endpoint.judge(*it, &self.reach.allowed).is_ok()).collect()
            }
            Host::Name(name) => (self.resolve)(name.clone()).await.map_err(|_| Problem::Unresolved)?,
        };
        if found.is_empty() || found.len() > ADDRESSES_MAX {
            return Err(Problem::Unresolved);
        }
        let is_good = |address: &IpAddr| {
            let socket = SocketAddr::new(address.to_canonical(), endpoint.port);
            endpoint.judge(*address, &self.reach.allowed).is_ok() && !self.is_own(socket)
        };
        if !found.iter().all(is_good) {
            return Err(Problem::AddressRefused);
        }
        Ok(found.into_iter().map(|address| SocketAddr::new(address, endpoint.port)).collect())
    }

    fn is_own(&self, socket: SocketAddr) -> bool {
        let same = |own: &SocketAddr| {
            let everywhere = own.ip().is_unspecified() && socket.ip().is_loopback();
            own.port() == socket.port() && (own.ip().to_canonical() == socket.ip() || everywhere)
        };
        self.reach.own.iter().any(same)
    }

    async fn connect(&self, endpoint: &Endpoint, addresses: &[SocketAddr]) -> Result<TcpStream, Problem> {
        // A host that does not answer at its first address shall not use up the time of the second.
        let tried = addresses.iter().take(ADDRESSES_TRIED_MAX);
        let each = self.patience / u32::try_from(tried.len().max(1)).unwrap_or(1);
        for address in tried {
            let Ok(Ok(socket)) = timeout(each, TcpStream::connect(address)).await else { continue };
            // A name of this very machine, at whatever address of it, that leads to the hub itself.
            let (peer, local) = (socket.peer_addr().ok(), socket.local_addr().ok());
            let to_itself = peer.zip(local).is_some_and(|(peer, local)| peer.ip() == local.ip());
            if to_itself
                && self.reach.own.iter().any(|own| own.port() == endpoint.port && own.ip().is_unspecified())
            {
                return Err(Problem::AddressRefused);
            }
            return Ok(socket);
        }
        Err(Problem::Unreachable)
    }
}

impl Post for Network {
    fn post(&self, message: Outgoing, now: Timestamp) -> BoxFuture<'static, Reply> {
        let network = self.clone();
        Box::pin(async move { network.exchange(message, now).await.unwrap_or_else(Reply::nothing) })
    }
}

async fn addresses_of(name: String) -> io::Result<Vec<IpAddr>> {
    // With a dot at the end no search domain of this machine is added to it.
    let absolute = if name.contains('.') { format!("{name}.") } else { name };
    let found = tokio::net::lookup_host((absolute, 0)).await?;
    Ok(found.map(|socket| socket.ip()).collect())
}

fn request(endpoint: &Endpoint, message: Outgoing) -> Option<Request<Full<Bytes>>> {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_str(&endpoint.authority).ok()?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(message.body.len()));
    headers
        .insert(USER_AGENT, HeaderValue::from_static(concat!("Private-Connect/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in message.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?);
    }
    let mut request = Request::new(Full::new(message.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.path.parse().ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

async fn speak(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    now: Timestamp,
) -> Result<Reply, Problem> {
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(socket))
        .await;
    let (mut sender, connection) = handshake.map_err(|error| problem_of(&error))?;
    let mut connection = std::pin::pin!(connection);
    let asked = async {
        let answer = sender.send_request(request).await.map_err(|error| problem_of(&error))?;
        let (head, body) = answer.into_parts();
        let reply = Reply {
            said: Said::Status(head.status.as_u16()),
            asked_ms: asked_ms(head.status, &head.headers, now),
        };
        // What it is worth was decided by the head.
        let _ = timeout(BODY_PATIENCE, read_some(body)).await;
        Ok(reply)
    };
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(problem_of(&error)),
            Ok(()) => asked.await,
        }
    }
}

async fn read_some(mut body: Incoming) {
    let mut read = 0;
    while read < BODY_BYTES_READ
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn problem_of(error: &hyper::Error) -> Problem {
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        Problem::NotHttp
    } else if error.is_timeout() {
        Problem::TimedOut
    } else {
        Problem::BrokenOff
    }
}

/// How long a receiver asks to be left alone: seconds, or a moment.
fn asked_ms(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<i64> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // So many digits that they are no number mean "for ever", which the schedule cuts.
        return Some(text.parse::<i64>().unwrap_or(i64::MAX).saturating_mul(1_000));
    }
    let moment = httpdate::parse_http_date(text).ok()?;
    let since = moment.duration_since(std::time::UNIX_EPOCH).ok()?;
    let millis = i64::try_from(since.as_millis()).ok()?;
    Some(millis.saturating_sub(now.millis()).max(0))
}

#[cfg(test)]
mod tests;
