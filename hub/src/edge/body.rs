//! A visitor's request body, whichever protocol it came by.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// What a visitor sends behind his request's head.
#[derive(Debug)]
pub(super) enum VisitorBody {
    Http1(Incoming),
    Http2(Http2Body),
}

/// Why it broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the HTTP/1 request broke off")]
    Http1(#[from] hyper::Error),
    // A source, so that hyper finds the visitor's reason and gives it to the target.
    #[error("the HTTP/2 request broke off")]
    Http2(#[from] h2::Error),
}

impl BodyError {
    /// Whether what came is no body, and the visitor still listens.
    pub(super) fn is_malformed(&self) -> bool {
        let Self::Http1(error) = self else { return false };
        let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
        io.is_some_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData)
        })
    }
}

/// The body of an HTTP/2 stream. What is taken from it makes room for as much.
#[derive(Debug)]
pub(super) struct Http2Body {
    stream: RecvStream,
    /// As `Content-Length` says; h2 checks that it is true.
    length: Option<u64>,
    data_over: bool,
}

impl Http2Body {
    pub(super) fn new(stream: RecvStream, headers: &http::HeaderMap) -> Self {
        let length = headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self { stream, length, data_over: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // A stream that is gone takes nothing back.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_over = true,
            }
        }
        Poll::Ready(
            ready!(self.stream.poll_trailers(cx)).map(|trailers| trailers.map(Frame::trailers)).transpose(),
        )
    }
}

impl Body for VisitorBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Http2(body) => body.poll(cx).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(Http2Body { length: Some(length), .. }) => SizeHint::with_exact(*length),
            Self::Http2(_) => SizeHint::default(),
        }
    }
}
