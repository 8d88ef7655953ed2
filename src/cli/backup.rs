//! `backup`: copies all data of a server to a folder, or to a pipe.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use eventlog_server::model::{RemoteId, Sequence};
use eventlog_server::storage::sled::{BackupError, Backups, Checked, Database, pack};
use eventlog_server::storage::{Snapshot, SnapshotFile};
use serde::Deserialize;
use serde_json::json;

use super::admin::{Admin, AdminError};
use super::bucket::{Bucket, BucketError, ShipError, Shipper};
use super::place::{PlaceArgs, PlaceError};
use super::progress::{Progress, Unit};
use super::text::{files, people_bytes};
use crate::config::BucketAddress;

/// A file may be removed while it is requested, if the archive keeps fewer. This is how often the backup starts again.
const TRIES: usize = 3;

/// Copy all data of a server, up to this moment, to a folder or a bucket. A further backup copies only what is
/// new.
///
/// For a running server the command uses the admin API (--url, --token), from any machine, and the server goes
/// on. For a stopped server, give --data-dir. The backup is a copy of the archive, which must be on ([archive]
/// enabled). It is compressed, and its checksums are compared. `restore` makes a data directory from it, as of
/// any moment since the archive began.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  EVENTLOG_ADMIN_TOKEN=… eventlog-server backup --to /backups/eventlog
  eventlog-server backup --data-dir /var/lib/eventlog --to /backups/eventlog
  eventlog-server backup --to /backups/eventlog --check       # earlier ones are whole, or are repaired
  eventlog-server backup --to s3://bucket/prefix              # AWS_… in the environment, see docs/DATA.md
  eventlog-server backup --to - | ssh elsewhere 'cat > eventlog.tar'")]
pub(super) struct Args {
    /// The folder, or a bucket; `-` writes one tar archive with everything to standard output
    #[arg(long, value_name = "DIR|s3://…|-")]
    to: PathBuf,
    /// Keep this many backups in the folder, and remove files that only older ones need [default: all]
    #[arg(long, value_name = "COUNT", value_parser = count)]
    keep: Option<usize>,
    /// Read all files of earlier backups in the folder, and copy again what is damaged, as a backup does once a week unasked
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "it is a number from 1 on; without --keep all are kept".to_owned())
}

/// `backup` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupCommandError {
    /// The source cannot be reached.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The backup cannot be written.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The stream cannot be written.
    #[error("cannot write to standard output: {0}")]
    Pack(io::Error),
    /// The bucket could not be used.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A file could not be written to the bucket.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// There is no bucket at this address.
    #[error("--to: {0}")]
    Address(&'static str),
    /// A bucket is not pruned.
    #[error("--keep works only for folders: a bucket keeps everything")]
    Keep,
    /// A bucket has checksums of its own.
    #[error("--check works only for folders")]
    Check,
    /// The backup was made, but earlier ones are damaged.
    #[error(
        "this backup was made, but {} of earlier ones {} damaged, and the archive no longer has {}: moments before it may be lost",
        files(*.0 as u64), if *.0 == 1 { "is" } else { "are" }, if *.0 == 1 { "it" } else { "them" }
    )]
    Lost(usize),
    /// The server's answer could not be understood.
    #[error("the server gave an unexpected answer")]
    NoAnswer,
}

impl From<AdminError> for BackupCommandError {
    fn from(error: AdminError) -> Self {
        Self::Place(error.into())
    }
}

pub(super) fn run(args: &Args) -> Result<(), BackupCommandError> {
    match args.place.database()? {
        Some(database) => of_stopped(args, &database),
        None => of_running(args),
    }
}

fn of_stopped(args: &Args, database: &Database) -> Result<(), BackupCommandError> {
    if let Err(error) = database.scrub() {
        eprintln!(
            "note: this backup may have content that was erased, which cannot be removed here: {error}"
        );
    }
    let taken = database.snapshot().map_err(PlaceError::from);
    let written = match taken {
        Ok(snapshot) => write(args, &snapshot, SnapshotFile::open),
        Err(error) => Err(error.into()),
    };
    database.close().map_err(PlaceError::from)?;
    written
}

fn of_running(args: &Args) -> Result<(), BackupCommandError> {
    let admin = args.place.client()?;
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let snapshot = begin(&admin)?;
        let open = |file: &SnapshotFile| {
            let path = file.path.to_string_lossy();
            admin.download(&path).map_err(|error| match error {
                AdminError::Refused { .. } => io::Error::new(io::ErrorKind::NotFound, error),
                error => io::Error::other(error),
            })
        };
        match write(args, &snapshot, open) {
            Err(BackupCommandError::Backup(BackupError::Io { cause, .. }))
                if cause.kind() == io::ErrorKind::NotFound && tries > 0 => {}
            Err(BackupCommandError::Ship(ShipError::File { cause, .. }))
                if cause.kind() == io::ErrorKind::NotFound && tries > 0 => {}
            written => return written,
        }
    }
}

