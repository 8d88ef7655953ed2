//! The file that holds an identity: a public key and the signing key that proves it.
//!
//! Keeps: an existing file is never written to; a new one is complete or absent, and readable only by its owner.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use eventlog_server::client::Identity;
use eventlog_server::model::PublicKey;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::text::{hex, one_line, parse_hex};

/// The file contains no usable identity.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub(super) struct IdentityError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot read the identity: {0}")]
    Unreadable(io::Error),
    #[error("cannot create an identity: {0}")]
    Uncreatable(io::Error),
    #[error(
        "this is not an identity: {0}; one looks like {{\"publicKey\":\"alice\",\"signingKey\":\"64 \
         hexadecimal digits\"}}"
    )]
    Malformed(String),
    #[error("this is the identity of {found:?}, not of {expected:?}")]
    OtherKey { found: PublicKey, expected: PublicKey },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    public_key: PublicKey,
    /// The private Ed25519 key in hexadecimal.
    signing_key: String,
}

/// Whether the file already existed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Read,
    Created,
}

/// The identity of `key` in the file at `path`. If the file does not exist, it is created with a new signing key.
/// Reports on standard error if it was created, and if others can read it.
pub(super) fn load_or_create(path: &Path, key: &PublicKey) -> Result<Identity, IdentityError> {
    let (identity, origin) =
        obtain(path, key).map_err(|problem| IdentityError { path: path.to_owned(), problem })?;
    let path = path.display();
    if origin == Origin::Created {
        eprintln!(
            "created {path} with a new signing key for {key:?}; keep it: a server that has seen it accepts \
             no other for this public key"
        );
    } else if is_open_to_others(&path.to_string()) {
        eprintln!("warning: other users can read {path} and act as {key:?}: chmod 600 {path}");
    }
    Ok(identity)
}

/// Show the identity in a file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server identity show alice.json                # the public key, and the signing key to be pinned to it
  eventlog-server keys pin $(eventlog-server identity show alice.json)")]
pub(super) struct Args {
    #[command(subcommand)]
    command: IdentityCommand,
}

#[derive(Debug, clap::Subcommand)]
enum IdentityCommand {
    /// Print the public key, and the public half of its signing key
    Show {
        /// The file
        file: PathBuf,
    },
}

pub(super) fn run(args: Args) -> Result<(), IdentityError> {
    let IdentityCommand::Show { file } = args.command;
    let shown = show(&file).map_err(|problem| IdentityError { path: file, problem })?;
    // A closed standard output is no reason to complain.
    let _ = writeln!(io::stdout(), "{shown}");
    Ok(())
}

fn show(path: &Path) -> Result<String, Problem> {
    let text = fs::read_to_string(path).map_err(Problem::Unreadable)?;
    let identity = read(&text)?;
    Ok(format!(
        "{}  {}",
        one_line(identity.public_key().as_str()),
        hex(identity.signing_public_key())
    ))
}

fn obtain(path: &Path, key: &PublicKey) -> Result<(Identity, Origin), Problem> {
    match fs::read_to_string(path) {
        Ok(text) => Ok((parse(&text, key)?, Origin::Read)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = Identity::generate(key.clone());
            create(path, &identity).map_err(Problem::Uncreatable)?;
            Ok((identity, Origin::Created))
        }
        Err(error) => Err(Problem::Unreadable(error)),
    }
}

fn parse(text: &str, key: &PublicKey) -> Result<Identity, Problem> {
    let identity = read(text)?;
    if identity.public_key() != key {
        let (found, expected) = (identity.public_key().clone(), key.clone());
        return Err(Problem::OtherKey { found, expected });
    }
    Ok(identity)
}

fn read(text: &str) -> Result<Identity, Problem> {
    let file: File =
        serde_json::from_str(text).map_err(|error| Problem::Malformed(error.to_string()))?;
    let bytes = parse_hex(&file.signing_key).map_err(Problem::Malformed)?;
    let signing_key: [u8; 32] = bytes.try_into().map_err(|bytes: Vec<u8>| {
        Problem::Malformed(format!("the signing key has {} bytes instead of 32", bytes.len()))
    })?;
    Ok(Identity::from_signing_key(file.public_key, &signing_key))
}

fn create(path: &Path, identity: &Identity) -> io::Result<()> {
    let signing_key = hex(&identity.signing_key());
    let file = File { public_key: identity.public_key().clone(), signing_key };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut new = NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    new.as_file().set_permissions(Permissions::from_mode(0o600))?;
    writeln!(new, "{}", serde_json::to_string(&file)?)?;
    // On disk before a server binds the public key to it.
    new.as_file().sync_all()?;
    new.persist_noclobber(path)?;
    Ok(())
}

fn is_open_to_others(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    fn key(name: &str) -> PublicKey {
        PublicKey::new(name).expect("a key")
    }

    #[test]
    fn the_first_use_creates_what_the_next_one_reads() {
        let directory = tempdir().expect("a directory");
        let path = directory.path().join("alice.json");
        let (created, origin) = obtain(&path, &key("alice")).expect("an identity");
        assert_eq!(origin, Origin::Created);
        let mode = fs::metadata(&path).expect("a file").mode();
        assert_eq!(mode & 0o777, 0o600);
        let (read, origin) = obtain(&path, &key("alice")).expect("an identity");
        assert_eq!(origin, Origin::Read);
        assert_eq!(read.signing_key(), created.signing_key());
        let other = obtain(&path, &key("bob")).map(drop);
        assert!(matches!(other, Err(Problem::OtherKey { .. })), "{other:?}");
    }

    #[test]
    fn what_is_no_identity_is_left_alone() {
        let directory = tempdir().expect("a directory");
        let path = directory.path().join("alice.json");
        for text in ["", "{}", r#"{"publicKey":"alice","signingKey":"00"}"#] {
            fs::write(&path, text).expect("written");
            let error = obtain(&path, &key("alice")).map(drop);
            assert!(matches!(error, Err(Problem::Malformed(_))), "{text}: {error:?}");
            assert_eq!(fs::read_to_string(&path).expect("a file"), text);
        }
        let nowhere = directory.path().join("nowhere").join("alice.json");
        let error = obtain(&nowhere, &key("alice")).map(drop);
        assert!(matches!(error, Err(Problem::Uncreatable(_))), "{error:?}");
    }
}
