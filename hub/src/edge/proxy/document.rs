//! Whether the banner goes into an answer, before its head is decided.

use std::{collections::VecDeque, rc::Rc};

use bytes::Bytes;
use domain::access::Denied;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::{
    Own, Visitor,
    send::{Stopped, wait},
};
use crate::edge::{
    banner::{self, Coding, Injector, Sniffed},
    exchange::Proxied,
    upstream::Lane,
};

impl Visitor {
    /// Reads as much of a document as it takes to know whether the banner goes in, and has it go in.
    pub(super) async fn prepare_banner(
        &self,
        coding: Coding,
        headers: &mut HeaderMap,
        proxied: &mut Proxied,
        lane: &Lane,
    ) -> Result<(), Own> {
        let wanted =
            if coding == Coding::Identity { banner::SNIFF_BYTES_MAX } else { banner::PACKED_BYTES_MAX };
        let exchange = Rc::clone(&proxied.exchange);
        let start = match wait(&exchange, self.core.limits.sniff, read_ahead(proxied, coding, wanted)).await {
            Ok(Ok(start)) => start,
            Ok(Err(_)) => return Err(Denied::UpstreamFailed.into()),
            // It does not come in time: it passes as it is.
            Err(Stopped::Timeout) => return Ok(()),
            Err(Stopped::Revoked) => return Err(self.stopped(Stopped::Revoked, &exchange)),
        };
        if coding == Coding::Identity {
            if banner::sniff(&start) != Sniffed::Document {
                return Ok(());
            }
            proxied.injector = Some(Box::new(Injector::new(Rc::clone(&lane.markup))));
        } else {
            let has_trailers = proxied.ahead.iter().any(Frame::is_trailers);
            if !proxied.is_complete || has_trailers {
                return Ok(());
            }
            let Some(repacked) = banner::repack(coding, &start, &lane.markup) else { return Ok(()) };
            proxied.ahead = VecDeque::from([Frame::data(Bytes::from(repacked))]);
        }
        banner::adjust_headers(headers);
        self.core.shared.metrics.banners.add(1);
        Ok(())
    }
}

/// Reads frames into `ahead`: until the first tag is known, or (packed) until the end, or `wanted` bytes.
async fn read_ahead(proxied: &mut Proxied, coding: Coding, wanted: usize) -> Result<Vec<u8>, hyper::Error> {
    let mut start = Vec::new();
    while start.len() < wanted {
        let is_known = coding == Coding::Identity && banner::sniff(&start) != Sniffed::Undecided;
        if is_known {
            break;
        }
        match proxied.incoming.frame().await {
            Some(frame) => {
                let frame = frame?;
                if let Some(data) = frame.data_ref() {
                    start.extend_from_slice(data);
                }
                proxied.ahead.push_back(frame);
            }
            None => {
                proxied.is_complete = true;
                break;
            }
        }
    }
    Ok(start)
}
