//! Where each HTTP request of a connection ends, so that one is handed on at a time.
//!
//! A parsed request takes hundreds of times the bytes that it was sent with, and actix-http parses all that have
//! arrived. So whoever sends many at once must be held back before that.
//!
//! Keeps: nothing is handed on behind a head whose body is not understood here. Leaves out: what a request says
//! (actix-http parses it, and refuses what is wrong), and the clock (`server::talk`).

/// The beginning of a line of a head that is looked at: longer than each header that matters.
const LINE_BYTES: usize = 64;
/// Digits of the size of a chunk.
const SIZE_DIGITS_MAX: u8 = 8;

/// Follows the bytes of a connection.
#[derive(Debug)]
pub(crate) struct Requests {
    at: At,
    /// The current line of a head or of a trailer, as far as it matters.
    line: Vec<u8>,
    /// What the head has said of the body so far.
    body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing of a request has arrived.
    Before,
    Head,
    Sized(u64),
    /// The size of a chunk, so far, its digits, and whether they are over.
    Size(u64, u8, bool),
    /// The data of a chunk, with the end of its line.
    Chunk(u64),
    /// Lines after the last chunk.
    Trailer,
    Unknown,
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    Sized(u64),
    Chunked,
    Unknown,
}

impl Requests {
    pub(crate) const fn new() -> Self {
        Self { at: At::Before, line: Vec::new(), body: Body::None }
    }

    /// How many of these bytes, from the first one on, belong to the current request. If none do and it is not whole,
    /// nobody knows where it ends.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            taken += match &mut self.at {
                At::Sized(left) | At::Chunk(left) => {
                    let some = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= some as u64;
                    self.data_ends();
                    some
                }
                At::Before | At::Head | At::Trailer | At::Size(..) => {
                    self.byte(rest[0]);
                    1
                }
                At::Whole | At::Unknown => break,
            };
        }
        taken
    }

    /// Whether all of the current request has been taken.
    pub(crate) fn is_whole(&self) -> bool {
        self.at == At::Whole
    }

    /// Whether some of the current request has been taken, and not all.
    pub(crate) fn is_begun(&self) -> bool {
        !matches!(self.at, At::Before | At::Whole)
    }

    /// Whether the current request is within its head, or has not begun.
    pub(crate) fn is_head(&self) -> bool {
        matches!(self.at, At::Before | At::Head)
    }

    /// Begins with the next request.
    pub(crate) fn next(&mut self) {
        *self = Self::new();
    }

    fn data_ends(&mut self) {
        match self.at {
            At::Sized(0) => self.at = At::Whole,
            At::Chunk(0) => self.at = At::Size(0, 0, false),
            _ => {}
        }
    }

    fn byte(&mut self, byte: u8) {
        match self.at {
            // Empty lines before a request mean nothing.
            At::Before if matches!(byte, b'\r' | b'\n') => {}
            At::Size(size, digits, is_over) => self.size(size, digits, is_over, byte),
            At::Before | At::Head | At::Trailer if byte == b'\n' => self.line_ends(),
            At::Before | At::Head | At::Trailer => {
                if self.at == At::Before {
                    self.at = At::Head;
                }
                if self.line.len() < LINE_BYTES {
                    self.line.push(byte.to_ascii_lowercase());
                }
            }
            At::Sized(_) | At::Chunk(_) | At::Unknown | At::Whole => {}
        }
    }

    fn line_ends(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if !line.is_empty() {
            if self.at == At::Head {
                self.header(line);
            }
            return;
        }
        self.at = match (self.at, self.body) {
            (At::Trailer, _) | (_, Body::None | Body::Sized(0)) => At::Whole,
            (_, Body::Sized(bytes)) => At::Sized(bytes),
            (_, Body::Chunked) => At::Size(0, 0, false),
            (_, Body::Unknown) => At::Unknown,
        };
    }

    /// A line of the head, in lower case.
    fn header(&mut self, line: &[u8]) {
        let said = if let Some(value) = line.strip_prefix(b"content-length:") {
            let value = str::from_utf8(value).ok();
            let bytes = value.and_then(|value| value.trim().parse().ok());
            bytes.map_or(Body::Unknown, Body::Sized)
        } else if let Some(value) = line.strip_prefix(b"transfer-encoding:") {
            if value.trim_ascii() == b"chunked" { Body::Chunked } else { Body::Unknown }
        } else {
            return;
        };
        // Two of these are an error, or should be.
        self.body = if self.body == Body::None { said } else { Body::Unknown };
    }

    /// A byte of the line with the size of a chunk.
    fn size(&mut self, size: u64, digits: u8, is_over: bool, byte: u8) {
        self.at = match (byte, char::from(byte).to_digit(16)) {
            (b'\n', _) if digits == 0 => At::Unknown,
            (b'\n', _) if size == 0 => At::Trailer,
            (b'\n', _) => At::Chunk(size + 2),
            (_, Some(digit)) if !is_over && digits < SIZE_DIGITS_MAX => {
                At::Size(size * 16 + u64::from(digit), digits + 1, false)
            }
            (_, Some(_)) if !is_over => At::Unknown,
            _ => At::Size(size, digits, true),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first request of `text`, whatever it is cut into.
    fn first(text: &str) -> Option<&str> {
        let whole = |piece: usize| {
            let (mut requests, mut taken) = (Requests::new(), 0);
            for bytes in text.as_bytes().chunks(piece) {
                let some = requests.take(bytes);
                taken += some;
                if some < bytes.len() {
                    break;
                }
            }
            requests.is_whole().then_some(taken)
        };
        let ends: Vec<_> = [1, 2, 3, 7, text.len().max(1)].map(whole).into();
        assert!(ends.iter().all(|end| *end == ends[0]), "{text:?}: {ends:?}");
        ends[0].map(|end| &text[..end])
    }

    #[test]
    fn each_request_ends_where_it_says() {
        for request in [
            "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
            "\r\nGET / HTTP/1.0\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\r\n\r\nx",
            "PUT / HTTP/1.1\r\nContent-Length:0\r\nx: y\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\n\r\n\r\nx\r\n0\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n00\r\na: b\r\n\r\n",
        ] {
            let two = format!("{request}GET /next HTTP/1.1\r\n\r\n");
            assert_eq!(first(&two), Some(request));
            for end in 0..request.len() {
                assert_eq!(first(&request[..end]), None, "{:?}", &request[..end]);
            }
        }
    }

    #[test]
    fn what_is_not_understood_does_not_end() {
        let next = "GET /next HTTP/1.1\r\n\r\n";
        for head in [
            "content-length: 5\r\ncontent-length: 5\r\n\r\n",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "content-length: five\r\n\r\n",
            "transfer-encoding: gzip\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\n123456789\r\n",
        ] {
            assert_eq!(first(&format!("POST / HTTP/1.1\r\n{head}{next}{next}")), None, "{head:?}");
        }
    }

    #[test]
    fn only_what_has_begun_is_unfinished() {
        let mut requests = Requests::new();
        assert!(requests.is_head() && !requests.is_begun());
        assert_eq!(requests.take(b"\r\n"), 2);
        assert!(!requests.is_begun());
        assert_eq!(requests.take(b"P / HTTP/1.1\r\ncontent-length: 2\r\n\r\n1"), 36);
        assert!(requests.is_begun() && !requests.is_head());
        assert_eq!(requests.take(b"2GET"), 1);
        assert!(requests.is_whole() && !requests.is_begun());
        requests.next();
        assert_eq!(requests.take(b"GET"), 3);
    }
}
