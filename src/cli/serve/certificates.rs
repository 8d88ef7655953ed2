//! Turns `[tls]` into the encryption of connections, and watches its files.
//!
//! Keeps: changed files take effect within seconds; if they cannot be used, the current certificates stay in effect,
//! and the log says why, once for each change.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use eventlog_server::server::{Tls, TlsError, TlsFiles};

/// How often the files are checked. Certificates are renewed days before the old ones expire.
const EVERY: Duration = Duration::from_secs(5);
/// How long before the expiry of a certificate the warnings begin, in seconds.
const SOON: u64 = 14 * 24 * 60 * 60;
/// How often the warning is repeated, in seconds.
const WARN_EVERY: u64 = 24 * 60 * 60;

/// The encryption of connections, if it is configured.
pub(super) fn open(files: Option<&TlsFiles>) -> Result<Option<Tls>, TlsError> {
    files.cloned().map(Tls::open).transpose()
}

/// Identifies a version of a file: each version has another value.
type Version = Option<(u64, u64, i64, i64)>;

/// Reads changed files again, for as long as the process lives.
pub(super) fn watch(tls: Option<&Tls>) {
    let Some(tls) = tls.cloned() else { return };
    actix_web::rt::spawn(async move {
        let look = || {
            let files = tls.files();
            let versions = versions(&files);
            (files, versions)
        };
        let mut seen = look();
        let mut warned = None;
        loop {
            warn_of_end(&tls, &mut warned);
            tokio::time::sleep(EVERY).await;
            // Also after a reload that names other files: they may have changed since it has read them.
            let now = look();
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

/// Warns if certificates expire soon or have expired, unless there was a warning since `warned`.
fn warn_of_end(tls: &Tls, warned: &mut Option<u64>) {
    let now = now_seconds();
    let Some(expires) = tls.expires().filter(|expires| expires.saturating_sub(now) < SOON) else {
        *warned = None;
        return;
    };
    if warned.is_some_and(|at| now.saturating_sub(at) < WARN_EVERY) {
        return;
    }
    *warned = Some(now);
    let files = tls.files();
    let file = files.certificate.display();
    let when = i64::try_from(expires).ok().and_then(|expires| Timestamp::from_second(expires).ok());
    let when = when.map_or_else(String::new, |when| format!(" {when}"));
    let what = if expires <= now { "expired" } else { "expires" };
    log::warn!(
        "the certificate in {file}, or one that signs it, {what}{when}; clients then refuse to connect; renew it"
    );
}

/// Since 1970.
#[expect(clippy::disallowed_methods, reason = "certificates expire by the clock")]
fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn versions(files: &TlsFiles) -> Vec<Version> {
    let TlsFiles { certificate, key, client_ca, clients: _ } = files;
    let version = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    [certificate, key].into_iter().chain(client_ca).map(version).collect()
}
