//! Records which heads this node has shown, each second.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::open::OpenLogs;
use super::shown::ShownFile;
use crate::model::RemoteId;

/// How often moved heads are recorded.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// See the module's description.
pub(super) struct Notes {
    file: Mutex<ShownFile>,
    open: Arc<OpenLogs>,
}

impl Notes {
    /// Reads what was recorded before. Blocks.
    pub(super) fn open(path: &Path, remote_id: RemoteId, open: &Arc<OpenLogs>) -> io::Result<Self> {
        let (file, heads) = ShownFile::open(path, remote_id)?;
        open.remember(heads);
        Ok(Self { file: Mutex::new(file), open: open.clone() })
    }

    /// Records what has moved since the last time. Blocks.
    pub(super) fn note(&self) -> io::Result<()> {
        let mut file = self.file.lock();
        let moved = self.open.moved();
        if moved.is_empty() {
            return Ok(());
        }
        // After a failure the file is written from scratch, with everything.
        file.note(&moved, || self.open.shown())
    }

    /// Records moved heads for as long as the task lives.
    pub(super) async fn run(self: Arc<Self>) {
        let mut fails = false;
        loop {
            tokio::time::sleep(NOTE_EVERY).await;
            let noting = self.clone();
            let noted = tokio::task::spawn_blocking(move || noting.note()).await;
            let noted = noted.unwrap_or_else(|error| Err(io::Error::other(error)));
            if let Err(error) = &noted
                && !fails
            {
                log::warn!("the heads that were shown are not noted: {error}");
            }
            fails = noted.is_err();
        }
    }
}
