//! Turns `[tls]` into the encryption of connections, and watches its files.
//!
//! Keeps: files that were changed count within seconds; if they cannot be used those that counts go on, and the log says why, once for
//! each change.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use eventlog_server::server::{Tls, TlsError, TlsFiles};

/// Files are looked at so often. Whoever renews certificates does that days before the old ones end.
const EVERY: Duration = Duration::from_secs(5);

/// What connections are encrypted with, if they are.
pub(super) fn open(files: Option<&TlsFiles>) -> Result<Option<Tls>, TlsError> {
    files.cloned().map(Tls::open).transpose()
}

/// Identifies a version of a file: each version has another value.
type Version = Option<(u64, u64, i64, i64)>;

/// Reads files again that have changed, for as long as the process lives.
pub(super) fn watch(tls: Option<&Tls>) {
    let Some(tls) = tls.cloned() else { return };
    actix_web::rt::spawn(async move {
        let mut seen = versions(tls.files());
        loop {
            tokio::time::sleep(EVERY).await;
            let now = versions(tls.files());
            if now == seen {
                continue;
            }
            seen = now;
            // These are a few small files.
            match tls.reload() {
                Ok(()) => log::info!("certificates have changed; new connections use the new ones"),
                Err(error) => log::error!(
                    "certificates have changed but cannot be used, so the old ones stay in use: {error}"
                ),
            }
        }
    });
}

fn versions(files: &TlsFiles) -> Vec<Version> {
    let TlsFiles { certificate, key, client_ca } = files;
    let version = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    [certificate, key].into_iter().chain(client_ca).map(version).collect()
}
