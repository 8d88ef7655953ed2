//! The heads that this node has shown, which outlive it: in a file next to it.
//!
//! Keeps: a head of a store that is below one that was recorded here is detected, also after a restart of the node.
//! Moved heads are recorded each second, so what was shown in the last second before a crash may be missing. Leaves
//! out: what is done about it (`lock`).
//!
//! ```text
//! line       JSON: ["remote", "<remote id>"] at first, then ["<store>", <head>], of which the last one of a store counts
//! ```
//!
//! A line that is cut short ends the file: the next write starts it from scratch. A file of another database is started
//! from scratch as well.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::model::{RemoteId, Sequence, StoreId};

/// The file is written from scratch once it has this many lines more than twice what counts.
const LINES_ABOVE: usize = 10_000;

/// The file. Blocks.
pub(super) struct ShownFile {
    path: PathBuf,
    remote_id: RemoteId,
    /// `None` if the file must be written from scratch.
    file: Option<File>,
    lines: usize,
}

impl ShownFile {
    /// The file at `path`, and what it has for the database with this remote id.
    pub(super) fn open(
        path: &Path,
        remote_id: RemoteId,
    ) -> io::Result<(Self, HashMap<StoreId, Sequence>)> {
        let mut opened = Self { path: path.to_owned(), remote_id, file: None, lines: 0 };
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let Some((heads, lines, is_whole)) = parse(&bytes, remote_id) else {
            return Ok((opened, HashMap::new()));
        };
        opened.lines = lines;
        if is_whole {
            opened.file = Some(OpenOptions::new().append(true).open(path)?);
        }
        Ok((opened, heads))
    }

    /// Records heads that have moved, durably. `all` are all that count, in case the file must be written from
    /// scratch.
    pub(super) fn note(
        &mut self,
        moved: &[(StoreId, Sequence)],
        all: impl FnOnce() -> Vec<(StoreId, Sequence)>,
    ) -> io::Result<()> {
        let Some(mut file) = self.file.take().filter(|_| self.lines < LINES_ABOVE) else {
            let all = all();
            self.write_anew(&all)?;
            return Ok(());
        };
        file.write_all(&lines(moved))?;
        file.sync_data()?;
        self.lines += moved.len();
        self.file = Some(file);
        Ok(())
    }

    fn write_anew(&mut self, all: &[(StoreId, Sequence)]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        let head = serde_json::to_string(&("remote", self.remote_id.to_string()))?;
        file.write_all(head.as_bytes())?;
        file.write_all(b"\n")?;
        file.write_all(&lines(all))?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = Some(file);
        // The same number may be added again.
        self.lines = 0;
        Ok(())
    }
}

fn lines(heads: &[(StoreId, Sequence)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (store, head) in heads {
        // Writing a text and a number always works.
        if let Ok(line) = serde_json::to_string(&(store.as_str(), head.get())) {
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
    }
    bytes
}

/// What counts, the number of lines, and whether the last one is complete. `None` if it belongs to another database.
fn parse(bytes: &[u8], remote_id: RemoteId) -> Option<(HashMap<StoreId, Sequence>, usize, bool)> {
    let mut all = bytes.split_inclusive(|byte| *byte == b'\n');
    let head: (String, String) = serde_json::from_slice(all.next()?).ok()?;
    if head != ("remote".to_owned(), remote_id.to_string()) {
        return None;
    }
    let (mut heads, mut count) = (HashMap::new(), 0);
    for line in all {
        let read = serde_json::from_slice::<(String, u64)>(line).ok();
        let read = read.filter(|_| line.ends_with(b"\n"));
        let read = read
            .and_then(|(store, head)| Some((StoreId::new(store).ok()?, Sequence::new(head).ok()?)));
        let Some((store, head)) = read else { return Some((heads, count, false)) };
        heads.insert(store, head);
        count += 1;
    }
    Some((heads, count, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::store;

    fn at(n: u64) -> Sequence {
        Sequence::new(n).expect("a sequence")
    }

    #[test]
    fn what_was_noted_is_known_again_and_a_cut_line_costs_itself_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heads");
        let remote_id = RemoteId::random();
        let (mut file, heads) = ShownFile::open(&path, remote_id).expect("opened");
        assert!(heads.is_empty());
        file.note(&[], || vec![(store("a"), at(1))]).expect("noted");
        file.note(&[(store("a"), at(2)), (store("\0b\n"), at(3))], Vec::new).expect("noted");
        let expected = HashMap::from([(store("a"), at(2)), (store("\0b\n"), at(3))]);
        let (_, heads) = ShownFile::open(&path, remote_id).expect("opened");
        assert_eq!(heads, expected);
        let mut cut = OpenOptions::new().append(true).open(&path).expect("opened");
        cut.write_all(b"[\"a\",99").expect("written");
        let (mut file, heads) = ShownFile::open(&path, remote_id).expect("opened");
        assert_eq!(heads, expected);
        let all: Vec<_> = heads.into_iter().collect();
        file.note(&[], || all).expect("noted");
        file.note(&[(store("c"), at(4))], Vec::new).expect("noted");
        let (_, heads) = ShownFile::open(&path, remote_id).expect("opened");
        assert_eq!((heads.len(), heads[&store("c")]), (3, at(4)));
        let (_, heads) = ShownFile::open(&path, RemoteId::random()).expect("opened");
        assert!(heads.is_empty(), "that is another database");
    }
}
