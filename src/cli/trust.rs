//! How the commands connect: which certificates they trust and show, and what they send.
//!
//! Keeps: certificates are read only where TLS is used. Trusted are the system's authorities, those that browsers
//! trust, and those of `--ca`.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use eventlog_server::client::{ClientCertificate, WrongCertificate};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, ClientCert, PrivateKey};

/// What a connection needs besides its address.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ConnectionArgs {
    /// Also trust the certificates in this file (PEM, or one as DER)
    #[arg(long, global = true, value_name = "FILE", env = "EVENTLOG_CA")]
    ca: Option<PathBuf>,
    /// Show the certificate in this file (PEM) to a server that asks for one
    #[arg(long, global = true, value_name = "FILE", env = "EVENTLOG_CERT", requires = "cert_key")]
    cert: Option<PathBuf>,
    /// The file with the private key of --cert (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "EVENTLOG_CERT_KEY", requires = "cert")]
    cert_key: Option<PathBuf>,
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

/// The file of `--ca`, `--cert` or `--cert-key` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaError {
    /// It cannot be read.
    #[error("{flag}: {} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The flag.
        flag: &'static str,
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
    /// It cannot be shown.
    #[error("--cert, --cert-key: {0}")]
    Wrong(#[from] WrongCertificate),
}

/// The certificate to show, and its key, as PEM.
pub(super) struct Shown {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Shown {
    /// For the connections of clients.
    pub(super) fn of_client(&self) -> Result<ClientCertificate, CaError> {
        Ok(ClientCertificate::from_pem(&self.certificate, &self.key)?)
    }

    /// For requests.
    pub(super) fn of_requests(&self) -> Result<ClientCert, CaError> {
        // Finds everything that can be wrong with it.
        self.of_client()?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.map_err(|_| WrongCertificate::NoCertificate)?;
        let chain: Vec<_> = chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
        let key = PrivateKey::from_pem(&self.key).map_err(|_| WrongCertificate::NoKey)?;
        Ok(ClientCert::new_with_certs(&chain, key))
    }
}

impl ConnectionArgs {
    /// The same trust, without what is for one server alone: additional headers, and the certificate to show.
    pub(super) fn without_headers(&self) -> Self {
        Self { headers: Vec::new(), cert: None, cert_key: None, ca: self.ca.clone() }
    }

    /// The name and value of each header.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        self.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect()
    }

    /// What is shown to a server that asks for a certificate.
    pub(super) fn shown(&self) -> Result<Option<Shown>, CaError> {
        let (Some(cert), Some(key)) = (&self.cert, &self.cert_key) else { return Ok(None) };
        let certificate = read_file("--cert", cert)?;
        Ok(Some(Shown { certificate, key: read_file("--cert-key", key)? }))
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

fn read_file(flag: &'static str, path: &Path) -> Result<Vec<u8>, CaError> {
    std::fs::read(path).map_err(|cause| CaError::Unreadable { flag, path: path.to_owned(), cause })
}

fn read(path: &Path) -> Result<Vec<Vec<u8>>, CaError> {
    let bytes = read_file("--ca", path)?;
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
