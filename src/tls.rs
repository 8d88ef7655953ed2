//! Which certificates are trusted by connections that this program opens: what browsers trust, and additional ones.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// `trusted` are additional authorities, X.509 in DER. The provider is named explicitly: a program that has another
/// one, or two of them, is not affected.
pub(crate) fn trusting(trusted: &[Vec<u8>]) -> ClientConfig {
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
    builder.with_root_certificates(roots).with_no_client_auth()
}
