//! Proving identities: which ones a connection has proved, and what waits for the others.
//!
//! Keeps: nothing is requested for a key before the server has accepted its proof, which is sent when the key is first
//! needed; one proof at a time, each for a challenge of its own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::core::Outgoing;
use crate::model::{PublicKey, RemoteId};
use crate::protocol::rpc::Identity;

/// All identities of a client. Cheap to clone.
pub(in crate::client) type Keyring = Arc<HashMap<PublicKey, Identity>>;

/// An older challenge is not signed; servers accept the answer for 30 seconds, counted from when they sent it.
const CHALLENGE_AGE_MAX: Duration = Duration::from_secs(10);

/// What to ask the server now.
#[derive(Debug)]
pub(super) enum Ask {
    /// For a challenge.
    Hello,
    /// To accept this proof.
    Authenticate { identity: Box<Identity>, signature: Box<[u8; 64]> },
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Proofs {
    identities: Keyring,
    proved: HashSet<PublicKey>,
    /// What to request for keys that are not proved yet.
    held: HashMap<PublicKey, Vec<Outgoing>>,
    /// Those keys, in the order in which they were needed.
    waiting: VecDeque<PublicKey>,
    /// Whether an answer is outstanding.
    busy: bool,
    /// Whether a hello was ever answered.
    greeted: bool,
    challenge: Option<Challenge>,
}

#[derive(Debug)]
struct Challenge {
    remote_id: RemoteId,
    bytes: Vec<u8>,
    received: Instant,
}

impl Proofs {
    /// Nothing is proved; a first hello has been sent.
    pub(super) fn new(identities: Keyring) -> Self {
        Self {
            identities,
            proved: HashSet::new(),
            held: HashMap::new(),
            waiting: VecDeque::new(),
            busy: true,
            greeted: false,
            challenge: None,
        }
    }

    /// Returns `outgoing` if it can be requested for `key` right now, or keeps it until it can.
    ///
    /// `Err`: there is no such identity.
    pub(super) fn admit(
        &mut self,
        key: &PublicKey,
        outgoing: Outgoing,
    ) -> Result<Option<Outgoing>, Outgoing> {
        if self.proved.contains(key) {
            return Ok(Some(outgoing));
        }
        if !self.identities.contains_key(key) {
            return Err(outgoing);
        }
        let held = self.held.entry(key.clone()).or_default();
        if held.is_empty() && !self.waiting.contains(key) {
            self.waiting.push_back(key.clone());
        }
        held.push(outgoing);
        Ok(None)
    }

    /// Discards a subscription that waits for `key`; returns whether there was one.
    pub(super) fn withdraw(&mut self, key: &PublicKey) -> bool {
        let Some(held) = self.held.get_mut(key) else { return false };
        let before = held.len();
        held.retain(|outgoing| !matches!(outgoing, Outgoing::RequestChanges { .. }));
        held.len() < before
    }

    /// The server has answered a hello; returns whether it was the first one.
    pub(super) fn challenged(&mut self, remote_id: RemoteId, bytes: &[u8]) -> bool {
        let (bytes, received) = (bytes.to_vec(), Instant::now());
        self.challenge = Some(Challenge { remote_id, bytes, received });
        self.busy = false;
        !std::mem::replace(&mut self.greeted, true)
    }

    /// The server has answered the proof of `key`. Returns what has waited for that.
    pub(super) fn answered(&mut self, key: &PublicKey, is_proved: bool) -> Vec<Outgoing> {
        self.busy = false;
        if is_proved {
            self.proved.insert(key.clone());
        }
        self.held.remove(key).unwrap_or_default()
    }

    /// What to ask next, if something is needed and no answer is outstanding.
    pub(super) fn next(&mut self) -> Option<Ask> {
        while !self.busy {
            let key = self.waiting.front()?;
            // A withdrawn subscription may have been the only thing that waited.
            if self.held.get(key).is_none_or(Vec::is_empty) {
                self.held.remove(key);
                self.waiting.pop_front();
                continue;
            }
            self.busy = true;
            let fresh = self.challenge.take();
            let fresh = fresh.filter(|fresh| fresh.received.elapsed() < CHALLENGE_AGE_MAX);
            let Some(Challenge { remote_id, bytes, .. }) = fresh else { return Some(Ask::Hello) };
            let key = self.waiting.pop_front()?;
            let identity = Box::new(self.identities.get(&key)?.clone());
            let signature = Box::new(identity.sign(remote_id, &bytes));
            return Some(Ask::Authenticate { identity, signature });
        }
        None
    }
}
