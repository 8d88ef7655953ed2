//! Converts single tables of the file into what the server is started with.

use eventlog_server::server::{ClientCertificates, TlsFiles};
use eventlog_server::storage::sled::{ArchiveOptions, DatabaseOptions, ScrubOptions};

use super::bucket::BucketAddress;
use super::check::{impossible, missing};
use super::fault::ConfigError;
use super::settings::{
    BackupSettings, ClientCertificatesMode, KeysInLog, LogSettings, Settings, TlsSettings,
};
use super::units::Size;
use super::{BackupPlan, LogPlan};

pub(super) fn database(settings: &Settings) -> DatabaseOptions {
    let default = DatabaseOptions::default();
    let bytes = |set: Option<Size>, default| set.map_or(default, |size| size.0 as u64);
    DatabaseOptions {
        cache_bytes: bytes(settings.cache_bytes, default.cache_bytes),
        ballast_bytes: bytes(settings.ballast_bytes, default.ballast_bytes),
        disk_low_bytes: bytes(settings.disk_low_bytes, default.disk_low_bytes),
        disk_full_bytes: bytes(settings.disk_full_bytes, default.disk_full_bytes),
        archive: ArchiveOptions {
            enabled: settings.archive.enabled.map_or(default.archive.enabled, |flag| flag.0),
            dir: settings.archive.dir.clone(),
            bytes_max: settings.archive.bytes_max.map(|size| size.0 as u64),
            age_max: settings.archive.age_max.map(|span| span.0),
            waiting_bytes_max: bytes(
                settings.archive.waiting_bytes_max,
                default.archive.waiting_bytes_max,
            ),
        },
        scrub: ScrubOptions {
            after: settings.erase.clean_after.map_or(default.scrub.after, |span| span.0),
            kept_aside: settings.erase.kept_aside.map_or(default.scrub.kept_aside, |span| span.0),
        },
        ..default
    }
}

pub(super) fn log(settings: LogSettings) -> LogPlan {
    let LogSettings { level, format, keys, access } = settings;
    LogPlan {
        level: level.map(|level| level.0),
        format: format.unwrap_or_default(),
        hashes_keys: keys == Some(KeysInLog::Hashed),
        access: access.is_some_and(|flag| flag.0),
    }
}

pub(super) fn tls(settings: TlsSettings) -> Result<Option<TlsFiles>, ConfigError> {
    let TlsSettings { certificate_file, key_file, client_ca_file: client_ca, client_certificates } =
        settings;
    if client_certificates == Some(ClientCertificatesMode::Optional) && client_ca.is_none() {
        let reason = "they are checked with the authorities in `client_ca_file`, which is missing";
        return Err(impossible("tls.client_certificates", "optional", reason));
    }
    let clients = match client_certificates {
        None | Some(ClientCertificatesMode::Required) => ClientCertificates::Required,
        Some(ClientCertificatesMode::Optional) => ClientCertificates::Optional,
    };
    match (certificate_file, key_file) {
        (Some(certificate), Some(key)) => {
            Ok(Some(TlsFiles { certificate, key, client_ca, clients }))
        }
        (None, None) if client_ca.is_none() => Ok(None),
        (certificate, _) => {
            let key = if certificate.is_none() { "tls.certificate_file" } else { "tls.key_file" };
            Err(missing(key, "TLS takes both `certificate_file` and `key_file`"))
        }
    }
}

pub(super) fn backup(
    settings: BackupSettings,
    archive: bool,
) -> Result<Option<BackupPlan>, ConfigError> {
    let BackupSettings { every, to, keep } = settings;
    match (every, to) {
        (None, None) if keep.is_none() => Ok(None),
        (Some(_), Some(to)) if !archive => {
            let reason = "a backup is made of the archive, and `[archive] enabled` is false";
            Err(impossible("backup.to", to.display(), reason))
        }
        (Some(_), Some(to)) if keep.is_some() && BucketAddress::of(&to).is_some() => {
            let reason = "a bucket keeps what the archive keeps ([archive] bytes_max, age_max)";
            Err(impossible("backup.keep", to.display(), reason))
        }
        (Some(every), Some(to)) => {
            if let Some(Err(reason)) = BucketAddress::of(&to) {
                return Err(impossible("backup.to", to.display(), reason));
            }
            Ok(Some(BackupPlan { every: every.0, to, keep: keep.map(|keep| keep.0) }))
        }
        (every, _) => {
            let key = if every.is_none() { "backup.every" } else { "backup.to" };
            Err(missing(key, "backups are made only if `[backup]` has both `every` and `to`"))
        }
    }
}
