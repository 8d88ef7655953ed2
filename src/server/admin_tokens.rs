//! The tokens of the admin API, and what each of them may do.
//!
//! Keeps: only the hash of a token is kept; finding a token takes the same time however much of it is right. Leaves
//! out: who the caller is (`admin_guard`), and what a route requires (`admin_operations`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The prefix of a hash that stands for a token.
const HASHED: &str = "sha256:";

/// What a token of the admin API may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminRight {
    /// Read everything that is stored, and see who is connected.
    Read,
    /// Write entries as the server, and assign keys to stores, as an application's backend does.
    Write,
    /// Everything: also lock people out, move keys, make backups.
    Admin,
}

impl AdminRight {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// The word does not name a right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a right: there are \"read\", \"write\" and \"admin\"")]
pub struct UnknownRight(String);

impl FromStr for AdminRight {
    type Err = UnknownRight;

    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        let all = [Self::Read, Self::Write, Self::Admin];
        let found = all.into_iter().find(|right| right.as_str() == text);
        found.ok_or_else(|| UnknownRight(text.to_owned()))
    }
}

/// A text that begins like a hash but is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"sha256:\" is followed by the 64 hexadecimal digits of the token's SHA-256")]
pub struct InvalidTokenHash;

/// A token of the admin API, with its name and its rights. Its `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    name: Arc<str>,
    rights: Vec<AdminRight>,
    hash: [u8; 32],
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminToken({:?}, {:?}, …)", self.name, self.rights)
    }
}

impl AdminToken {
    /// `token` is the token itself, or `sha256:` and its SHA-256 in hexadecimal digits. `name` is what the log calls
    /// whoever uses it; several tokens may share a name, for example while one replaces another.
    pub fn new(
        name: &str,
        rights: impl IntoIterator<Item = AdminRight>,
        token: &str,
    ) -> Result<Self, InvalidTokenHash> {
        let hash = match token.strip_prefix(HASHED) {
            Some(digits) => hash_from_hex(digits).ok_or(InvalidTokenHash)?,
            None => Sha256::digest(token).into(),
        };
        Ok(Self { name: name.into(), rights: rights.into_iter().collect(), hash })
    }
}

impl AdminToken {
    /// Its name; several may have the same.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may do.
    pub fn rights(&self) -> &[AdminRight] {
        &self.rights
    }

    /// This exact text as a token that may do everything.
    pub(super) fn whole(token: &str) -> Self {
        let hash = Sha256::digest(token).into();
        Self { name: "admin".into(), rights: vec![AdminRight::Admin], hash }
    }
}

fn hash_from_hex(digits: &str) -> Option<[u8; 32]> {
    let is_hex = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        let two = digits.get(2 * at..2 * at + 2).filter(|_| is_hex)?;
        *byte = u8::from_str_radix(two, 16).ok()?;
    }
    Some(hash)
}

/// All tokens of a server.
#[derive(Debug, Default)]
pub(super) struct AdminTokens(pub(super) Vec<AdminToken>);

/// The rights of a caller.
#[derive(Clone, Debug)]
pub(super) struct Rights(Vec<AdminRight>);

impl Rights {
    pub(super) fn of(token: &AdminToken) -> Self {
        Self(token.rights.clone())
    }

    pub(super) fn have(&self, right: AdminRight) -> bool {
        self.0.contains(&right) || self.0.contains(&AdminRight::Admin)
    }
}

impl AdminTokens {
    /// Finds the token. Compares hashes, and always all of them, so the time reveals nothing.
    pub(super) fn find(&self, given: &str) -> Option<AdminToken> {
        let given = Sha256::digest(given);
        let is_same = |token: &&AdminToken| {
            given.iter().zip(&token.hash).fold(0, |all, (a, b)| all | (a ^ b)) == 0
        };
        let mut found = self.0.iter().filter(is_same);
        let first = found.next();
        found.for_each(drop);
        first.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(rights: &[AdminRight], token: &str) -> AdminTokens {
        AdminTokens(vec![AdminToken::new("ops", rights.to_vec(), token).expect("a token")])
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let tokens = tokens(&[AdminRight::Read], "s3cret");
        let token = tokens.find("s3cret").expect("it is");
        let rights = Rights::of(&token);
        assert_eq!((token.name(), rights.have(AdminRight::Read)), ("ops", true));
        assert!(!rights.have(AdminRight::Write) && !rights.have(AdminRight::Admin));
        for wrong in ["", "s3cre", "s3cret ", "S3cret", "s3crets3cret"] {
            assert!(tokens.find(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_hash_stands_for_a_token_and_is_none_itself() {
        // printf %s s3cret | sha256sum
        let hash = "sha256:1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0";
        let tokens = tokens(&[AdminRight::Admin], hash);
        assert!(
            tokens.find("s3cret").is_some_and(|token| Rights::of(&token).have(AdminRight::Write))
        );
        assert!(tokens.find(hash).is_none());
        for wrong in ["sha256:", "sha256:1ec1", &hash.replace("1e", "xy"), &format!("{hash}0")] {
            assert_eq!(AdminToken::new("a", [], wrong), Err(InvalidTokenHash), "{wrong}");
        }
        assert!(!format!("{:?}", tokens.0).contains("1ec1"));
    }
}
