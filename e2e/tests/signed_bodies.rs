//! Webhooks whose sender signs the raw body verify behind a share: 1,000 random bodies, signed as Stripe, GitHub and
//! Standard Webhooks do, over HTTP/1.1 with a length, in chunks of any size, and over HTTP/2.

use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use e2e::{
    Hub, Machine, api,
    http::{self, Connection, Request},
    ports::loopback,
    targets::succeeds,
};
use ring::hmac;
use serde_json::json;

const BODIES: u64 = 1_000;
const BODY_BYTES_MAX: u64 = 200 << 10;
/// Every so many go over HTTP/2, by curl: a process each.
const EVERY_OVER_HTTP_2: u64 = 10;
const SECRET: &[u8] = b"the secret of a sender of webhooks";
const SENT_AT: &str = "1772445600";

#[test]
fn a_thousand_signed_bodies_verify_at_the_far_end() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(verifier(), "hooks", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "hooks" }));
    let (edge, _, link) = http::split_link(&api::text(&share, "shareUrl"));
    let path = format!("{}/hook?a=1", link.trim_end_matches('/'));
    let mut connection = Connection::open(edge).expect("the edge listens");

    let mut refused = 0;
    for number in 0..BODIES {
        let mut random = Random(number);
        let body = random.body();
        let headers = headers(&mut random, number, &body);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // Some are changed on their way to the edge: the target is not one that finds everything right.
        let is_forged = number % 100 == 99;
        let sent = if is_forged { [&body[..], b"!"].concat() } else { body };
        let status = if number % EVERY_OVER_HTTP_2 == 5 {
            over_http_2(&format!("http://{edge}{path}"), &headers, &sent)
        } else if random.below(2) == 0 {
            let answer = connection.request("POST", &path, &headers, Some(&sent));
            answer.expect("an answer").status
        } else {
            let host = edge.to_string();
            in_chunks(
                &mut connection,
                &path,
                &[&headers[..], &[("host", &host)]].concat(),
                &sent,
                &mut random,
            )
        };
        assert_eq!(status, if is_forged { 400 } else { 200 }, "body {number}, {} bytes", sent.len());
        refused += u64::from(is_forged);
    }
    assert_eq!(refused, BODIES / 100);
}

/// splitmix64: the same bodies in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Any bytes, text of many languages, line ends of every kind, or what looks like framing; mostly short.
    fn body(&mut self) -> Vec<u8> {
        const TEXTS: [&str; 8] = [
            "\r\n",
            "\n",
            "\0",
            "{\"amount\": 1.0}",
            "Grüße, 世界 🌍",
            "a=1&b=%20+",
            "0\r\n\r\n",
            "\u{feff}<html><body>",
        ];
        let length = match self.below(10) {
            0 => 0,
            1..6 => self.below(2_048),
            _ => self.below(BODY_BYTES_MAX + 1),
        };
        let length = usize::try_from(length).expect("a body fits into memory");
        let is_text = self.below(2) == 0;
        let mut body = Vec::with_capacity(length + 32);
        while body.len() < length {
            if is_text {
                let text = TEXTS[usize::try_from(self.below(8)).expect("below eight")];
                body.extend_from_slice(text.as_bytes());
            } else {
                body.extend_from_slice(&self.next().to_ne_bytes());
            }
        }
        // Text is cut within a character now and then: bodies are bytes.
        body.truncate(length);
        body
    }
}

fn hmac_sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, SECRET));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a sender of one of three kinds says of its body.
fn headers(random: &mut Random, number: u64, body: &[u8]) -> Vec<(&'static str, String)> {
    const TYPES: [&str; 5] = [
        "application/json",
        "application/x-www-form-urlencoded",
        "text/html; charset=utf-8",
        "application/octet-stream",
        "multipart/form-data; boundary=\"x y\"",
    ];
    let kind = TYPES[usize::try_from(random.below(5)).expect("below five")];
    let mut headers = vec![("content-type", kind.to_owned())];
    match number % 3 {
        0 => {
            let signature = hex(&hmac_sha256(&[SENT_AT.as_bytes(), b".", body]));
            headers.push(("stripe-signature", format!("t={SENT_AT},v1={signature}")));
        }
        1 => headers.push(("x-hub-signature-256", format!("sha256={}", hex(&hmac_sha256(&[body]))))),
        _ => {
            let id = format!("msg_{number}");
            let signature = hmac_sha256(&[id.as_bytes(), b".", SENT_AT.as_bytes(), b".", body]);
            headers.push(("webhook-id", id));
            headers.push(("webhook-timestamp", SENT_AT.to_owned()));
            headers.push(("webhook-signature", format!("v1,{}", BASE64.encode(signature))));
        }
    }
    headers
}

/// What a receiver checks, from nothing but the request.
fn is_genuine(request: &Request) -> bool {
    let body = request.body.as_slice();
    if let Some(given) = request.header("stripe-signature") {
        let (time, signature) = given.split_once(",v1=").unwrap_or_default();
        let time = time.trim_start_matches("t=");
        return signature == hex(&hmac_sha256(&[time.as_bytes(), b".", body]));
    }
    if let Some(given) = request.header("x-hub-signature-256") {
        return given == format!("sha256={}", hex(&hmac_sha256(&[body])));
    }
    let part = |name| request.header(name).unwrap_or_default();
    let (id, time) = (part("webhook-id"), part("webhook-timestamp"));
    let expected = hmac_sha256(&[id.as_bytes(), b".", time.as_bytes(), b".", body]);
    part("webhook-signature") == format!("v1,{}", BASE64.encode(expected))
}

/// A target that answers 200 to what is genuine and 400 to anything else.
fn verifier() -> SocketAddr {
    let listener = TcpListener::bind(loopback(0)).expect("the loopback has free ports");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut connection = Connection::accepted(stream);
                while let Ok(Some(request)) = connection.next_request() {
                    let as_sent = request.method == "POST" && request.target == "/hook?a=1";
                    let status = if as_sent && is_genuine(&request) { "200 OK" } else { "400 Bad Request" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    if connection.send(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn in_chunks(
    connection: &mut Connection,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    random: &mut Random,
) -> u16 {
    let mut message = format!("POST {path} HTTP/1.1\r\ntransfer-encoding: chunked\r\n").into_bytes();
    for (name, value) in headers {
        message.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    message.extend_from_slice(b"\r\n");
    let mut rest = body;
    while !rest.is_empty() {
        let size =
            rest.len().min(usize::try_from(1 + random.below(40_000)).expect("a chunk fits into memory"));
        let (chunk, after) = rest.split_at(size);
        message.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        message.extend_from_slice(chunk);
        message.extend_from_slice(b"\r\n");
        rest = after;
    }
    message.extend_from_slice(b"0\r\n\r\n");
    connection.send(&message).expect("the edge takes it");
    connection.answer("POST").expect("an answer").status
}

fn over_http_2(url: &str, headers: &[(&str, &str)], body: &[u8]) -> u16 {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), body).expect("the file is ours");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary"]);
    curl.arg(format!("@{}", file.path().display()));
    for (name, value) in headers {
        curl.arg("-H").arg(format!("{name}: {value}"));
    }
    succeeds(curl.arg(url)).parse().expect("a status")
}
