//! A look at the bytes of a request head for what hyper's parser takes or mends without a word: pure.
//!
//! hyper's parser decides what a request is. This one line at a time only says which heads another reader could read
//! differently, so that they are refused. A head behind the body of a pipelined request is not seen here, and gets
//! what hyper makes of it.

use super::conn::Flaws;

/// The longest name that is looked for, with its colon.
const NAME_BYTES: usize = b"transfer-encoding:".len();

/// Where in a head we are.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// The beginning of the line.
    start: [u8; NAME_BYTES],
    /// How long the line is so far, without its end.
    len: usize,
    /// The last byte.
    last: u8,
    /// The request line has been read.
    in_headers: bool,
    /// Header lines that say how long the body is.
    lengths: u8,
    /// The head is complete.
    done: bool,
}

impl HeadScan {
    /// Reads on; what is wrong with what was read.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Flaws {
        let mut flaws = 0;
        let mut rest = bytes;
        while !self.done && !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let line = &rest[..end.unwrap_or(rest.len())];
            self.take(line);
            if !self.in_headers && memchr::memchr(b'#', line).is_some() {
                flaws |= Flaws::FRAGMENT.0;
            }
            let Some(end) = end else { break };
            rest = &rest[end + 1..];
            flaws |= self.end_line();
        }
        Flaws(flaws)
    }

    fn take(&mut self, line: &[u8]) {
        if let Some(room) = self.start.get_mut(self.len..) {
            let len = room.len().min(line.len());
            room[..len].copy_from_slice(&line[..len]);
        }
        self.len += line.len();
        self.last = line.last().copied().unwrap_or(self.last);
    }

    fn end_line(&mut self) -> u8 {
        let mut flaws = 0;
        let has_return = self.len > 0 && self.last == b'\r';
        if !has_return {
            flaws |= Flaws::BARE_LF.0;
        }
        let is_empty = self.len == usize::from(has_return);
        if !self.in_headers {
            // Empty lines before the request line are passed over, as hyper does.
            self.in_headers = !is_empty;
        } else if is_empty {
            self.done = true;
        } else if self.says_length() {
            self.lengths += 1;
            if self.lengths > 1 {
                flaws |= Flaws::LENGTHS.0;
            }
        }
        self.len = 0;
        flaws
    }

    fn says_length(&self) -> bool {
        let start = &self.start[..self.len.min(NAME_BYTES)];
        let is = |name: &[u8]| start.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        match start.first() {
            Some(b'c' | b'C') => is(b"content-length:"),
            Some(b't' | b'T') => is(b"transfer-encoding:"),
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut.
    fn flaws(head: &str) -> Flaws {
        let whole = HeadScan::default().read(head.as_bytes());
        for at in 0..=head.len() {
            let mut scan = HeadScan::default();
            let (first, second) = head.as_bytes().split_at(at);
            let both = Flaws(scan.read(first).0 | scan.read(second).0);
            assert_eq!(both, whole, "cut at {at}: {head:?}");
        }
        whole
    }

    #[test]
    fn a_plain_head_has_no_flaw() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\nReferer: /#x\r\n\r\n",
            "\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n#\n\nContent-Length: 5\r\nabc",
            "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoded: x\r\nX-Content-Length: 1\r\n\r\n",
            "GET / HTT",
        ] {
            assert_eq!(flaws(head), Flaws::default(), "{head:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_named() {
        for (head, flaw) in [
            ("GET /a#b HTTP/1.1\r\n\r\n", Flaws::FRAGMENT),
            ("\r\nGET /a#b HTTP/1.1\r\n\r\n", Flaws::FRAGMENT),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Flaws::BARE_LF),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Flaws::BARE_LF),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Flaws::BARE_LF),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\ntransfer-encoding: chunked\r\n\r\n", Flaws::LENGTHS),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-LENGTH: 1\r\n\r\n", Flaws::LENGTHS),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Flaws::LENGTHS),
        ] {
            assert_eq!(flaws(head), flaw, "{head:?}");
        }
    }
}
