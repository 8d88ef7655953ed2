//! How often an address may be wrong: with a token, or a proof.
//!
//! Keeps: whoever guesses is slowed down, and this shuts out nobody at other addresses; for an IPv6 address, the first
//! half counts. Leaves out: what is guessed, and the answer to a guess that is not looked at.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::strangers::network;

/// How many addresses are remembered; with one more, all are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// Recent wrong guesses, by address.
pub(crate) struct Guesses {
    burst: u32,
    interval: Duration,
    /// When the last wrong guess of an address is forgiven.
    forgiven: Mutex<HashMap<IpAddr, Instant>>,
}

impl Guesses {
    /// `burst` guesses may be wrong at once, and one more for each `interval`. Until then no guess from that address
    /// may be looked at, because the answer would tell whether it is right.
    pub(crate) fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, forgiven: Mutex::default() }
    }

    /// How long guesses from `address` are not looked at; `None` if they are.
    pub(crate) fn blocked(&self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let forgiven = *self.forgiven.lock().get(&place(address))?;
        let left = forgiven.saturating_duration_since(now);
        left.checked_sub(self.interval * (self.burst - 1)).filter(|wait| !wait.is_zero())
    }

    /// A wrong one came from `address`.
    pub(crate) fn add(&self, address: Option<IpAddr>, now: Instant) {
        let address = place(address);
        let mut all = self.forgiven.lock();
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&address) {
            all.retain(|_, forgiven| *forgiven > now);
            if all.len() >= ADDRESSES_MAX {
                all.clear();
            }
        }
        let forgiven = all.entry(address).or_insert(now);
        *forgiven = (*forgiven).max(now) + self.interval;
    }
}

/// All whose address is unknown share one place.
fn place(address: Option<IpAddr>) -> IpAddr {
    address.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), network)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 10;
    const INTERVAL: Duration = Duration::from_secs(6);

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn guesses() -> (Guesses, Instant) {
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let now = Instant::now();
        (Guesses::new(BURST, INTERVAL), now)
    }

    #[test]
    fn an_address_that_guesses_is_slowed_down_and_no_other() {
        let ((guesses, now), mallory) = (guesses(), Some(address("192.0.2.1")));
        for _ in 0..BURST {
            assert_eq!(guesses.blocked(mallory, now), None);
            guesses.add(mallory, now);
        }
        assert_eq!(guesses.blocked(mallory, now), Some(INTERVAL));
        for other in [Some(address("192.0.2.2")), None] {
            assert_eq!(guesses.blocked(other, now), None);
        }
        let later = now + INTERVAL;
        assert_eq!(guesses.blocked(mallory, later), None);
        guesses.add(mallory, later);
        assert_eq!(guesses.blocked(mallory, later), Some(INTERVAL));
        assert_eq!(guesses.blocked(mallory, later + INTERVAL * BURST), None);
    }

    #[test]
    fn addresses_of_one_network_are_one_and_few_are_remembered() {
        let place = |text| place(Some(address(text)));
        assert_eq!(place("2001:db8::1"), place("2001:db8::ffff:0:0:1"));
        assert_ne!(place("2001:db8::1"), place("2001:db8:0:1::1"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
        let (guesses, now) = guesses();
        for number in 0..=ADDRESSES_MAX as u32 {
            guesses.add(Some(std::net::Ipv4Addr::from_bits(number).into()), now);
        }
        assert!(guesses.forgiven.lock().len() <= ADDRESSES_MAX);
    }
}
