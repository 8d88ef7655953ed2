//! Whether commits wait for a synchronous standby, so that somebody hears of it: such a wait has no end of its own.
//!
//! Keeps: it is asked on a connection that waits for no standby itself. Leaves out: what the wait means for an append,
//! which goes on.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::connect::Conn;
use super::failed::Failed;
use crate::storage::Figure;

/// How often it is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shorter waits are usual.
const WAIT_MIN_SECONDS: u64 = 2;
/// The time between two lines in the log while it lasts.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The longest wait, in seconds. A role sees its own sessions, and so those of all nodes.
const WAITS: &str = "SELECT coalesce(max(floor(extract(epoch FROM clock_timestamp() - query_start))), 0)::bigint \
    FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()";

/// Without a right, a role sees only how many there are.
const STANDBYS: &str = "SELECT current_setting('synchronous_standby_names'), current_user::text, count(*), \
    count(*) FILTER (WHERE sync_state IS NULL), \
    left(coalesce(string_agg(application_name, ', ') FILTER (WHERE sync_state IN ('sync', 'quorum')), ''), 200), \
    left(coalesce(string_agg(application_name, ', '), ''), 200) FROM pg_stat_replication";

/// See the module's description.
#[derive(Default)]
pub(super) struct Standby(Mutex<State>);

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    seconds: u64,
    told: Option<Arc<str>>,
    said: Option<Instant>,
}

/// Which standbys there are.
struct Standbys {
    names: String,
    user: String,
    count: i64,
    hidden: i64,
    matching: String,
    connected: String,
}

impl Standbys {
    async fn ask(conn: &mut Conn) -> Result<Self, Failed> {
        let statement = conn.prepare(STANDBYS).await?;
        let row = conn.client.query_one(&statement, &[]).await?;
        Ok(Self {
            names: row.try_get(0)?,
            user: row.try_get(1)?,
            count: row.try_get(2)?,
            hidden: row.try_get(3)?,
            matching: row.try_get(4)?,
            connected: row.try_get(5)?,
        })
    }

    /// What commits wait for.
    fn told(&self, seconds: u64) -> String {
        let Self { names, user, count, hidden, matching, connected } = self;
        let why = if *count == 0 {
            "no connected standby matches (none is connected)".to_owned()
        } else if *hidden > 0 {
            format!(
                "the role {user} lacks the right to see which of {count} connected standbys match: GRANT pg_read_all_stats TO {user} \
                 (or pg_monitor)"
            )
        } else if matching.is_empty() {
            format!("no connected standby matches ({connected})")
        } else {
            format!(
                "of the connected standbys {matching} match: too few, or they have not confirmed yet"
            )
        };
        format!(
            "appends wait for a synchronous standby for {seconds} s: synchronous_standby_names is '{names}', and {why}"
        )
    }
}

impl Standby {
    /// Asks whether commits wait, if that is due. Returns true if they did when it was asked last.
    pub(super) async fn look(&self, conn: &mut Conn) -> Result<bool, Failed> {
        {
            let mut state = self.0.lock();
            if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
                return Ok(state.told.is_some());
            }
            state.looked = Some(Instant::now());
        }
        let statement = conn.prepare(WAITS).await?;
        let seconds: i64 = conn.client.query_one(&statement, &[]).await?.try_get(0)?;
        let seconds = seconds.cast_unsigned();
        if seconds < WAIT_MIN_SECONDS {
            self.over();
            return Ok(false);
        }
        let told: Arc<str> = Standbys::ask(conn).await?.told(seconds).into();
        let mut state = self.0.lock();
        state.seconds = seconds;
        state.told = Some(told.clone());
        if state.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            state.said = Some(Instant::now());
            log::warn!("{told}");
        }
        Ok(true)
    }

    /// Nothing waits, or it cannot be known.
    pub(super) fn over(&self) {
        let mut state = self.0.lock();
        if state.told.take().is_some() {
            let seconds = std::mem::take(&mut state.seconds);
            state.said = None;
            log::info!("appends wait for no synchronous standby any more, after some {seconds} s");
        }
    }

    /// What commits wait for.
    pub(super) fn told(&self) -> Option<Arc<str>> {
        self.0.lock().told.clone()
    }

    pub(super) fn figure(&self) -> Figure {
        Figure {
            name: "standby_wait_seconds",
            help: "How long, in seconds, commits have been waiting for a synchronous standby. 0 if that is less than 2",
            value: self.0.lock().seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_or_which_right_is_missing() {
        let none = Standbys {
            names: "s2".to_owned(),
            user: "app".to_owned(),
            count: 0,
            hidden: 0,
            matching: String::new(),
            connected: String::new(),
        };
        let said = "appends wait for a synchronous standby for 7 s: synchronous_standby_names is 's2', and ";
        assert_eq!(none.told(7), format!("{said}no connected standby matches (none is connected)"));
        let other = Standbys { count: 1, connected: "s1".to_owned(), ..none };
        assert_eq!(other.told(7), format!("{said}no connected standby matches (s1)"));
        let slow = Standbys { matching: "s2".to_owned(), ..other };
        assert!(slow.told(7).contains("s2 match"), "{}", slow.told(7));
        let hidden = Standbys { hidden: 1, ..slow };
        assert!(hidden.told(7).contains("GRANT pg_read_all_stats TO app"), "{}", hidden.told(7));
    }
}
