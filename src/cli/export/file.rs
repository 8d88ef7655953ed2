//! A file that an earlier export began.
//!
//! Keeps: only an incomplete last line, or the line that says that the export is complete, is cut off; nothing else is changed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use eventlog_server::model::{RemoteId, Sequence, StoreId};
use eventlog_server::protocol::lines::{Head, Line, WrongLine};

/// How much of it is read at a time, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// No line of an export is so long, in bytes: a file may be anything.
const LINE_BYTES_MAX: u64 = if cfg!(test) { 1 << 16 } else { 512 << 20 };

/// The start of an export.
const BEGINS: &[u8] = b"{\"export\":";

/// The content of a file. It takes about 100 bytes for each store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// The last store in it.
    pub(super) store: StoreId,
    /// The server that was exported.
    pub(super) remote_id: RemoteId,
    /// The selection.
    pub(super) filter: String,
    /// The next sequence of each store.
    pub(super) next: BTreeMap<StoreId, Sequence>,
    /// The last sequence that the file has of the last store, once that store has ended.
    head: Sequence,
    /// Whether the last store has ended.
    pub(super) is_ended: bool,
    pub(super) entries: u64,
}

/// A file that is continued.
pub(super) struct Opened {
    pub(super) file: File,
    /// `None` for a new one.
    pub(super) begun: Option<Begun>,
    /// Where the kept part ends, in bytes. After it, there is an incomplete line, or the line that says that the export is complete. `None` for
    /// a pipe or a terminal.
    end: Option<u64>,
    /// Whether that line exists.
    pub(super) is_complete: bool,
}

impl Opened {
    /// Cuts off what is not kept, so that new lines follow the kept part.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        if let Some(end) = self.end {
            self.file.set_len(end)?;
            self.file.seek(SeekFrom::End(0))?;
        }
        Ok(())
    }
}

/// The file cannot be continued.
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
    /// It contains another store.
    #[error("{} is an export of store {store:?}: use another file", path.display())]
    OfAnotherStore {
        /// The file.
        path: PathBuf,
        /// The store in the file.
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
        /// The selection.
        filter: String,
    },
}

/// Opens `path` for writing. Does not change the file yet.
pub(super) fn open(path: &Path) -> Result<Opened, FileError> {
    let io = |cause| FileError::Io { path: path.to_owned(), cause };
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = opened.map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Ok(Opened { file, begun: None, end: None, is_complete: false });
    }
    let Scanned { begun, end, is_complete } =
        scan(&mut BufReader::with_capacity(BUFFER_BYTES, &file), path)?;
    Ok(Opened { file, begun, end: Some(end), is_complete })
}

/// What was found in a file.
#[derive(Debug)]
struct Scanned {
    begun: Option<Begun>,
    /// The number of bytes of its complete lines, without the line that says that the export is complete.
    end: u64,
    is_complete: bool,
}

fn scan(input: &mut impl BufRead, path: &Path) -> Result<Scanned, FileError> {
    let wrong = |line, cause| FileError::Wrong { path: path.to_owned(), line, cause };
    let mut found = Scanned { begun: None, end: 0, is_complete: false };
    let (mut line, mut last) = (Vec::new(), Vec::new());
    let mut number = 0;
    loop {
        line.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let read = read.map_err(|cause| FileError::Io { path: path.to_owned(), cause })?;
        number += 1;
        if read as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            return Err(wrong(number, WrongLine::Json("it is longer than any line".to_owned())));
        }
        if line.last() != Some(&b'\n') {
            let is_ours = BEGINS.starts_with(&line) || line.starts_with(BEGINS);
            if found.begun.is_none() && !found.is_complete && !is_ours {
                return Err(wrong(number, WrongLine::Json("no export begins so".to_owned())));
            }
            break;
        }
        if found.is_complete {
            let why = "something comes behind the line which says that all is there";
            return Err(wrong(number, WrongLine::Json(why.to_owned())));
        }
        let bytes = line.len() as u64;
        if line.starts_with(b"{\"sequence\":")
            && let Some(begun) = &mut found.begun
        {
            begun.entries += 1;
            found.end += bytes;
            // Only the position of the last one matters.
            std::mem::swap(&mut line, &mut last);
            continue;
        }
        let parsed = parse(&line).map_err(|cause| wrong(number, cause))?;
        if matches!(parsed, Line::Complete(_)) {
            found.is_complete = true;
            continue;
        }
        note_entry(&mut found.begun, &last).map_err(|cause| wrong(number - 1, cause))?;
        note(&mut found.begun, parsed).map_err(|cause| wrong(number, cause))?;
        found.end += bytes;
        last.clear();
    }
    note_entry(&mut found.begun, &last).map_err(|cause| wrong(number - 1, cause))?;
    Ok(found)
}

/// Handles the line of an entry, the last one so far. An empty line is ignored.
fn note_entry(begun: &mut Option<Begun>, line: &[u8]) -> Result<(), WrongLine> {
    if let (Some(begun), false) = (begun, line.is_empty())
        && let Line::Entry(entry) = parse(line)?
        && let Some(sequence) = entry.sequence
    {
        begun.next.insert(begun.store.clone(), sequence.next());
    }
    Ok(())
}

