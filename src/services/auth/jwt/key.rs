//! The keys that check signatures.
//!
//! Keeps: a key has one algorithm, which depends on the key and never on what a token says; so a public key is never
//! taken for a secret. Leaves out: key sets as JSON (`jwks`).

use std::fmt;

use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

/// A shorter secret can be found by trying: RFC 7518 requires as many bits as the hash has.
const SECRET_BYTES_MIN: usize = 32;

/// What precedes the 32 bytes of an Ed25519 key in its `SubjectPublicKeyInfo` (RFC 8410).
const ED25519_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What precedes the 65 bytes of a P-256 key, the uncompressed point, in its `SubjectPublicKeyInfo` (RFC 5480).
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What is between the two lengths in an RSA key's `SubjectPublicKeyInfo` (RFC 8017): it says that this is an RSA key.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// How a token is signed (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256: whoever can check a token can sign one.
    HS256,
    /// RSA with PKCS #1 v1.5 and SHA-256, 2048 bits or more.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    pub(super) const ALL: [Self; 4] = [Self::HS256, Self::RS256, Self::ES256, Self::EdDSA];

    /// Its name in tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm with this name; `none` is not one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key cannot check signatures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It could be guessed.
    #[error("a secret must have at least {SECRET_BYTES_MIN} bytes, but this one has {0}")]
    ShortSecret(usize),
    /// It is not a public key in PEM form.
    #[error(
        "it has no `-----BEGIN PUBLIC KEY-----`; get it from a certificate with openssl x509 -in FILE -noout \
         -pubkey, from a private key with openssl pkey -in FILE -pubout"
    )]
    NotPem,
    /// It is a key of another kind.
    #[error("it is not a supported key: RSA from 2048 to 8192 bits, EC on P-256, or Ed25519")]
    Unknown,
}

/// Checks the signatures of one algorithm. `Debug` shows no secret.
#[derive(Clone)]
pub struct Key(Kind);

#[derive(Clone)]
enum Kind {
    Hmac(hmac::Key),
    /// Modulus and exponent, or both in their ASN.1 form.
    Rsa(RsaPublicKeyComponents<Box<[u8]>>),
    RsaDer(UnparsedPublicKey<Box<[u8]>>),
    P256(UnparsedPublicKey<Box<[u8]>>),
    Ed25519(UnparsedPublicKey<Box<[u8]>>),
}

impl Key {
    /// A secret shared with the issuer.
    pub fn from_secret(secret: &str) -> Result<Self, InvalidKey> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(InvalidKey::ShortSecret(secret.len()));
        }
        Ok(Self(Kind::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))))
    }

    /// A public key as a text of the form `-----BEGIN PUBLIC KEY-----`.
    pub fn from_pem(text: &str) -> Result<Self, InvalidKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes());
        let der = der.map_err(|_| InvalidKey::NotPem)?;
        if let Some(key) = der.strip_prefix(&ED25519_HEAD) {
            return Self::ed25519(key);
        }
        if let Some(point) = der.strip_prefix(&P256_HEAD) {
            return Self::p256(point);
        }
        rsa_der(&der).map(Self).ok_or(InvalidKey::Unknown)
    }

    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, InvalidKey> {
        let significant = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
        let n = Box::<[u8]>::from(&modulus[significant..]);
        let e = Box::<[u8]>::from(exponent);
        if !(2_048 / 8..=8_192 / 8).contains(&n.len()) || exponent.is_empty() {
            return Err(InvalidKey::Unknown);
        }
        Ok(Self(Kind::Rsa(RsaPublicKeyComponents { n, e })))
    }

    /// The point in its uncompressed form: the byte 4, and two coordinates of 32 bytes.
    pub(super) fn p256(point: &[u8]) -> Result<Self, InvalidKey> {
        if point.len() != 65 || point[0] != 4 {
            return Err(InvalidKey::Unknown);
        }
        Ok(Self(Kind::P256(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.into()))))
    }

    pub(super) fn ed25519(key: &[u8]) -> Result<Self, InvalidKey> {
        if key.len() != 32 {
            return Err(InvalidKey::Unknown);
        }
        Ok(Self(Kind::Ed25519(UnparsedPublicKey::new(&ED25519, key.into()))))
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Kind::Hmac(_) => Algorithm::HS256,
            Kind::Rsa(_) | Kind::RsaDer(_) => Algorithm::RS256,
            Kind::P256(_) => Algorithm::ES256,
            Kind::Ed25519(_) => Algorithm::EdDSA,
        }
    }

    /// Whether this key has signed `message`.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let outcome = match &self.0 {
            Kind::Hmac(key) => hmac::verify(key, message, signature),
            Kind::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
            Kind::RsaDer(key) | Kind::P256(key) | Kind::Ed25519(key) => {
                key.verify(message, signature)
            }
        };
        outcome.is_ok()
    }
}

