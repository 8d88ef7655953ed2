//! What a connection begins with if it is not HTTP/1.1: the parser refuses that without a word.
//!
//! Leaves out: reading it (`arrived`).

use std::net::IpAddr;

use crate::actors::complaints::{Complaint, Complaints};

/// Logs what a connection that begins with `read` speaks, if it is not HTTP/1.1.
pub(super) fn look(read: &[u8], peer: Option<IpAddr>, complaints: &Complaints) {
    if let Some(what) = recognize(read) {
        complaints.log(&complaint(what, peer));
    }
}

/// Which protocol begins like this, and what to do about it.
fn recognize(read: &[u8]) -> Option<&'static str> {
    // The first record of TLS has the type 22 and a version that begins with 3.
    if let [22, 3, ..] = read {
        return Some(
            "TLS; this port has none: connect with ws:// or http://, set certificates ([tls]), or put a \
             proxy in front that does TLS (docs/PROXIES.md)",
        );
    }
    let begins =
        |with: &[u8]| !read.is_empty() && with.starts_with(&read[..read.len().min(with.len())]);
    if read.len() >= 4 && begins(b"PRI * HTTP/2.0") {
        return Some(
            "HTTP/2; this port has HTTP/1.1: make the proxy in front use that (docs/PROXIES.md)",
        );
    }
    if read.len() >= 6 && (begins(b"PROXY ") || begins(b"\r\n\r\n\0\r\nQUIT\n")) {
        return Some(
            "the PROXY protocol, which this server does not support: turn it off in the proxy in front, \
             which sends the client's address in X-Forwarded-For (docs/PROXIES.md)",
        );
    }
    None
}

fn complaint(what: &str, peer: Option<IpAddr>) -> Complaint {
    let peer = peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string());
    let line = format!("{peer} speaks {what}");
    Complaint::hourly(line.clone(), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_http_is_named_and_http_is_not() {
        for (bytes, word) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], "TLS"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "PROXY"),
        ] {
            assert!(recognize(bytes).is_some_and(|what| what.contains(word)), "{word}");
        }
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"PUT /", b"PR", b"PROPFIND /", b"\r\n\r\nGET /", b"\x16"]
        {
            assert_eq!(recognize(bytes), None, "{}", bytes.escape_ascii());
        }
    }
}
