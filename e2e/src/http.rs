//! HTTP/1.1 on a socket, written out: what a test sends is what goes over the wire, and what comes back is unchanged.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// How long the client waits for the next bytes.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer, with its body whole.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// In order, repeated names kept, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}) in status {}: {}", self.status, self.text()))
    }
    /// The body as JSON, if the status is the expected one.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "body: {}", self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }
}

/// A request as a target received it, with its body whole.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// As in [`Response`].
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

fn first<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// A connection that is kept for several requests.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, READ_TIMEOUT)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// A connection that a target accepted.
    pub fn accepted(stream: TcpStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    /// Reads one request, on the target's side; `None` when the peer has left.
    ///
    /// # Errors
    /// Those of the system, or a request that is no HTTP.
    pub fn next_request(&mut self) -> io::Result<Option<Request>> {
        if self.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let line = self.text_line()?;
        let mut words = line.split(' ').map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(not_http(&line)) };
        let headers = self.headers()?;
        let body = self.framed_body(&headers)?.unwrap_or_default();
        Ok(Some(Request { method, target, headers, body }))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Those of the system.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// Those of the system, or an answer that is no HTTP.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<Response> {
        let mut message = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            let host = self.reader.get_ref().peer_addr()?;
            message.extend_from_slice(format!("host: {host}\r\n").as_bytes());
        }
        for (name, value) in headers {
            message.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = body {
            message.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(body.unwrap_or_default());
        self.send(&message)?;
        self.answer(method)
    }

    /// Reads one answer; interim answers (1xx) are passed over.
    ///
    /// # Errors
    /// Those of the system, or an answer that is no HTTP.
    pub fn answer(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let status = self.status_line()?;
            let headers = self.headers()?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let mut response = Response { status, headers, body: Vec::new() };
            let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
            if !bodiless {
                response.body = self.body(&response)?;
            }
            return Ok(response);
        }
    }

    fn text_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn status_line(&mut self) -> io::Result<u16> {
        let line = self.text_line()?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        status.ok_or_else(|| not_http(&line))
    }

    fn headers(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let line = self.text_line()?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| not_http(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, head: &Response) -> io::Result<Vec<u8>> {
        if let Some(body) = self.framed_body(&head.headers)? {
            return Ok(body);
        }
        let mut body = Vec::new();
        self.reader.read_to_end(&mut body)?;
        Ok(body)
    }

    /// The body that the head says the length of.
    fn framed_body(&mut self, headers: &[(String, String)]) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        if first(headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.text_line()?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| not_http(&line))?;
                if size == 0 {
                    let _trailers = self.headers()?;
                    return Ok(Some(body));
                }
                self.take_exactly(size, &mut body)?;
                self.text_line()?;
            }
        }
        let Some(length) = first(headers, "content-length") else { return Ok(None) };
        self.take_exactly(length.parse().map_err(|_| not_http(length))?, &mut body)?;
        Ok(Some(body))
    }

    fn take_exactly(&mut self, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let taken = self.reader.by_ref().take(length).read_to_end(into)?;
        if taken as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn not_http(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is no HTTP/1: {line:?}"))
}

/// One request on a connection of its own.
///
/// # Errors
/// Those of the system, or an answer that is no HTTP.
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> io::Result<Response> {
    let mut all = vec![("connection", "close")];
    all.extend_from_slice(headers);
    Connection::open(address)?.request(method, target, &all, body)
}

/// A GET that must be answered.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Response {
    request(address, "GET", target, &[], None)
        .unwrap_or_else(|error| panic!("GET {target} on {address}: {error}"))
}

/// Address and path of a link, `http://host:port/path`; names under `localhost` are the loopback.
#[track_caller]
pub fn split_link(link: &str) -> (SocketAddr, String, String) {
    let rest = link.strip_prefix("http://").unwrap_or_else(|| panic!("not a plain link: {link}"));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.unwrap_or_else(|| panic!("a link without a port: {link}"));
    (crate::ports::loopback(port), authority.to_owned(), format!("/{path}"))
}
