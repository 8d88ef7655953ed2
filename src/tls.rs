//! Which certificates are trusted by connections that this program opens: what browsers trust, and additional ones. And
//! the one that it shows itself, if it has one.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// A certificate that a client shows to servers that ask for one, with its private key.
#[cfg(feature = "client")]
#[derive(Clone)]
pub struct ClientCertificate(Arc<rustls::sign::SingleCertAndKey>);

/// A certificate cannot be shown.
#[cfg(feature = "client")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WrongCertificate {
    /// There is no certificate.
    #[error("there is no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// There is no private key.
    #[error("there is no private key (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// The key belongs to another certificate, or is of an unknown kind.
    #[error("the certificate cannot be used with this key: {0}")]
    Unusable(#[from] rustls::Error),
}

#[cfg(feature = "client")]
impl ClientCertificate {
    /// From PEM: the certificate, followed by those of its issuers if servers need them, and its private key.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, WrongCertificate> {
        use rustls::pki_types::PrivateKeyDer;
        use rustls::pki_types::pem::PemObject;

        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or(WrongCertificate::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| WrongCertificate::NoKey)?;
        let provider = ring::default_provider();
        let both = rustls::sign::CertifiedKey::from_der(chain, key, &provider)?;
        Ok(Self(Arc::new(both.into())))
    }
}

#[cfg(feature = "client")]
impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCertificate")
    }
}

/// Like [`trusting`], and shows `certificate` to servers that ask for one.
#[cfg(feature = "client")]
pub(crate) fn showing(
    trusted: &[Vec<u8>],
    certificate: Option<&ClientCertificate>,
) -> ClientConfig {
    match certificate {
        None => trusting(trusted),
        Some(ClientCertificate(shown)) => builder(trusted).with_client_cert_resolver(shown.clone()),
    }
}

/// `trusted` are additional authorities, X.509 in DER. The provider is named explicitly: a program that has another
/// one, or two of them, is not affected.
pub(crate) fn trusting(trusted: &[Vec<u8>]) -> ClientConfig {
    builder(trusted).with_no_client_auth()
}

fn builder(trusted: &[Vec<u8>]) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let own = trusted.iter().cloned().map(CertificateDer::from);
    let (_, unusable) = roots.add_parsable_certificates(own);
    if unusable > 0 {
        log::warn!("{unusable} of the trusted certificates cannot be read");
    }
    let provider = Arc::new(ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // This fails for a provider without a cipher for these versions; this one has them.
    #[expect(clippy::expect_used)]
    let builder = versions.expect("ring supports TLS 1.2 and 1.3");
    builder.with_root_certificates(roots)
}
