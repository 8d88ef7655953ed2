//! The handshake: the server sends a challenge, the client signs it, and the connection may then act for its identity.
//!
//! Keeps: a challenge serves one attempt, successful or not, and is valid for 30 seconds; a [`Verified`] exists only
//! after a correct signature, so nothing can be bound to an identity before that. Leaves out: which signing key an
//! identity has (the server remembers the first one), what else it may do, and which identities a connection has.
//!
//! Signatures are checked by the strict rules: no key and no first half of small order, nothing non-canonical, no
//! cofactor. Every signature that `WebCrypto` or Node makes satisfies them, and the `WebCrypto` standard asks the same
//! of a verifier. A key of small order, which looser rules accept, has signatures that are valid for any challenge.

use ed25519_dalek::{Signature, VerifyingKey};

use super::call::Authenticate;
use crate::model::{InvalidName, PublicKey, RemoteId};

/// How long a challenge may be answered, in milliseconds.
pub const CHALLENGE_MILLIS_MAX: u64 = 30_000;

/// What a client has to sign.
pub type Challenge = [u8; 32];

/// The purpose of the signature, so that it cannot be used for anything else.
const PURPOSE: &[u8] = b"eventlog-auth-v1";

/// The challenge of one connection.
#[derive(Debug, Default)]
pub struct Handshake {
    pending: Option<(Challenge, u64)>,
}

/// An identity and its signing key, which has just signed this connection's challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    public_key: PublicKey,
    signing_public_key: [u8; 32],
}

/// Why an attempt to authenticate fails; the client may say hello and try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    /// There was no hello, or its challenge was already used.
    #[error("no challenge is pending on this connection")]
    NoChallenge,
    /// The hello was too long ago.
    #[error("the challenge is older than 30 seconds")]
    ChallengeExpired,
    /// The public key is not valid.
    #[error(transparent)]
    PublicKey(#[from] InvalidName),
    /// Not an Ed25519 key.
    #[error("the signing key is no Ed25519 public key of 32 bytes")]
    SigningKey,
    /// Not the expected signature.
    #[error("the signature is wrong")]
    Signature,
}

impl Handshake {
    /// The challenge to answer a hello with: the pending one, or otherwise a `fresh` one, which has to be unpredictable.
    /// It is made only then: beside a flood of hellos, random bytes took a quarter of the time of the threads that answer.
    ///
    /// `now_millis` comes from any clock that does not go backwards.
    pub fn hello(&mut self, now_millis: u64, fresh: impl FnOnce() -> Challenge) -> Challenge {
        match self.pending {
            Some((challenge, since)) if !is_expired(since, now_millis) => challenge,
            Some(_) | None => {
                let fresh = fresh();
                self.pending = Some((fresh, now_millis));
                fresh
            }
        }
    }

    /// Checks `claim` against the pending challenge, which is then used up.
    pub fn authenticate(
        &mut self,
        now_millis: u64,
        remote_id: RemoteId,
        claim: &Authenticate<'_>,
    ) -> Result<Verified, AuthenticateError> {
        let (challenge, since) = self.pending.take().ok_or(AuthenticateError::NoChallenge)?;
        if is_expired(since, now_millis) {
            return Err(AuthenticateError::ChallengeExpired);
        }
        let public_key = PublicKey::new(claim.public_key)?;
        let signing_public_key: [u8; 32] =
            claim.signing_public_key.try_into().map_err(|_| AuthenticateError::SigningKey)?;
        let key = VerifyingKey::from_bytes(&signing_public_key)
            .map_err(|_| AuthenticateError::SigningKey)?;
        let signature =
            Signature::from_slice(claim.signature).map_err(|_| AuthenticateError::Signature)?;
        let message =
            signed_bytes(remote_id.as_bytes(), &challenge, claim.public_key, &signing_public_key);
        key.verify_strict(&message, &signature).map_err(|_| AuthenticateError::Signature)?;
        Ok(Verified { public_key, signing_public_key })
    }
}

fn is_expired(since: u64, now_millis: u64) -> bool {
    now_millis.saturating_sub(since) >= CHALLENGE_MILLIS_MAX
}

impl Verified {
    /// The identity.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Its Ed25519 public key.
    pub const fn signing_public_key(&self) -> &[u8; 32] {
        &self.signing_public_key
    }

    /// Both of them.
    pub fn into_parts(self) -> (PublicKey, [u8; 32]) {
        (self.public_key, self.signing_public_key)
    }
}