/// The RSA key in a `SubjectPublicKeyInfo`. Each of its lengths takes two bytes, because every key that is long enough
/// needs that.
fn rsa_der(der: &[u8]) -> Option<Kind> {
    let rest = sized(der, &[0x30, 0x82])?;
    let rest = rest.strip_prefix(&RSA_ALGORITHM)?;
    // A bit string, whose first byte says how many bits are unused.
    let key = sized(rest, &[0x03, 0x82])?.strip_prefix(&[0])?;
    let numbers = sized(key, &[0x30, 0x82])?;
    let bytes = numbers.len();
    let long_enough = (2_048 / 8..=8_192 / 8 + 64).contains(&bytes);
    long_enough
        .then(|| Kind::RsaDer(UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, Box::from(key))))
}

/// What follows `head` and a length of two bytes, if it has that length.
fn sized<'a>(bytes: &'a [u8], head: &[u8]) -> Option<&'a [u8]> {
    let rest = bytes.strip_prefix(head)?;
    let (length, content) = rest.split_first_chunk::<2>()?;
    (usize::from(u16::from_be_bytes(*length)) == content.len()).then_some(content)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, …)", self.algorithm())
    }
}

/// Keys, some of which have names.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<NamedKey>);

#[derive(Clone, Debug)]
struct NamedKey {
    /// The `kid` of tokens that it signs.
    id: Option<Box<str>>,
    key: Key,
    /// Whether it was given individually, and not as part of a set.
    given: bool,
}

impl KeySet {
    /// Adds a key that signs tokens with this `kid`. A key without one checks tokens with any `kid`, unless there is a
    /// key of that name.
    pub fn add(&mut self, id: Option<&str>, key: Key) {
        self.0.push(NamedKey { id: id.map(Box::from), key, given: true });
    }

    pub(super) fn add_from_set(&mut self, id: Option<&str>, key: Key) {
        self.0.push(NamedKey { id: id.map(Box::from), key, given: false });
    }

    pub(super) fn serves(&self, algorithm: Algorithm) -> bool {
        self.0.iter().any(|named| named.key.algorithm() == algorithm)
    }

    /// The algorithms of the keys that were given individually.
    pub(super) fn given(&self) -> impl Iterator<Item = Algorithm> {
        self.0.iter().filter(|named| named.given).map(|named| named.key.algorithm())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys of `algorithm`, each with whether it has the name `id`.
    pub(super) fn of<'a>(
        &'a self,
        algorithm: Algorithm,
        id: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, Name)> {
        let keys = self.0.iter().filter(move |named| named.key.algorithm() == algorithm);
        keys.map(move |named| {
            let name = match (named.id.as_deref(), id) {
                (Some(own), Some(wanted)) if own == wanted => Name::Same,
                (Some(_), Some(_)) => Name::Other,
                (None, _) | (_, None) => Name::Unsaid,
            };
            (&named.key, name)
        })
    }
}

/// How the name of a key relates to the one in a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Same,
    Other,
    /// One of the two has no name.
    Unsaid,
}
