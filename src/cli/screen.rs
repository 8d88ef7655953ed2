//! Where a look at a running server is printed: as it is, or cut to the height of a terminal that shows one look after
//! the other.
//!
//! Keeps: what does not fit is counted, and the last row says how much it is; a line that is wider than the terminal
//! takes several rows. Leaves out: what is printed, and when (`watch`).

use std::io::{self, BufWriter, Write};

use rustix::termios::{Winsize, tcgetwinsize};

/// How many bytes are printed at once.
const PRINTED_AT_ONCE: usize = 64 << 10;

/// Where a look is printed.
pub(super) struct Out {
    to: BufWriter<Box<dyn Write>>,
    /// `None` if nothing is cut.
    room: Option<Room>,
}

struct Room {
    rows_left: usize,
    columns: usize,
    /// The beginning of a line.
    line: Vec<u8>,
    /// How many lines did not fit.
    left_out: u64,
}

impl Out {
    /// Prints everything.
    pub(super) fn whole(to: impl Write + 'static) -> Self {
        Self { to: BufWriter::with_capacity(PRINTED_AT_ONCE, Box::new(to)), room: None }
    }

    /// Clears the terminal, and prints what fits into this many rows and columns.
    pub(super) fn screen(
        to: impl Write + 'static,
        (rows, columns): (usize, usize),
    ) -> io::Result<Self> {
        let mut out = Self::whole(to);
        out.to.write_all(b"\x1b[2J\x1b[H")?;
        // The last row is for what is left out, or for the cursor.
        let rows_left = rows.saturating_sub(1).max(1);
        out.room = Some(Room { rows_left, columns: columns.max(1), line: Vec::new(), left_out: 0 });
        Ok(out)
    }

    /// Says what was left out, and prints what is not printed yet.
    pub(super) fn end(mut self) -> io::Result<()> {
        if let Some(room) = self.room.take() {
            self.to.write_all(&room.line)?;
            match room.left_out {
                0 => {}
                1 => write!(self.to, "… 1 more line")?,
                count => write!(self.to, "… {count} more lines")?,
            }
        }
        self.to.flush()
    }
}

impl Room {
    /// Whether a line fits; once one does not, no further one does.
    fn takes(&mut self, line: &[u8]) -> bool {
        let characters = String::from_utf8_lossy(line).chars().count();
        let rows = characters.div_ceil(self.columns).max(1);
        let fits = self.left_out == 0 && rows <= self.rows_left;
        if fits {
            self.rows_left -= rows;
        } else {
            self.left_out += 1;
        }
        fits
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(room) = &mut self.room else { return self.to.write(bytes) };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            room.line.extend_from_slice(part);
            if let Some(line) = room.line.strip_suffix(b"\n") {
                let line = line.to_vec();
                if room.takes(&line) {
                    self.to.write_all(&room.line)?;
                }
                room.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The columns of the terminal that standard output or standard error is, or what the environment says.
pub(super) fn columns() -> Option<usize> {
    let of = |size: rustix::io::Result<Winsize>| size.ok().map(|size| usize::from(size.ws_col));
    let terminal = of(tcgetwinsize(io::stdout())).or_else(|| of(tcgetwinsize(io::stderr())));
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal.filter(|columns| *columns > 0).or_else(said)
}

/// The rows and columns of the terminal that standard output is.
pub(super) fn size() -> (usize, usize) {
    // What a terminal has that does not say it.
    let (mut rows, mut columns) = (24, 80);
    if let Ok(size) = tcgetwinsize(io::stdout())
        && size.ws_row > 0
        && size.ws_col > 0
    {
        (rows, columns) = (usize::from(size.ws_row), usize::from(size.ws_col));
    }
    (rows, columns)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(size: (usize, usize), text: &str) -> String {
        let kept = Kept::default();
        let mut out = Out::screen(kept.clone(), size).expect("written");
        // In pieces, as `write!` does.
        for part in text.as_bytes().chunks(3) {
            out.write_all(part).expect("written");
        }
        out.end().expect("written");
        let text = String::from_utf8(kept.0.lock().clone()).expect("UTF-8");
        text.strip_prefix("\x1b[2J\x1b[H").expect("cleared").to_owned()
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(shown((4, 10), "a\nb\nc\n"), "a\nb\nc\n");
        assert_eq!(shown((4, 10), "a\nb\nc\nd\n"), "a\nb\nc\n… 1 more line");
        assert_eq!(shown((4, 10), "a\nb\nc\nd\ne\n"), "a\nb\nc\n… 2 more lines");
        // The second line takes two rows, and the third would be the fourth.
        assert_eq!(shown((4, 10), "a\n0123456789x\nb\nc\n"), "a\n0123456789x\n… 2 more lines");
        // What is smaller comes no more behind what was left out.
        assert_eq!(shown((3, 2), "éé\nwide\nb\n"), "éé\n… 2 more lines");
        assert_eq!(shown((0, 0), "a\nb\n"), "a\n… 1 more line");
    }
}
