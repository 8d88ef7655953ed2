//! Which proxies are trusted to say whom they forward for.
//!
//! Keeps: an address counts only if a trusted proxy wrote it. `x-forwarded-for` is read from its end, where the nearest
//! proxy has put what it saw; what a client wrote itself comes earlier and is never reached.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The addresses with the same first bits: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    bits: u32,
}

/// The text is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address or a range of addresses; write 10.0.0.1, 10.0.0.0/8 or fd00::/8")]
pub struct InvalidRange(String);

impl AddressRange {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let first: IpAddr = address.parse().map_err(|_| invalid())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| invalid())?;
        if bits > most { Err(invalid()) } else { Ok(Self { first, bits }) }
    }
}

/// Whether `address` belongs to a trusted proxy.
pub(crate) fn is_trusted(trusted: &[AddressRange], address: IpAddr) -> bool {
    trusted.iter().any(|range| range.contains(address))
}

/// Where the client is, if `peer` is a trusted proxy: the last address in `forwarded` (the values of `x-forwarded-for`,
/// in order) that is not a trusted proxy itself.
pub(crate) fn forwarded_address<'a>(
    trusted: &[AddressRange],
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> Option<IpAddr> {
    let is_trusted = |address| is_trusted(trusted, address);
    if !is_trusted(peer) {
        return None;
    }
    let mut nearest = None;
    for text in forwarded.rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        // A text that is not an address was not written by a proxy that we can read: the proxy that passed it on is the
        // nearest.
        let Some(address) = parse_address(text) else { break };
        nearest = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}

/// With or without a port.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    let address = address.or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn ranges(texts: &[&str]) -> Vec<AddressRange> {
        texts.iter().map(|text| text.parse().expect("a range")).collect()
    }

    fn found(peer: &str, forwarded: &[&str]) -> Option<String> {
        let trusted = ranges(&["10.0.0.0/8", "::1", "fd00::/8"]);
        let forwarded = forwarded.iter().map(|text| text.as_bytes());
        let found = forwarded_address(&trusted, address(peer), forwarded);
        found.map(|address| address.to_string())
    }

    #[test]
    fn a_client_cannot_say_where_it_is() {
        assert_eq!(found("192.0.2.1", &["198.51.100.7"]), None, "it is no proxy");
        let shown = found("10.0.0.1", &["203.0.113.9, 198.51.100.7"]);
        assert_eq!(shown.as_deref(), Some("198.51.100.7"), "the last one is what the proxy saw");
        let shown = found("10.0.0.1", &["203.0.113.9", "198.51.100.7"]);
        assert_eq!(shown.as_deref(), Some("198.51.100.7"), "also where each has its own line");
    }

    #[test]
    fn a_chain_of_trusted_proxies_is_followed_to_its_beginning() {
        let shown = found("10.0.0.1", &["198.51.100.7, 10.2.3.4,10.0.0.9"]);
        assert_eq!(shown.as_deref(), Some("198.51.100.7"));
        assert_eq!(found("10.0.0.1", &["10.2.3.4"]).as_deref(), Some("10.2.3.4"));
        assert_eq!(found("10.0.0.1", &[]), None);
        assert_eq!(found("10.0.0.1", &["198.51.100.7, what?"]), None);
        assert_eq!(found("10.0.0.1", &["what?, 10.2.3.4"]).as_deref(), Some("10.2.3.4"));
    }

    #[test]
    fn ports_and_both_families_are_read() {
        for (peer, forwarded, expected) in [
            ("::ffff:10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
            ("::1", "2001:db8::7", "2001:db8::7"),
            ("fd00::5", "[2001:db8::7]:4711", "2001:db8::7"),
            ("::1", "[2001:db8::7]", "2001:db8::7"),
        ] {
            assert_eq!(found(peer, &[forwarded]).as_deref(), Some(expected), "{forwarded}");
        }
    }

    #[test]
    fn a_range_is_an_address_and_a_number_of_bits() {
        let all = ranges(&["0.0.0.0/0"]);
        assert!(all[0].contains(address("255.1.2.3")) && !all[0].contains(address("::2")));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "host", "10.0.0.0/-1"] {
            assert!(wrong.parse::<AddressRange>().is_err(), "{wrong}");
        }
    }
}
