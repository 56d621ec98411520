//! Messages whose end, or whose number, somebody could read differently, and what the edge has to make of each.
//!
//! The classes are those of the known bugs of other products (docs: CL.TE, TE.CL, TE.TE, spellings of lengths and chunk
//! sizes, line ends, folded lines, pipelining behind a body or an upgrade). `{one}` stands for the path of the request
//! that is meant, `{two}` for that of the one that is smuggled, `{host}` for the share's host.

/// What has to become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No target sees anything of it, and the connection is closed.
    Refused,
    /// One request, whose body looks like another one.
    One,
    /// Two requests, one behind the other.
    Two,
    /// The second of two is refused.
    FirstOnly,
}

/// A message.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub message: &'static str,
    pub verdict: Verdict,
}

impl Case {
    /// The bytes that are sent; the number makes its paths its own.
    pub fn bytes(&self, number: usize, host: &str) -> Vec<u8> {
        let (one, two) = self.paths(number);
        self.message.replace("{one}", &one).replace("{two}", &two).replace("{host}", host).into_bytes()
    }

    /// The paths of the request that is meant, and of the one that is smuggled.
    pub fn paths(&self, number: usize) -> (String, String) {
        // Two digits: the lengths that some of the messages say count on it.
        (format!("/one-{number:02}"), format!("/two-{number:02}"))
    }
}

const fn case(name: &'static str, verdict: Verdict, message: &'static str) -> Case {
    Case { name, message, verdict }
}

use Verdict::{FirstOnly, One, Refused, Two};

