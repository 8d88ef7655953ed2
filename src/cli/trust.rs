//! How the commands connect: which certificates they trust, and what they send.
//!
//! Keeps: certificates are read only where TLS is used. Trusted are the system's authorities, those that browsers
//! trust, and those of `--ca`.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// What a connection needs besides its address.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ConnectionArgs {
    /// Also trust the certificates in this file (PEM, or one as DER)
    #[arg(long, global = true, value_name = "FILE", env = "EVENTLOG_CA")]
    ca: Option<PathBuf>,
    /// Send this header, for a proxy in front that needs it; can be given several times
    #[arg(long = "header", global = true, value_name = "NAME: VALUE")]
    headers: Vec<Header>,
}

/// `NAME: VALUE`. The value may be a secret.
#[derive(Clone)]
struct Header {
    name: String,
    value: String,
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: …", self.name)
    }
}

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write NAME: VALUE, as in \"X-Team: blue\"";
        let (name, value) = text.split_once(':').ok_or(wrong)?;
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let is_value = !value.chars().any(char::is_control);
        if is_name && is_value { Ok(Self { name, value }) } else { Err(wrong) }
    }
}

/// The file of `--ca` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaError {
    /// It cannot be read.
    #[error("--ca: {} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// There is no certificate in it.
    #[error("--ca: there is no certificate in {}; it has to be PEM (-----BEGIN CERTIFICATE-----), or one as DER", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
}

impl ConnectionArgs {
    /// The same trust, without additional headers.
    pub(super) fn without_headers(&self) -> Self {
        Self { headers: Vec::new(), ..self.clone() }
    }

    /// The name and value of each header.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        self.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect()
    }

    /// The certificates to trust in addition to those that browsers trust, as DER.
    pub(super) fn certificates(&self) -> Result<Vec<Vec<u8>>, CaError> {
        let system = rustls_native_certs::load_native_certs();
        for error in system.errors {
            log::debug!("a certificate of the system cannot be read: {error}");
        }
        let mut all: Vec<Vec<u8>> = system.certs.into_iter().map(|one| one.to_vec()).collect();
        if let Some(path) = &self.ca {
            all.extend(read(path)?);
        }
        Ok(all)
    }
}

fn read(path: &Path) -> Result<Vec<Vec<u8>>, CaError> {
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|cause| CaError::Unreadable { path: path.to_owned(), cause })?;
    // What begins like a DER sequence is not PEM.
    if bytes.starts_with(&[0x30, 0x82]) {
        return Ok(vec![bytes]);
    }
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.unwrap_or_default();
    if found.is_empty() {
        return Err(CaError::NoCertificate { path: path.to_owned() });
    }
    Ok(found.into_iter().map(|one| one.to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value_that_is_not_shown() {
        let header: Header = "X-Team:  blue: green ".parse().expect("a header");
        assert_eq!((&*header.name, &*header.value), ("X-Team", "blue: green"));
        assert_eq!(format!("{header:?}"), "X-Team: …");
        for wrong in ["", "X-Team", ": blue", "X Team: blue", "X-Team: a\r\nHost: b"] {
            assert!(wrong.parse::<Header>().is_err(), "{wrong}");
        }
    }
}
