//! `restore`: makes a data directory from a backup.

use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use eventlog_server::storage::sled::{
    BackupError, Backups, Database, DatabaseOptions, DirectoryNote, OpenError, Until, unpack,
};
use jiff::Timestamp;

use super::bucket::{Bucket, BucketError, FetchError, fetch};
use super::progress::Progress;
use super::text::{parse_moment, people_bytes};
use crate::config::BucketAddress;

/// Make a data directory from a backup, with a new remote id.
///
/// The command first reads all that it needs of the backup, and compares the checksums. The directory must be
/// missing or empty. It gets a new remote id, and every store goes on 1,000,000,000 above its last sequence. So
/// clients begin again and send what the backup lacks; running clients do so at their next start. No client
/// misses what is written from now on. See docs/DATA.md. Then start the server with this directory as usual.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server restore --from /backups/eventlog --data-dir /var/lib/eventlog
  eventlog-server restore --from /backups/eventlog --data-dir D --until 2026-03-01T12:00:00Z
  eventlog-server restore --from /copies/archive --data-dir D
  eventlog-server restore --from s3://bucket/prefix --data-dir D
  ssh elsewhere 'cat eventlog.tar' | eventlog-server restore --from - --data-dir D")]
pub(super) struct Args {
    /// The folder with backups (the newest is used), a copy of an archive folder, or the bucket with an archive; `-`
    /// reads the output of `backup --to -` from standard input
    #[arg(long, value_name = "DIR|s3://…|-")]
    from: PathBuf,
    /// The data directory to make
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Restore the state at this time, or after the change with this number
    #[arg(long, value_name = "TIME|CHANGE")]
    until: Option<End>,
    /// From a bucket: use this generation [default: the newest complete one]
    #[arg(long, value_name = "GENERATION", value_parser = generation)]
    generation: Option<String>,
}

/// 32 hexadecimal digits.
fn generation(text: &str) -> Result<String, &'static str> {
    let is_one =
        text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_one { Ok(text.to_owned()) } else { Err("a generation is 32 hexadecimal digits") }
}

/// The end of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End(Until);

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(position) = text.parse() {
            return Ok(Self(Until::Position(position)));
        }
        let millis = parse_moment(text).map_err(|error| format!("no number, and {error}"))?;
        Ok(Self(Until::Millis(millis)))
    }
}

/// `restore` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    /// There is no backup, or a damaged one.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The directory cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The bucket does not give it.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// It has nothing that is whole.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// There is no bucket at this address.
    #[error("--from: {0}")]
    Address(&'static str),
    /// What says whose archive it is is damaged.
    #[error("{}: `directory` is damaged or of a later version", .0.display())]
    Note(PathBuf),
    /// Folders are taken as they are.
    #[error("--generation works only for buckets")]
    Generation,
    /// The stream cannot be kept until it was read.
    #[error("{}: {cause}", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
}

pub(super) fn run(args: &Args) -> Result<(), RestoreError> {
    let until = args.until.map(|End(until)| until);
    let address = BucketAddress::of(&args.from).transpose().map_err(RestoreError::Address)?;
    if args.generation.is_some() && address.is_none() {
        return Err(RestoreError::Generation);
    }
    let is_archive = args.from.join(DirectoryNote::FILE).is_file();
    if args.from != Path::new("-") && address.is_none() && !is_archive {
        return restore(&args.from, &args.data_dir, until);
    }
    // Beside the directory, where there is room for that as well; gone in the end.
    let parent = args.data_dir.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new("."));
    let keep = |cause| RestoreError::Keep { path: parent.to_owned(), cause };
    std::fs::create_dir_all(parent).map_err(keep)?;
    let kept = tempfile::tempdir_in(parent).map_err(keep)?;
    match address {
        None if is_archive => adopt(&args.from, kept.path())?,
        None => unpack(io::stdin().lock(), kept.path())?,
        Some(address) => {
            let bucket = Bucket::open(&address)?;
            let fetched = fetch(&bucket, args.generation.as_deref(), kept.path())?;
            let bytes = people_bytes(fetched.bytes);
            eprintln!("fetched generation {}, {bytes}", fetched.generation);
        }
    }
    restore(kept.path(), &args.data_dir, until)
}

/// Makes a backup in `to` of the files that a copy of an archive has in `from`, which stay where they are.
fn adopt(from: &Path, to: &Path) -> Result<(), RestoreError> {
    let keep = |cause| RestoreError::Keep { path: from.to_owned(), cause };
    let text = std::fs::read(from.join(DirectoryNote::FILE)).map_err(keep)?;
    let note = DirectoryNote::decode(&text).ok_or_else(|| RestoreError::Note(from.to_owned()))?;
    let folder = to.join(note.generation());
    std::fs::create_dir(&folder).map_err(keep)?;
    let from = from.canonicalize().map_err(keep)?;
    let mut written = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(&from).map_err(keep)? {
        let entry = entry.map_err(keep)?;
        if entry.file_name() == "erased" {
            // The erasure ledger.
            symlink(entry.path(), folder.join("erased")).map_err(keep)?;
        }
        if entry.path().extension().is_some_and(|end| end == "zst") {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            written = written.max(modified.map_err(keep)?);
            symlink(entry.path(), folder.join(entry.file_name())).map_err(keep)?;
        }
    }
    // Recorded in the copy, which remains.
    symlink(from.join("restores"), folder.join("restores")).map_err(keep)?;
    let written = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Backups::new(to).adopt(&note, written.as_millis() as u64)?;
    Ok(())
}

fn restore(from: &Path, to: &Path, until: Option<Until>) -> Result<(), RestoreError> {
    let options = DatabaseOptions::default();
    let progress = Progress::reading("restore", &[from]);
    let restored = Database::restore(&Backups::new(from), to, &options, until)?;
    drop(progress);
    let time = restored.time_millis.and_then(|millis| i64::try_from(millis).ok());
    let time = time.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let of = match time {
        Some(time) => format!(", which was written at {time}"),
        None if restored.position == 0 => ": nothing was written by then".to_owned(),
        None => String::new(),
    };
    // A closed standard output is no reason to fail.
    let _ = writeln!(io::stdout(), "restored up to change {}{of}", restored.position);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_number_or_a_time() {
        assert_eq!("1234".parse(), Ok(End(Until::Position(1_234))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(End(Until::Millis(1_000))));
        assert_eq!("1970-01-01T01:00:01+01:00".parse(), Ok(End(Until::Millis(1_000))));
        for wrong in ["", "yesterday", "-1", "1969-01-01T00:00:00Z"] {
            assert!(wrong.parse::<End>().is_err(), "{wrong}");
        }
    }
}