/// Every message.
pub const CASES: &[Case] = &[
    // Two ways to say how long the body is.
    case(
        "CL.TE",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 39\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "TE.CL",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n40\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99\r\n\r\n\r\n0\r\n\r\n",
    ),
    case(
        "CL and an empty TE",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding:\r\n\r\nhello",
    ),
    case(
        "CL twice, different",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    ),
    case(
        "CL twice, the same",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    case("CL as a list", Refused, "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5, 5\r\n\r\nhello"),
    case(
        "CL as another list",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5, 0\r\n\r\nhello",
    ),
    case(
        "CL behind an alias of TE",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\nhello",
    ),
    case(
        "TE beside an alias of CL",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent_Length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    // Spellings of a length.
    case("CL with a plus", Refused, "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: +5\r\n\r\nhello"),
    case(
        "CL below nothing",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: -5\r\n\r\nhello",
    ),
    case(
        "CL in hexadecimal",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0x5\r\n\r\nhello",
    ),
    case(
        "CL with an underscore",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0_5\r\n\r\nhello",
    ),
    case(
        "CL with an exponent",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5e0\r\n\r\nhello",
    ),
    case(
        "CL with a fraction",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5.0\r\n\r\nhello",
    ),
    case(
        "CL with a space inside",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5 0\r\n\r\nhello",
    ),
    case("CL that is empty", Refused, "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length:\r\n\r\nhello"),
    case(
        "CL in wide digits",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: ５\r\n\r\nhello",
    ),
    case(
        "CL beyond 64 bits",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
    ),
    case(
        "CL with zeros before",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0005\r\n\r\nhello",
    ),
    // Spellings of chunked.
    case(
        "TE that is nearly chunked",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE that is cut off",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunke\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE in quotes",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE with a parameter",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE with a vertical tab",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE twice, chunked first",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE twice, chunked last",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE twice, the same",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE as a list, chunked last",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE as a list, chunked first",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE as a list with nothing in it",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE identity",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: identity\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "TE with a space before the colon",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    case(
        "TE in capitals",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    case(
        "TE behind a tab",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding:\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    case(
        "TE in HTTP/1.0",
        Refused,
        "POST {one} HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "TE and CL in HTTP/1.0",
        Refused,
        "POST {one} HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    ),
    // Chunks.
    case(
        "a chunk size in hexadecimal notation",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk size with an underscore",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0_5\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk size with a plus",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk size below nothing",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk size that is empty",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk size beyond 64 bits",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk size that ends with a line feed",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk extension that ends with a line feed",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk that is longer than it says",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk that ends with a line feed",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a last chunk that ends with a line feed",
        FirstOnly,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a chunk with an extension",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
    ),
    case(
        "chunks that hold a request",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n29\r\nGET {two} HTTP/1.1\r\nHost: a\r\nX: yyyyyyy\r\n0\r\n\r\n",
    ),
    case(
        "trailers that say lengths",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTrailer: Content-Length, Transfer-Encoding, Host\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n",
    ),
    // Lines.
    case("a request line that ends with a line feed", Refused, "GET {one} HTTP/1.1\nHost: {host}\r\n\r\n"),
    case(
        "a header that ends with a line feed",
        Refused,
        "POST {one} HTTP/1.1\r\nX: y\nContent-Length: 5\r\nHost: {host}\r\n\r\nhello",
    ),
    case(
        "a head that ends with line feeds",
        Refused,
        "GET {one} HTTP/1.1\r\nHost: {host}\n\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a carriage return inside a value",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nX: y\rContent-Length: 5\r\n\r\nhello",
    ),
    case(
        "a folded line",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    case(
        "a first header that is folded",
        Refused,
        "GET {one} HTTP/1.1\r\n Host: {host}\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a space before a colon",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length : 5\r\n\r\nhello",
    ),
    case(
        "a tab before a colon",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length\t: 5\r\n\r\nhello",
    ),
    case("a header without a colon", Refused, "GET {one} HTTP/1.1\r\nHost: {host}\r\nnothing\r\n\r\n"),
    case("a header without a name", Refused, "GET {one} HTTP/1.1\r\nHost: {host}\r\n: x\r\n\r\n"),
    case("a zero byte in a value", Refused, "GET {one} HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\n"),
    case("a zero byte in a name", Refused, "GET {one} HTTP/1.1\r\nHost: {host}\r\nX\0: b\r\n\r\n"),
    case(
        "a space in a name",
        Refused,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent Length: 5\r\n\r\nhello",
    ),
    case("two spaces in the request line", Refused, "GET  {one} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    case("a tab in the request line", Refused, "GET\t{one} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    case("a space behind the version", Refused, "GET {one} HTTP/1.1 \r\nHost: {host}\r\n\r\n"),
    case("two versions", Refused, "GET {one} HTTP/1.1 HTTP/1.0\r\nHost: {host}\r\n\r\n"),
    case("a version that does not exist", Refused, "GET {one} HTTP/1.2\r\nHost: {host}\r\n\r\n"),
    case("a version in small letters", Refused, "GET {one} http/1.1\r\nHost: {host}\r\n\r\n"),
    case("HTTP/2 in HTTP/1", Refused, "GET {one} HTTP/2.0\r\nHost: {host}\r\n\r\n"),
    case("HTTP/0.9", Refused, "GET {one}\r\n\r\n"),
    // Hosts.
    case("no host", Refused, "GET {one} HTTP/1.1\r\n\r\n"),
    case("two hosts", Refused, "GET {one} HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
    case(
        "another host in the request line",
        Refused,
        "GET http://elsewhere.example{one} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case("a user before the host", Refused, "GET {one} HTTP/1.1\r\nHost: a@{host}\r\n\r\n"),
    // What comes behind.
    case(
        "two requests at once",
        Two,
        "GET {one} HTTP/1.1\r\nHost: {host}\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a request behind a body",
        Two,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhelloGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a request behind chunks",
        Two,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a request behind an upgrade that is refused",
        Two,
        "GET {one} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a request behind an upgrade to h2c",
        Two,
        "GET {one} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a request behind an expectation",
        Two,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhelloGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a request behind a flawed one",
        Refused,
        "GET {one} HTTP/1.1\nHost: {host}\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a request behind garbage",
        FirstOnly,
        "GET {one} HTTP/1.1\r\nHost: {host}\r\n\r\nXXXX\r\n\r\nGET {two} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ),
    case(
        "a GET whose body holds a request",
        One,
        "GET {one} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 39\r\n\r\nGET {two} HTTP/1.1\r\nHost: a\r\nX: yyyyy",
    ),
    case(
        "a body that Connection wants to be forgotten",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nConnection: Content-Length\r\nContent-Length: 39\r\n\r\nGET {two} HTTP/1.1\r\nHost: a\r\nX: yyyyy",
    ),
    case(
        "chunks that Connection wants to be forgotten",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    case(
        "an upgrade with a body",
        One,
        "POST {one} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 39\r\n\r\nGET {two} HTTP/1.1\r\nHost: a\r\nX: yyyyy",
    ),
];
