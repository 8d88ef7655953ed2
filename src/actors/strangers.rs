//! A connection that is not accepted yet. It is accepted once one of its keys was authorized and resolved, or over HTTP
//! once it has shown an admin token.
//!
//! Keeps: a stranger that is pushed out is told why, if possible; who has shown a token counts among the token holders
//! until the connection ends or becomes a WebSocket. Leaves out: how many there may be (`crowd`).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::crowd::{Crowd, Full, Member};

/// It stays a stranger until it is accepted or this is dropped.
pub(crate) struct Stranger {
    member: Member,
    accepted: AtomicBool,
    /// It ends as soon as it runs again.
    ends: AtomicBool,
    /// Its place among the token holders.
    token_holder: Mutex<Option<Member>>,
}

impl Stranger {
    /// Registers a stranger with its address, if known. `push_out` ends it if it must make way for another one.
    pub(crate) fn enter(
        strangers: &Arc<Crowd>,
        address: Option<IpAddr>,
        push_out: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, Full> {
        let member = strangers.enter(address, push_out)?;
        let (accepted, ends) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { member, accepted, ends, token_holder: Mutex::new(None) })
    }

    /// It has become a session, which ends in its own way. A proxy may have reported its real place, and `bytes` of its handshake are kept. If
    /// these are many, others are pushed out for it, or it is pushed out itself.
    pub(crate) fn is_session(
        &self,
        address: Option<IpAddr>,
        bytes: usize,
        push_out: impl Fn() + Send + Sync + 'static,
    ) {
        self.member.shook_hands(address, bytes, push_out);
    }

    /// Records that it is no longer a stranger.
    pub(crate) fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
        self.member.leave();
    }

    /// It has shown a token: it is no longer a stranger, but one of the token holders. `push_out` ends it if it must make
    /// way for another one.
    pub(crate) fn shows_token(
        &self,
        token_holders: &Arc<Crowd>,
        address: Option<IpAddr>,
        push_out: impl Fn() + Send + Sync + 'static,
    ) -> Result<(), Full> {
        let mut place = self.token_holder.lock();
        if place.is_none() {
            *place = Some(token_holders.enter(address, push_out)?);
            drop(place);
            self.accept();
        }
        Ok(())
    }

    /// It does not count among the token holders any more.
    pub(crate) fn leaves_token_holders(&self) {
        drop(self.token_holder.lock().take());
    }

    /// It sent a request, or read some of an answer.
    pub(crate) fn is_active(&self) {
        if let Some(token_holder) = &*self.token_holder.lock() {
            token_holder.is_active();
        }
    }

    /// Whether it was accepted. Takes no lock of others.
    pub(crate) fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Its connection ends as soon as it runs again, and nothing is left to do for it.
    pub(crate) fn is_to_end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// Whether its connection ends as soon as it runs again.
    pub(crate) fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// Whether it was accepted or must go.
    pub(crate) fn is_accepted(&self) -> bool {
        !self.member.is_there()
    }
}