fn write<R: Read>(
    args: &Args,
    snapshot: &Snapshot,
    mut open: impl FnMut(&SnapshotFile) -> io::Result<R>,
) -> Result<(), BackupCommandError> {
    let total =
        (args.to == Path::new("-")).then(|| snapshot.files.iter().map(|file| file.bytes).sum());
    let progress = Progress::start("backup", Unit::Bytes, total);
    let open = |file: &SnapshotFile| open(file).map(|file| progress.counting(file));
    if args.to == Path::new("-") {
        if args.check {
            return Err(BackupCommandError::Check);
        }
        let out = io::stdout().lock();
        let manifest = pack(snapshot, open, out).map_err(BackupCommandError::Pack)?;
        let (count, bytes) = (manifest.files.len() as u64, manifest.bytes());
        drop(progress);
        if args.place.admin.json {
            // Standard output has the archive.
            eprintln!(
                "{}",
                json!({ "position": manifest.position, "files": count, "bytes": bytes })
            );
            return Ok(());
        }
        let bytes = people_bytes(bytes);
        eprintln!("up to change {}: {}, {bytes}", manifest.position, files(count));
        return Ok(());
    }
    if let Some(address) = BucketAddress::of(&args.to) {
        return write_to_bucket(args, &address.map_err(wrong_address)?, snapshot, open);
    }
    let backups = Backups::new(&args.to);
    let backups = if args.check { backups.checking() } else { backups };
    let written = backups.write(snapshot, open)?;
    drop(progress);
    if let Some(keep) = args.keep {
        backups.prune(&written.manifest, keep)?;
    }
    let manifest = &written.manifest;
    let all = (manifest.files.len(), manifest.bytes());
    let checked = written.checked.as_ref().filter(|checked| checked.files > 0);
    tell(args, manifest.position, all, (written.files, written.bytes), checked);
    // The backup was made, whatever else is there.
    if backups.has_others(&written.manifest).unwrap_or(false) {
        eprintln!(
            "note: {} has backups of other servers too, or of this one from before `heal`, `accept-loss` or a move back by \
             `migrate`: `restore` will ask for --generation, `restore --list` shows them",
            args.to.display()
        );
    }
    match checked.map_or(0, |checked| checked.lost.len()) {
        0 => Ok(()),
        lost => Err(BackupCommandError::Lost(lost)),
    }
}

/// Says how far a backup goes, what it consists of, and how much of that is new: files and bytes each; and what was
/// found in earlier ones.
fn tell(
    args: &Args,
    position: u64,
    (count, bytes): (usize, u64),
    (new, copied): (usize, u64),
    checked: Option<&Checked>,
) {
    for path in checked.iter().flat_map(|checked| &checked.lost) {
        eprintln!("damaged, and no longer in the archive: {}", path.display());
    }
    // A closed standard output is no error.
    let _ = if args.place.admin.json {
        let mut line = json!({
            "position": position,
            "files": count,
            "bytes": bytes,
            "newFiles": new,
            "newBytes": copied,
        });
        if let Some(Checked { files, bytes, repaired, lost, .. }) = checked {
            line["checked"] =
                json!({ "files": files, "bytes": bytes, "repaired": repaired, "lost": lost });
        }
        writeln!(io::stdout(), "{line}")
    } else {
        let (all, copied) = (people_bytes(bytes), people_bytes(copied));
        let are = if new == 1 { "is" } else { "are" };
        writeln!(
            io::stdout(),
            "up to change {position}: {}, {all}; of these {new} {are} new, {copied}{}",
            files(count as u64),
            checked.map_or(String::new(), told)
        )
    };
}

/// What was found in earlier backups.
fn told(Checked { files: count, bytes, repaired, .. }: &Checked) -> String {
    let read =
        format!("\nread {}, {}, of earlier backups", files(*count as u64), people_bytes(*bytes));
    match repaired.len() {
        0 => read,
        1 => format!("{read}: 1 was damaged, and is copied again"),
        more => format!("{read}: {more} were damaged, and are copied again"),
    }
}

fn wrong_address(reason: &'static str) -> BackupCommandError {
    BackupCommandError::Address(reason)
}

fn write_to_bucket<R: Read>(
    args: &Args,
    address: &BucketAddress,
    snapshot: &Snapshot,
    open: impl FnMut(&SnapshotFile) -> io::Result<R>,
) -> Result<(), BackupCommandError> {
    if args.keep.is_some() {
        return Err(BackupCommandError::Keep);
    }
    if args.check {
        return Err(BackupCommandError::Check);
    }
    let shipped = Shipper::new(Bucket::open(address)?).files(snapshot, open)?;
    let all = snapshot.files.iter().map(|file| file.bytes).sum();
    let all = (snapshot.files.len(), all);
    tell(args, snapshot.position, all, (shipped.files, shipped.bytes), None);
    Ok(())
}

/// The server's answer when a backup is started.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    remote_id: String,
    generation: String,
    floor: u64,
    complete: bool,
    position: u64,
    time_millis: u64,
    files: Vec<BegunFile>,
}

#[derive(Deserialize)]
struct BegunFile {
    name: String,
    bytes: u64,
}

fn begin(admin: &Admin) -> Result<Snapshot, BackupCommandError> {
    let begun: Begun = admin.request_patiently("POST", "/admin/backup")?;
    snapshot(begun).ok_or(BackupCommandError::NoAnswer)
}

/// The paths of its files are paths of the admin API.
fn snapshot(begun: Begun) -> Option<Snapshot> {
    let sixteen = |hex: &str| u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes);
    let generation = sixteen(&begun.generation)?;
    let is_plain = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
            && !name.starts_with('.')
            && !name.is_empty()
    };
    let file = |BegunFile { name, bytes }: BegunFile| {
        let path = format!("/admin/backup/{}/{name}", begun.generation);
        is_plain(&name).then(|| SnapshotFile { path: path.into(), name, bytes })
    };
    Some(Snapshot {
        remote_id: RemoteId::from_slice(&sixteen(&begun.remote_id)?)?,
        generation,
        floor: Sequence::new(begun.floor).ok()?,
        complete: begun.complete,
        position: begun.position,
        time_ms: begun.time_millis,
        files: begun.files.into_iter().map(file).collect::<Option<_>>()?,
    })
}
