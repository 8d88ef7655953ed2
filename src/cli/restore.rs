//! `restore`: makes a data directory from a backup.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use eventlog_server::storage::sled::{
    BackupError, Backups, Database, DatabaseOptions, DirectoryNote, Held, Moment, OpenError, Until,
    Wanted, unpack,
};

use super::bucket::{Bucket, BucketError, FetchError, Shipped, fetch, generations};
use super::progress::{Progress, Unit};
use super::text::{counted, parse_moment, people_bytes, timestamp};
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
  eventlog-server restore --from /backups/eventlog --list
  eventlog-server restore --from /copies/archive --data-dir D
  eventlog-server restore --from s3://bucket/prefix --data-dir D
  eventlog-server restore --from eventlog.tar --data-dir D
  ssh elsewhere 'cat eventlog.tar' | eventlog-server restore --from - --data-dir D")]
pub(super) struct Args {
    /// The folder with backups (the newest is used), a copy of an archive folder, the bucket with an archive, or a file
    /// with the output of `backup --to -`; `-` reads that from standard input
    #[arg(long, value_name = "DIR|FILE|s3://…|-")]
    from: PathBuf,
    /// The data directory to make
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    data_dir: Option<PathBuf>,
    /// Print the generations, each with its first and last moment and its backups; the newest comes last
    #[arg(long, conflicts_with_all = ["data_dir", "until", "generation"])]
    list: bool,
    /// Restore the state at this time, or after the change with this number
    #[arg(long, value_name = "TIME|CHANGE")]
    until: Option<End>,
    /// Use this generation: the name that a server's data has until it is restored or healed [default: the newest
    /// one; of a folder only if it goes on with all others in it]
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
        let millis = parse_moment(text)
            .map_err(|error| format!("this is not the number of a change, and {error}"))?;
        Ok(Self(Until::Millis(millis)))
    }
}

/// `restore` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    /// There is no backup, or a damaged one.
    #[error("{}", explain(.0))]
    Backup(#[from] BackupError),
    /// The directory cannot be made.
    #[error(transparent)]
    Open(OpenError),
    /// The bucket cannot be read.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The bucket contains no intact archive.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// There is no bucket at this address.
    #[error("--from: {0}")]
    Address(&'static str),
    /// The note that identifies the directory of the archive is damaged.
    #[error("{}: `directory` is damaged or of a later version", .0.display())]
    Note(PathBuf),
    /// The stream cannot be stored while it is read.
    #[error("{}: {cause}", path.display())]
    Keep {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
}

impl From<OpenError> for RestoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Backup { cause } => Self::Backup(cause),
            error => Self::Open(error),
        }
    }
}

/// What is wrong, and what is available instead.
fn explain(error: &BackupError) -> String {
    let why = match error {
        BackupError::Which(held) => {
            let lines = lines(held);
            format!("--generation says which of these is meant, as `--list` prints them:\n{lines}")
        }
        BackupError::TooEarly { held, other } => {
            let generation = &held.generation;
            let first = held.first.map_or_else(String::new, |first| {
                format!(": the earliest moment is {}", moment(first))
            });
            let other = other.as_ref().map_or_else(String::new, |other| {
                format!("; --generation {other} has what was there at that time")
            });
            format!("nothing of generation {generation} is so old{first}{other}")
        }
        BackupError::TooLate(held) => format!(
            "the newest backup of generation {} ends with {}, and was made at {}",
            held.generation,
            moment(held.last),
            timestamp(held.made_millis)
        ),
        BackupError::NewestDamaged { before, .. } => format!(
            "{error}. `--generation {} --until {}` restores that one",
            before.generation, before.last.position
        ),
        error => error.to_string(),
    };
    format!("nothing was restored: {why}")
}

fn moment(Moment { position, time_millis }: Moment) -> String {
    format!("change {position} of {}", timestamp(time_millis))
}

