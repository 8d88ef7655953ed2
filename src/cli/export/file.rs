//! A file that an earlier export began.
//!
//! Keeps: what is not a whole line is cut off; nothing else of the file is changed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use eventlog_server::model::{RemoteId, Sequence, StoreId};
use eventlog_server::protocol::lines::{Line, WrongLine};

/// So much of it is read at a time, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// What a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// The last store in it.
    pub(super) store: StoreId,
    /// The server that it is of.
    pub(super) remote_id: RemoteId,
    /// What was chosen.
    pub(super) filter: String,
    /// What comes next of that store.
    pub(super) next: Sequence,
    /// Whether all of that store is there.
    pub(super) is_ended: bool,
    /// Whether all is there.
    pub(super) is_complete: bool,
    pub(super) stores: u64,
    pub(super) entries: u64,
}

/// The file is not one that can be gone on with.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum FileError {
    /// It cannot be opened or read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// It is something else.
    #[error("{} exists and is not an export: line {line}: {cause}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// What the line should not be.
        cause: WrongLine,
    },
    /// The file itself determines where to continue.
    #[error("{} was begun before: leave out --from to continue it", path.display())]
    From {
        /// The file.
        path: PathBuf,
    },
    /// It has another store.
    #[error("{} is an export of store {store:?}", path.display())]
    OfAnotherStore {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        store: StoreId,
    },
    /// Sequences have another meaning there.
    #[error("{} is an export of another server, or of this one before a restore: use another file", path.display())]
    OfAnotherServer {
        /// The file.
        path: PathBuf,
    },
    /// The file would mix two selections.
    #[error("{} was begun with {}", path.display(), if filter.is_empty() { "everything" } else { filter })]
    OfAnotherFilter {
        /// The file.
        path: PathBuf,
        /// What was chosen.
        filter: String,
    },
}

/// Opens `path` to be written on, and says what it has; `None` for a new one.
pub(super) fn open(path: &Path) -> Result<(File, Option<Begun>), FileError> {
    let io = |cause| FileError::Io { path: path.to_owned(), cause };
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = opened.map_err(io)?;
    // A pipe or a terminal has nothing.
    if !file.metadata().map_err(io)?.is_file() {
        return Ok((file, None));
    }
    let (begun, bytes) = scan(&mut BufReader::with_capacity(BUFFER_BYTES, &file), path)?;
    file.set_len(bytes).map_err(io)?;
    file.seek(SeekFrom::End(0)).map_err(io)?;
    Ok((file, begun))
}

/// What the whole lines of `input` have, and how many bytes these are.
fn scan(input: &mut impl BufRead, path: &Path) -> Result<(Option<Begun>, u64), FileError> {
    let wrong = |line, cause| FileError::Wrong { path: path.to_owned(), line, cause };
    let (mut begun, mut bytes): (Option<Begun>, u64) = (None, 0);
    let (mut line, mut last) = (Vec::new(), Vec::new());
    let mut number = 0;
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line);
        read.map_err(|cause| FileError::Io { path: path.to_owned(), cause })?;
        if line.last() != Some(&b'\n') {
            break;
        }
        number += 1;
        bytes += line.len() as u64;
        if line.starts_with(b"{\"sequence\":")
            && let Some(begun) = &mut begun
        {
            begun.entries += 1;
            // Only where the last one was counts.
            std::mem::swap(&mut line, &mut last);
            continue;
        }
        let parsed = parse(&line).map_err(|cause| wrong(number, cause))?;
        note(&mut begun, parsed).map_err(|cause| wrong(number, cause))?;
        last.clear();
    }
    if let (Some(begun), false) = (&mut begun, last.is_empty()) {
        let parsed = parse(&last).map_err(|cause| wrong(number, cause))?;
        if let Line::Entry(entry) = parsed
            && let Some(sequence) = entry.sequence
        {
            begun.next = sequence.next();
        }
    }
    Ok((begun, bytes))
}

fn parse(line: &[u8]) -> Result<Line, WrongLine> {
    let text = std::str::from_utf8(line).map_err(|error| WrongLine::Json(error.to_string()))?;
    Line::parse(text)
}