fn parse(line: &[u8]) -> Result<Line, WrongLine> {
    let text = std::str::from_utf8(line).map_err(|error| WrongLine::Json(error.to_string()))?;
    Line::parse(text)
}

/// Handles any other line.
fn note(begun: &mut Option<Begun>, line: Line) -> Result<(), WrongLine> {
    match (begun, line) {
        (begun, Line::Head(head)) => {
            let (mut next, entries) = match begun.take() {
                None => (BTreeMap::new(), 0),
                Some(one) if (one.remote_id, &one.filter) == (head.remote_id, &head.filter) => {
                    (one.next, one.entries)
                }
                Some(_) => {
                    let why =
                        "it is of another server than what is before it, or has another selection";
                    return Err(WrongLine::Json(why.to_owned()));
                }
            };
            next.insert(head.store.clone(), head.from);
            let Head { store, remote_id, filter, head, .. } = head;
            let is_ended = false;
            *begun = Some(Begun { store, remote_id, filter, next, head, is_ended, entries });
        }
        (Some(begun), Line::End(_)) => {
            begun.is_ended = true;
            let behind = begun.head.next();
            begun.next.entry(begun.store.clone()).and_modify(|next| *next = behind.max(*next));
        }
        (_, Line::End(_) | Line::Entry(_)) => {
            return Err(WrongLine::Json("no store begins before it".to_owned()));
        }
        // The caller handles it.
        (_, Line::Complete(_)) => {}
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

    fn scanned(text: &str) -> Result<Scanned, String> {
        scan(&mut text.as_bytes(), Path::new("f")).map_err(|error| error.to_string())
    }

    fn next(begun: &Begun, store: &str) -> u64 {
        begun.next[&StoreId::new(store).expect("a store")].get()
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_gone_on_with_behind_its_last_whole_line() {
        let end = "{\"end\":\"a\",\"entries\":2}\n";
        let lines = [head("a", 1), entry(3), entry(5), end.to_owned(), head("b", 1), entry(1)];
        let text = lines.concat();
        for cut in 0..=text.len() {
            let Scanned { begun, end, is_complete } = scanned(&text[..cut]).expect("an export");
            let whole = text[..cut].rfind('\n').map_or(0, |at| at + 1);
            assert_eq!((end, is_complete), (whole as u64, false));
            let found = begun.map(|one| {
                let stores = one.next.len();
                (one.store.to_string(), next(&one, one.store.as_str()), one.is_ended, stores)
            });
            let expected = match text[..whole].lines().count() {
                0 => None,
                1 => Some(("a".to_owned(), 1, false, 1)),
                2 => Some(("a".to_owned(), 4, false, 1)),
                3 => Some(("a".to_owned(), 6, false, 1)),
                // Everything up to the head that the first line names.
                4 => Some(("a".to_owned(), 10, true, 1)),
                5 => Some(("b".to_owned(), 1, false, 2)),
                _ => Some(("b".to_owned(), 2, false, 2)),
            };
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_store_that_goes_on_is_one_store_and_a_complete_file_is_gone_on_with_before_it_says_so() {
        let end = |store| format!("{{\"end\":\"{store}\",\"entries\":1}}\n");
        let parts = [head("a", 1), entry(1), head("a", 2), entry(2), end("a"), head("b", 1)];
        let parts = [parts.concat(), entry(7), end("b"), head("a", 10), entry(12)];
        let complete = "{\"complete\":true,\"stores\":2,\"entries\":4}\n";
        let text = parts.concat() + &end("a");
        let Scanned { begun, end, is_complete } =
            scanned(&(text.clone() + complete)).expect("an export");
        let begun = begun.expect("begun");
        assert!(is_complete && begun.is_ended && end == text.len() as u64);
        assert_eq!((begun.next.len(), begun.entries), (2, 4));
        assert_eq!((next(&begun, "a"), next(&begun, "b")), (13, 10));
        // An export of nothing.
        let nothing = scanned(complete).expect("an export");
        assert!(nothing.is_complete && nothing.begun.is_none() && nothing.end == 0);
    }

    #[test]
    fn something_else_is_left_alone() {
        for (text, line) in [
            ("notes\n".to_owned(), "line 1"),
            (format!("{}{{\"a\":1}}\n", head("a", 1)), "line 2"),
            (entry(1), "line 1"),
            (format!("{}{{\"sequence\":x\n", head("a", 1)), "line 2"),
            ("no line".to_owned(), "line 1"),
            (
                format!("{}{}", head("a", 1), head("b", 1).replace(REMOTE, &"2".repeat(32))),
                "line 2",
            ),
        ] {
            let refused = scanned(&text).expect_err(&text);
            assert!(refused.contains(line), "{refused}");
        }
        // It was read into memory as a whole.
        let endless = "{\"export\":".to_owned() + &"x".repeat(1 << 17);
        assert!(scanned(&endless).expect_err("it is too long").contains("longer than any line"));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notes");
        std::fs::write(&path, "notes\nmore").expect("written");
        assert!(open(&path).is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"notes\nmore");
    }
}