/// A challenge that nobody can predict.
pub fn random_challenge() -> Challenge {
    let mut challenge = [0; 32];
    // 122 of the 128 bits of each are random.
    challenge[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    challenge[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    challenge
}

/// What is signed: five fields, each preceded by its length in four bytes, most significant first.
pub fn signed_bytes(
    remote_id: &[u8],
    challenge: &[u8],
    public_key: &str,
    signing_public_key: &[u8; 32],
) -> Vec<u8> {
    let remote_id = hexadecimal(remote_id);
    let fields = [PURPOSE, &remote_id, challenge, public_key.as_bytes(), signing_public_key];
    let mut out = Vec::with_capacity(fields.iter().map(|field| 4 + field.len()).sum());
    for field in fields {
        // A frame has at most 16 MiB.
        out.extend_from_slice(&(field.len() as u32).to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| b"0123456789abcdef"[usize::from(digit)]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;

    const REMOTE: RemoteId = RemoteId::from_bytes([0xaa; 16]);
    const CHALLENGE: Challenge = [0xcc; 32];

    fn alice() -> Identity {
        Identity::from_root_secret(PublicKey::new("alice").expect("a key"), &[7; 32])
    }

    /// The result of a claim right after a hello with [`CHALLENGE`].
    fn attempt(
        public_key: &str,
        signing_public_key: &[u8],
        signature: &[u8],
    ) -> Result<Verified, AuthenticateError> {
        let mut handshake = Handshake::default();
        handshake.hello(0, || CHALLENGE);
        let claim = Authenticate { public_key, signing_public_key, signature };
        handshake.authenticate(1, REMOTE, &claim)
    }

    #[test]
    fn a_right_signature_proves_who_it_is() {
        let alice = alice();
        let signature = alice.sign(REMOTE, &CHALLENGE);
        let verified = attempt("alice", alice.signing_public_key(), &signature).expect("verified");
        assert_eq!(verified.public_key(), alice.public_key());
        assert_eq!(verified.signing_public_key(), alice.signing_public_key());
    }

    #[test]
    fn anything_else_proves_nothing() {
        use AuthenticateError as Error;
        let alice = alice();
        let (key, right) = (alice.signing_public_key(), alice.sign(REMOTE, &CHALLENGE));
        let other = Identity::from_root_secret(PublicKey::new("bob").expect("a key"), &[8; 32]);
        let remote = RemoteId::from_bytes([0xab; 16]);
        assert_eq!(attempt("alice", key, &[0; 64]), Err(Error::Signature));
        assert_eq!(attempt("alice", key, &right[1..]), Err(Error::Signature));
        assert_eq!(attempt("alice", key, &alice.sign(remote, &CHALLENGE)), Err(Error::Signature));
        assert_eq!(attempt("alice", key, &alice.sign(REMOTE, &[1; 32])), Err(Error::Signature));
        assert_eq!(attempt("bob", key, &right), Err(Error::Signature));
        assert_eq!(attempt("alice", &key[1..], &right), Err(Error::SigningKey));
        assert_eq!(attempt("alice", other.signing_public_key(), &right), Err(Error::Signature));
        assert!(matches!(attempt("", key, &right), Err(Error::PublicKey(_))));
    }

    /// If the neutral point is the key, then the neutral point and zero are a signature of everything.
    #[test]
    fn a_key_that_signs_everything_is_refused() {
        let (mut key, mut signature) = ([0; 32], [0; 64]);
        (key[0], signature[0]) = (1, 1);
        let loose = VerifyingKey::from_bytes(&key).expect("a point");
        let anything = Signature::from_bytes(&signature);
        assert!(ed25519_dalek::Verifier::verify(&loose, b"anything", &anything).is_ok());
        assert_eq!(attempt("alice", &key, &signature), Err(AuthenticateError::Signature));
    }

    #[test]
    fn a_challenge_serves_one_attempt() {
        let alice = alice();
        let mut handshake = Handshake::default();
        let signature = alice.sign(REMOTE, &CHALLENGE);
        let claim = alice.claim(&signature);
        let attempt = |handshake: &mut Handshake| handshake.authenticate(1, REMOTE, &claim);
        assert_eq!(attempt(&mut handshake), Err(AuthenticateError::NoChallenge));
        handshake.hello(0, || CHALLENGE);
        let wrong = alice.claim(&[1; 64]);
        assert!(handshake.authenticate(1, REMOTE, &wrong).is_err());
        assert_eq!(attempt(&mut handshake), Err(AuthenticateError::NoChallenge));
        assert_eq!(handshake.hello(2, || [1; 32]), [1; 32], "a new one");
        assert_eq!(attempt(&mut handshake), Err(AuthenticateError::Signature), "replayed");
    }

    #[test]
    fn a_challenge_is_pending_for_thirty_seconds() {
        let alice = alice();
        let signature = alice.sign(REMOTE, &CHALLENGE);
        let claim = alice.claim(&signature);
        let mut handshake = Handshake::default();
        handshake.hello(5, || CHALLENGE);
        let none_is_made = || panic!("one is pending");
        assert_eq!(handshake.hello(5 + 29_999, none_is_made), CHALLENGE, "the same while it lasts");
        let error = handshake.authenticate(5 + 30_000, REMOTE, &claim);
        assert_eq!(error, Err(AuthenticateError::ChallengeExpired));
        handshake.hello(40_000, || CHALLENGE);
        assert_eq!(handshake.hello(70_000, || [1; 32]), [1; 32]);
        assert_eq!(handshake.hello(70_001, || [2; 32]), [1; 32]);
    }

    #[test]
    fn challenges_differ() {
        assert_ne!(random_challenge(), random_challenge());
    }
}
