//! Wrong proofs: each costs the check of a signature, so a connection and an address may send few.
//!
//! Keeps: an address that has sent too many is told so, and its proofs are not looked at for a while; no other address
//! is affected. Leaves out: what a proof is (`protocol::rpc::auth`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::ws::CloseCode;
use tokio::time::Instant;

use crate::actors::guesses::Guesses;
use crate::actors::session::wire::Broken;

/// After this many wrong ones, a connection ends.
const A_CONNECTION: u32 = 5;
/// How many wrong ones an address may send at once,
const BURST: u32 = 60;
/// and the time after which it may send one more.
const INTERVAL: Duration = Duration::from_secs(1);

/// The wrong proofs of all connections.
pub(crate) fn guesses() -> Guesses {
    Guesses::new(BURST, INTERVAL)
}

/// The wrong proofs of one connection.
pub(crate) struct Proofs {
    all: Arc<Guesses>,
    address: Option<IpAddr>,
    wrong: u32,
}

impl Proofs {
    pub(crate) fn new(all: &Arc<Guesses>) -> Self {
        Self { all: Arc::clone(all), address: None, wrong: 0 }
    }

    /// Sets where the connection comes from.
    pub(super) fn come_from(&mut self, address: Option<IpAddr>) {
        self.address = address;
    }

    /// Whether a proof may be looked at; otherwise what to say.
    pub(super) fn may_check(&self) -> Result<(), String> {
        let blocked = self.all.blocked(self.address, Instant::now().into_std());
        blocked.map_or(Ok(()), |wait| {
            let seconds = wait.as_secs() + 1;
            Err(format!(
                "quota: too many wrong proofs came from your address; try again in {seconds} s"
            ))
        })
    }

    /// One was wrong. Ends the connection if it was one too many.
    pub(super) fn wrong(&mut self) {
        self.wrong += 1;
        self.all.add(self.address, Instant::now().into_std());
    }

    /// Whether the connection may continue.
    pub(super) fn go_on(&self) -> Result<(), Broken> {
        if self.wrong < A_CONNECTION {
            return Ok(());
        }
        let message = format!("proofs: {A_CONNECTION} of them were wrong");
        Err(Broken { code: CloseCode::Policy, message })
    }
}