/// Another line than one of an entry.
fn note(begun: &mut Option<Begun>, line: Line) -> Result<(), WrongLine> {
    match (begun, line) {
        (begun, Line::Head(head)) => {
            let (stores, entries) = begun.as_ref().map_or((0, 0), |one| (one.stores, one.entries));
            let is_same = begun.as_ref().is_some_and(|one| one.store == head.store);
            *begun = Some(Begun {
                stores: stores + u64::from(!is_same),
                entries,
                store: head.store,
                remote_id: head.remote_id,
                filter: head.filter,
                next: head.from,
                is_ended: false,
                is_complete: false,
            });
        }
        (Some(begun), Line::End(_)) => begun.is_ended = true,
        (Some(begun), Line::Complete(_)) => begun.is_complete = true,
        // An export of nothing.
        (None, Line::Complete(_)) => {}
        (_, Line::End(_) | Line::Entry(_)) => {
            return Err(WrongLine::Json("no store begins before it".to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "018bcfe5-6800-70e1-8101-010101010101";
    const REMOTE: &str = "00000000000000000000000000000001";

    fn head(store: &str, from: u64) -> String {
        format!(
            "{{\"export\":1,\"storeId\":\"{store}\",\"remoteId\":\"{REMOTE}\",\"from\":{from},\"head\":9}}\n"
        )
    }

    fn entry(sequence: u64) -> String {
        format!(
            "{{\"sequence\":{sequence},\"id\":\"{ID}\",\"event\":\"E\",\"primaryKey\":\"\",\"payloadHex\":\"\"}}\n"
        )
    }

    fn scanned(text: &str) -> Result<(Option<Begun>, u64), String> {
        scan(&mut text.as_bytes(), Path::new("f")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_gone_on_with_behind_its_last_whole_line() {
        let end = "{\"end\":\"a\",\"entries\":2}\n";
        let lines = [head("a", 1), entry(3), entry(5), end.to_owned(), head("b", 1), entry(1)];
        let text = lines.concat();
        for cut in 0..=text.len() {
            let (begun, bytes) = scanned(&text[..cut]).expect("an export");
            let whole = text[..cut].rfind('\n').map_or(0, |at| at + 1);
            assert_eq!(bytes, whole as u64);
            let next =
                begun.map(|one| (one.store.to_string(), one.next.get(), one.is_ended, one.stores));
            let expected = match text[..whole].lines().count() {
                0 => None,
                1 => Some(("a".to_owned(), 1, false, 1)),
                2 => Some(("a".to_owned(), 4, false, 1)),
                3 => Some(("a".to_owned(), 6, false, 1)),
                4 => Some(("a".to_owned(), 6, true, 1)),
                5 => Some(("b".to_owned(), 1, false, 2)),
                _ => Some(("b".to_owned(), 2, false, 2)),
            };
            if text[..whole].lines().count() != 4 {
                assert_eq!(next, expected, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_store_that_goes_on_is_one_store_and_a_complete_file_says_so() {
        let more =
            "{\"end\":\"a\",\"entries\":1}\n{\"complete\":true,\"stores\":1,\"entries\":2}\n";
        let text = [head("a", 1), entry(1), head("a", 2), entry(2), more.to_owned()].concat();
        let begun = scanned(&text).expect("an export").0.expect("begun");
        assert!(begun.is_complete && begun.is_ended);
        assert_eq!((begun.stores, begun.entries), (1, 2));
    }

    #[test]
    fn something_else_is_left_alone() {
        for (text, line) in [
            ("notes\n".to_owned(), "line 1"),
            (format!("{}{{\"a\":1}}\n", head("a", 1)), "line 2"),
            (entry(1), "line 1"),
            (format!("{}{{\"sequence\":x\n", head("a", 1)), "line 2"),
        ] {
            let refused = scanned(&text).expect_err(&text);
            assert!(refused.contains(line), "{refused}");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notes");
        std::fs::write(&path, "notes\nmore").expect("written");
        assert!(open(&path).is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"notes\nmore");
    }
}
