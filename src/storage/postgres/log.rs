//! The log of one store in the database.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::{oneshot, watch};

use super::database::Postgres;
use super::erase::{erase, note_erased};
use super::failed::Failed;
use super::fence::still_allowed;
use super::lock::{catch_up, lock, places};
use super::read::{number, read, sequence};
use super::recent::Guess;
use super::state::LogState;
use super::text::to_column;
use super::trim::trim;
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::{
    AppendError, CaughtUp, ERASE_MAX, Heard, Locked, Probed, StorageError, StoreLog,
};

/// See the module's description.
pub(super) struct PostgresLog {
    pub(super) postgres: Postgres,
    pub(super) state: Arc<LogState>,
}

impl PostgresLog {
    /// Runs work that needs the log's state and a connection.
    fn spawned<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StorageError>> {
        self.postgres.run(work).map(|done| done?).boxed()
    }
}

impl StoreLog for PostgresLog {
    fn head(&self) -> Sequence {
        self.state.head()
    }

    fn probe(&self, ids: &[EntryId]) -> Probed {
        let known: Option<Vec<_>> = self.state.recent(|recent| {
            let guesses = ids.iter().map(|id| match recent.guess(*id) {
                Guess::At(sequence) => Some(Some(sequence)),
                Guess::Fresh => Some(None),
                Guess::Unknown => None,
            });
            guesses.collect()
        });
        known
            .map_or_else(|| Probed::all_open(ids.len()), |known| Probed { known, open: Vec::new() })
    }

    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError> {
        let lately = |id: &EntryId| match self.state.recent(|recent| recent.guess(*id)) {
            Guess::At(sequence) => Some(sequence),
            Guess::Fresh | Guess::Unknown => None,
        };
        let mut known: Vec<_> = ids.iter().map(lately).collect();
        if known.iter().all(Option::is_some) {
            return Ok(known);
        }
        // Pending appends are not found in the database, and may not be in this node's memory any more.
        self.state.wait_for_appends();
        let (postgres, log, asked) = (self.postgres.clone(), self.state.clone(), ids.to_vec());
        let found = self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            let statement = conn.prepare(&postgres.tables().sql.known).await?;
            let bytes: Vec<&[u8]> = asked.iter().map(|id| &id.as_bytes()[..]).collect();
            let name = to_column(log.store.as_str());
            let rows =
                conn.client.query(&statement, &[&name, &bytes]).await.map_err(Failed::from)?;
            places(&asked, &rows)
        })??;
        let head = self.state.head();
        for (known, found) in known.iter_mut().zip(found) {
            // What another node has appended beyond the head is found again when this node is overtaken.
            *known = known.or(found.filter(|at| *at <= head));
        }
        Ok(known)
    }

    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>> {
        self.append_allowed(segments, self.postgres.fence().heard())
    }

    fn append_allowed(
        &self,
        segments: Vec<Segment>,
        heard: Heard,
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        if segments.is_empty() {
            return ready(Ok(())).boxed();
        }
        let (answer, answered) = oneshot::channel();
        match self.state.hand_in(segments, heard, answer) {
            Ok(true) => self.postgres.queue(self.state.clone()),
            Ok(false) => {}
            Err(error) => return ready(Err(error)).boxed(),
        }
        let gone = || AppendError::Indefinite("the connections to the database were closed".into());
        async move { answered.await.unwrap_or_else(|_| Err(gone())) }.boxed()
    }

    fn still_allowed(&self, heard: Heard) -> BoxFuture<'static, Result<(), AppendError>> {
        let asked = self.postgres.run(still_allowed(self.postgres.clone(), heard));
        let stopped = |failed: Failed| AppendError::Definite(failed.to_string().into());
        asked.map(move |asked| asked.map_err(stopped)?).boxed()
    }

    fn go_on(&self) -> bool {
        self.state.go_on()
    }

    fn trimmed(&self) -> Sequence {
        self.state.trimmed()
    }

    fn trim(&self, last: Sequence) -> BoxFuture<'static, Result<(), AppendError>> {
        trim(&self.postgres, self.state.clone(), last)
    }

    fn erase(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        let ids: Vec<EntryId> = entries.iter().take(ERASE_MAX).map(|(_, id)| *id).collect();
        let known = if ids.is_empty() { Ok(Vec::new()) } else { self.lookup(&ids) };
        erase(&self.postgres, self.state.clone(), entries, known)
    }

    fn note_erased(&self, last: Sequence, known: (Sequence, EntryId)) -> Result<(), AppendError> {
        note_erased(&self.postgres, &self.state.store, last, known)
    }

    fn erasures(&self) -> u64 {
        self.state.erasures()
    }

    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError> {
        let head = self.state.head();
        if from > head {
            return Ok(Vec::new());
        }
        self.state.check_kept()?;
        let (postgres, log) = (self.postgres.clone(), self.state.clone());
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            let sql = &postgres.tables().sql;
            let read = read(&mut conn, sql, &log, (from, head), log.trimmed(), bytes_max);
            let (segments, trimmed) = read.await?;
            log.trimmed_to(trimmed);
            Ok(segments)
        })?
    }

    fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        let (postgres, log) = (self.postgres.clone(), self.state.clone());
        self.postgres.wait(async move {
            let mut conn = postgres.conn().await?;
            let statement = conn.prepare(&postgres.tables().sql.above).await?;
            let limit = i64::try_from(count_max).unwrap_or(i64::MAX).saturating_add(1);
            let (name, before) = (to_column(log.store.as_str()), number(before));
            let rows =
                conn.client.query(&statement, &[&name, &&id.as_bytes()[..], &before, &limit]).await;
            let rows = rows.map_err(Failed::from)?;
            let mut above = Vec::with_capacity(rows.len());
            for row in &rows {
                above.push(sequence(row.try_get(0).map_err(Failed::from)?)?);
            }
            above.sort_unstable();
            Ok((above.len() <= count_max).then_some(above))
        })?
    }

    fn bytes(&self) -> u64 {
        self.state.bytes()
    }

    fn follow(&self) -> Option<watch::Receiver<Sequence>> {
        Some(self.state.heard.subscribe())
    }

    fn catch_up(&self, shown: Sequence) -> BoxFuture<'static, Result<CaughtUp, StorageError>> {
        self.spawned(catch_up(self.postgres.clone(), self.state.clone(), shown))
    }

    fn lock(
        &self,
        shown: Sequence,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<Locked, StorageError>> {
        self.spawned(lock(self.postgres.clone(), self.state.clone(), shown, ids))
    }
}
