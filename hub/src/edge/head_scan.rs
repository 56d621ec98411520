//! A look at the bytes of a request head for what hyper's parser takes or mends without a word: pure.
//!
//! hyper's parser decides what a request is. This one, line by line, only says which heads another reader could read
//! differently, so that they are refused. A head that came together with what was before it is not seen here, and gets
//! what hyper makes of it: a body's end, too, is hyper's to find.

use super::conn::Flaws;

/// A name that is looked for, its colon, and a length.
const START_BYTES: usize = 40;
/// What a head ends with.
const EMPTY_LINE: [u8; 4] = *b"\r\n\r\n";

/// Where in a head we are.
#[derive(Debug)]
pub(super) struct HeadScan {
    /// The beginning of the line.
    start: [u8; START_BYTES],
    /// How long the line is so far, without its end.
    len: usize,
    /// The last bytes.
    last: [u8; 4],
    /// The request line has been read.
    in_headers: bool,
    /// Header lines that say how long the body is.
    lengths: u8,
    /// What the first of them said.
    length: u64,
    /// The head is complete, or is not looked at.
    done: bool,
    /// Bytes behind the head.
    beyond: u64,
}

impl Default for HeadScan {
    fn default() -> Self {
        Self {
            start: [0; START_BYTES],
            len: 0,
            last: EMPTY_LINE,
            in_headers: false,
            lengths: 0,
            length: 0,
            done: false,
            beyond: 0,
        }
    }
}

impl HeadScan {
    /// For the head behind this one. Its first bytes may have come already: then it is not looked at.
    pub(super) fn next(&self) -> Self {
        let is_at_start = self.beyond == self.length || self.last == EMPTY_LINE;
        Self { done: !is_at_start, ..Self::default() }
    }

    /// Takes note of what comes behind a head.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.beyond += bytes.len() as u64;
        self.keep_last(bytes);
    }

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
            let Some(end) = end else { return Flaws(flaws) };
            rest = &rest[end + 1..];
            flaws |= self.end_line();
        }
        self.pass(rest);
        Flaws(flaws)
    }

    fn take(&mut self, line: &[u8]) {
        if let Some(room) = self.start.get_mut(self.len..) {
            let len = room.len().min(line.len());
            room[..len].copy_from_slice(&line[..len]);
        }
        self.len += line.len();
        self.keep_last(line);
    }

    fn keep_last(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(4)..];
        self.last.rotate_left(new.len());
        self.last[4 - new.len()..].copy_from_slice(new);
    }

    fn end_line(&mut self) -> u8 {
        let mut flaws = 0;
        let has_return = self.len > 0 && self.last[3] == b'\r';
        self.keep_last(b"\n");
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

    fn says_length(&mut self) -> bool {
        let start = &self.start[..self.len.min(START_BYTES)];
        let behind = |name: &[u8]| {
            let (lead, rest) = start.split_at_checked(name.len())?;
            lead.eq_ignore_ascii_case(name).then_some(rest)
        };
        match start.first() {
            Some(b'c' | b'C') => {
                let Some(length) = behind(b"content-length:") else { return false };
                let length = std::str::from_utf8(length).ok().and_then(|text| text.trim().parse().ok());
                self.length = length.unwrap_or(u64::MAX);
                true
            }
            Some(b't' | b'T') => {
                let is_coding = behind(b"transfer-encoding:").is_some();
                if is_coding {
                    self.length = u64::MAX;
                }
                is_coding
            }
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
    fn the_next_head_is_looked_at_when_nothing_of_it_has_come() {
        let flawed = b"GET / HTTP/1.1\nHost: a\r\n\r\n";
        for (first, behind, is_seen) in [
            ("GET / HTTP/1.1\r\n\r\n", "", true),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel", "lo", true),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n", "a\r\n0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\n\r\n", "GET /next", false),
            ("GET / HTTP/1.1\r\n\r\nGET /next", "", false),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloG", "", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", "", false),
        ] {
            let mut scan = HeadScan::default();
            assert_eq!(scan.read(first.as_bytes()), Flaws::default());
            scan.pass(behind.as_bytes());
            assert_eq!(scan.next().read(flawed) != Flaws::default(), is_seen, "{first:?}");
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