/// A line about the backups of a generation.
fn line(held: &Held) -> String {
    let Held { generation, before, each, first, last, .. } = held;
    let first = first.map_or_else(|| "what cannot be read".to_owned(), moment);
    let before =
        before.as_ref().map_or_else(String::new, |before| format!(", goes on with {before}"));
    let backups = counted(each.len() as u64, "backup", "backups");
    format!("{generation}  {backups}, from {first} to {}{before}", moment(*last))
}

fn lines(held: &[Held]) -> String {
    held.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn run(args: &Args) -> Result<(), RestoreError> {
    let address = BucketAddress::of(&args.from).transpose().map_err(RestoreError::Address)?;
    if let (true, Some(address)) = (args.list, &address) {
        return list_bucket(&Bucket::open(address)?);
    }
    let is_archive = args.from.join(DirectoryNote::FILE).is_file();
    let is_stream = args.from == Path::new("-") || args.from.is_file();
    if !is_stream && address.is_none() && !is_archive {
        return restore(args, &args.from);
    }
    // This is next to the directory, where there is space for it. It is removed at the end.
    let beside = args.data_dir.as_deref().and_then(Path::parent);
    let parent = beside.filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let keep = |cause| RestoreError::Keep { path: parent.to_owned(), cause };
    std::fs::create_dir_all(parent).map_err(keep)?;
    let kept = tempfile::tempdir_in(parent).map_err(keep)?;
    match address {
        None if is_archive => adopt(&args.from, kept.path())?,
        None => {
            let (input, bytes) = stream(&args.from)?;
            let progress = Progress::start("receive", Unit::Bytes, bytes);
            unpack(progress.counting(input), kept.path())?;
        }
        Some(address) => {
            let bucket = Bucket::open(&address)?;
            let fetched = fetch(&bucket, args.generation.as_deref(), kept.path())?;
            let bytes = people_bytes(fetched.bytes);
            eprintln!("fetched generation {}, {bytes}", fetched.generation);
        }
    }
    restore(args, kept.path())
}

/// Opens the output of `backup --to -`, which may have been kept in a file. Returns its size, if that is known.
fn stream(from: &Path) -> Result<(Box<dyn Read>, Option<u64>), RestoreError> {
    if from == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let keep = |cause| RestoreError::Keep { path: from.to_owned(), cause };
    let file = File::open(from).map_err(keep)?;
    let bytes = file.metadata().map_err(keep)?.len();
    Ok((Box::new(file), Some(bytes)))
}

fn list_bucket(bucket: &Bucket) -> Result<(), RestoreError> {
    for Shipped { generation, bytes, modified_millis } in generations(bucket)? {
        let (bytes, at) = (people_bytes(bytes), timestamp(modified_millis));
        // A closed standard output is no reason to fail.
        let _ = writeln!(io::stdout(), "{generation}  {bytes}, last written at {at}");
    }
    Ok(())
}

/// Makes a backup in `to` from the files of an archive copy in `from`, which stay where they are.
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

fn restore(args: &Args, from: &Path) -> Result<(), RestoreError> {
    let backups = Backups::new(from);
    // Without it, the list was requested.
    let Some(to) = &args.data_dir else {
        let held = backups.held()?;
        if held.is_empty() {
            return Err(BackupError::None { path: from.to_owned() }.into());
        }
        // A closed standard output is no reason to fail.
        let _ = held.iter().try_for_each(|held| {
            writeln!(io::stdout(), "{}", line(held))?;
            held.each.iter().try_for_each(|made| {
                let (last, at) = (moment(made.last), timestamp(made.made_millis));
                writeln!(io::stdout(), "  up to {last}, made at {at}")
            })
        });
        return Ok(());
    };
    let until = args.until.map(|End(until)| until);
    let wanted = Wanted { generation: args.generation.clone(), until };
    let options = DatabaseOptions::default();
    let progress = Progress::of("restore", &options.work);
    let restored = Database::restore(&backups, to, &options, &wanted)?;
    drop(progress);
    let of = match (restored.time_millis, restored.base_millis) {
        (Some(millis), _) => format!(", which was written at {}", timestamp(millis)),
        (None, Some(millis)) => format!(", which was written before {}", timestamp(millis)),
        (None, None) => String::new(),
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
