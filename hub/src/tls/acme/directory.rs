//! Requests to an ACME authority: HTTP/1.1 over TLS, one connection each, with limits on time and size.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use wire::tls::{self, HTTP_11};

/// How long an authority may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A longer answer is none of an authority's (bytes).
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Speaks to one authority.
#[derive(Debug)]
pub(super) struct Client(Arc<ClientConfig>);

impl Client {
    pub(super) fn believing(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![HTTP_11.to_vec()];
        Self(Arc::new(config))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let config = Arc::clone(&self.0);
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let failed = |error: io::Error| {
                let words = format!("the authority at {host} is not reached: {error}");
                Error::Other(Box::new(io::Error::new(error.kind(), words)))
            };
            match timeout(PATIENCE, exchange(config, request)).await {
                Ok(answer) => answer.map(BytesResponse::from).map_err(failed),
                Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
            }
        })
    }
}

async fn exchange(
    config: Arc<ClientConfig>,
    request: Request<BodyWrapper<Bytes>>,
) -> io::Result<Response<Full<Bytes>>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let (mut parts, body) = request.into_parts();
    if parts.uri.scheme_str() != Some("https") {
        return Err(wrong("its address does not begin with https://"));
    }
    let authority = parts.uri.authority().cloned().ok_or_else(|| wrong("its address has no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_| wrong("no certificate can name its host"))?;
    let socket = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
    let encrypted = tls::connect(config, name, socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(encrypted)).await.map_err(io::Error::other)?;
    let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    parts.uri = path.into();
    parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?);
    let asked = async {
        let answer = sender.send_request(Request::from_parts(parts, body)).await.map_err(io::Error::other)?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
        Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
    };
    let mut connection = std::pin::pin!(connection);
    let mut asked = std::pin::pin!(asked);
    // The connection moves as long as the answer is waited for, and not longer.
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(io::Error::other(error)),
            // Everything that came was read: the answer is complete, or says that it is not.
            Ok(()) => asked.await,
        }
    }
}
