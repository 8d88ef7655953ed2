//! Proofs that are wrong: each costs a check of a signature, so a connection and an address may send few.
//!
//! Keeps: an address that has sent too many is told so, and its proofs are not looked at for a while; no other is. Leaves out:
//! what a proof is (`protocol::rpc::auth`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::ws::CloseCode;
use tokio::time::Instant;

use crate::actors::guesses::Guesses;
use crate::actors::session::wire::Broken;

/// After so many wrong ones a connection ends.
const A_CONNECTION: u32 = 5;
/// So many wrong ones may come from an address at once,
const BURST: u32 = 60;
/// and one more for each such time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Those of all connections.
pub(crate) fn guesses() -> Guesses {
    Guesses::new(BURST, INTERVAL)
}

/// Those of a connection.
pub(crate) struct Proofs {
    all: Arc<Guesses>,
    address: Option<IpAddr>,
    wrong: u32,
}

impl Proofs {
    pub(crate) fn new(all: &Arc<Guesses>) -> Self {
        Self { all: Arc::clone(all), address: None, wrong: 0 }
    }

    /// Where the connection comes from.
    pub(super) fn come_from(&mut self, address: Option<IpAddr>) {
        self.address = address;
    }

    /// Whether a proof may be looked at; else what to say.
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

    /// Whether the connection may go on.
    pub(super) fn go_on(&self) -> Result<(), Broken> {
        if self.wrong < A_CONNECTION {
            return Ok(());
        }
        let message = format!("proofs: {A_CONNECTION} of them were wrong");
        Err(Broken { code: CloseCode::Policy, message })
    }
}
