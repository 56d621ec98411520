//! Who speaks HTTP where TLS is spoken: told so, and nothing else.
//!
//! A visitor's GET is sent to the same address in https. At the API only a browser's is: a program that sends its key in
//! the clear must fail the first time and be mended, and not be led on so that it sends the key every time.

use std::time::Duration;

use domain::ids::RequestId;
use httparse::{EMPTY_HEADER, Request, Status};
use schemas::problem::Problem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use uuid::Uuid;

/// A head longer than this is answered as it is (bytes).
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// How long and how much is read on after the answer: a close with unread bytes is a reset, which can overtake it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 256 * 1024;

/// Whose listener it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    Api,
    Edge,
}

/// Reads a head within `patience`, answers it, and closes.
pub async fn turn_away(mut socket: TcpStream, listener: Listener, patience: Duration) {
    let mut head = Vec::new();
    let reading = async {
        let mut piece = [0; 1024];
        loop {
            let read = socket.read(&mut piece).await.unwrap_or(0);
            head.extend_from_slice(&piece[..read]);
            let has_end = head.windows(4).any(|bytes| bytes == b"\r\n\r\n");
            if read == 0 || has_end || head.len() >= HEAD_BYTES_MAX {
                return;
            }
        }
    };
    // Who is too slow to ask is not answered.
    if timeout(patience, reading).await.is_err() {
        return;
    }
    let goodbye = async {
        socket.write_all(answer(&head, listener).as_bytes()).await?;
        socket.shutdown().await?;
        tokio::io::copy(&mut socket.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // The client's affair from here on.
    let _ = timeout(LINGER, goodbye).await;
}

/// The answer to a head, which may be cut off or none at all.
fn answer(head: &[u8], listener: Listener) -> String {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let is_whole = matches!(request.parse(head), Ok(Status::Complete(_)));
    let is_head = is_whole && request.method == Some("HEAD");
    let location = is_whole.then(|| location(&request, listener)).flatten();
    let problem = Problem {
        status_code: 400,
        error: "Bad Request".to_owned(),
        code: "tls_required".to_owned(),
        message: "This port speaks TLS: use https:// instead of http://.".to_owned(),
        request_id: RequestId::new(Uuid::now_v7()).to_string(),
        details: Vec::new(),
        retry_after: None,
    };
    let (status, location, body) = match location {
        Some(location) => ("308 Permanent Redirect", format!("location: {location}\r\n"), String::new()),
        None => {
            let body = serde_json::to_string(&problem).expect("a problem has string keys only");
            ("400 Bad Request", "content-type: application/json\r\n".to_owned(), body)
        }
    };
    let length = body.len();
    let body = if is_head { "" } else { &body };
    format!(
        "HTTP/1.1 {status}\r\n{location}content-length: {length}\r\ncache-control: no-store\r\n\
         referrer-policy: no-referrer\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Where a request is sent, if it is one that may be sent on.
fn location(request: &Request<'_, '_>, listener: Listener) -> Option<String> {
    let values = |name: &str| {
        let of_name = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        of_name.map(|header| header.value).collect::<Vec<_>>()
    };
    let has = |name: &str| !values(name).is_empty();
    if !matches!(request.method, Some("GET" | "HEAD")) || has("upgrade") {
        return None;
    }
    if listener == Listener::Api {
        let is_browsers = values("accept")
            .iter()
            .any(|accept| accept.to_ascii_lowercase().windows(9).any(|kind| kind == b"text/html"));
        if !is_browsers || has("authorization") || has("x-api-key") {
            return None;
        }
    }
    let [host] = values("host").try_into().ok()?;
    let host = std::str::from_utf8(host).ok().filter(|host| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        !host.is_empty() && host.bytes().all(plain)
    })?;
    let path =
        request.path.filter(|path| path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()))?;
    Some(format!("https://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_and_browsers_are_sent_to_https_and_programs_are_told() {
        let get = "GET /shared/x?y=1 HTTP/1.1\r\nHost: a.example:7080\r\n";
        let html = "Accept: text/html,*/*\r\n";
        let cases = [
            (get, "", Listener::Edge, true),
            (get, "", Listener::Api, false),
            (get, html, Listener::Api, true),
            (get, "Accept: text/html\r\nX-Api-Key: pc_x\r\n", Listener::Api, false),
            (get, "Accept: text/html\r\nAuthorization: Bearer x\r\n", Listener::Api, false),
            (get, "Upgrade: websocket\r\n", Listener::Edge, false),
            (get, "Host: b.example\r\n", Listener::Edge, false),
            ("POST / HTTP/1.1\r\nHost: a\r\n", html, Listener::Edge, false),
            ("GET / HTTP/1.1\r\n", "", Listener::Edge, false),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n", "", Listener::Edge, false),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n", "", Listener::Edge, false),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n", "", Listener::Edge, false),
            ("nonsense\r\n", "", Listener::Edge, false),
        ];
        for (head, more, listener, is_sent) in cases {
            let said = answer(format!("{head}{more}\r\n").as_bytes(), listener);
            assert_eq!(said.starts_with("HTTP/1.1 308 "), is_sent, "{listener:?} {head}{more}: {said}");
            if is_sent {
                assert!(said.contains("\r\nlocation: https://a.example:7080/shared/x?y=1\r\n"), "{said}");
            } else {
                assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("\"tls_required\""), "{said}");
            }
        }
        let half = answer(b"GET / HTTP/1.1\r\nHost: a", Listener::Edge);
        assert!(half.starts_with("HTTP/1.1 400 "), "{half}");
        let bodiless = answer(b"HEAD / HTTP/1.1\r\n\r\n", Listener::Api);
        assert!(bodiless.ends_with("\r\n\r\n") && !bodiless.contains("content-length: 0"), "{bodiless}");
    }
}
