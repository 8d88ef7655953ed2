//! How many files, and so connections, the process may have open.
//!
//! At the system's limit, connections are not even accepted, so clients wait without knowing why and `/healthz` does
//! not answer. So the server accepts only as many connections as fit below the limit, and refuses others with a
//! message.

use eventlog_server::server::files_per_connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The database, logs, listeners, threads and plain requests need some in addition to the connections.
const OTHER_FILES: u64 = 256;

/// Raises the limit of this process as far as possible: systems give a process 1,024 by default, whatever more they
/// permit. Returns how many of `connections_max` connections there is space for then, and warns if that is not all.
pub(super) fn make_room(connections_max: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let each = files_per_connection();
    let wanted = connections_max as u64 * each + OTHER_FILES;
    let Some(now) = current.filter(|now| *now < wanted) else { return connections_max };
    let reachable = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum });
    let files = if raised.is_ok() { reachable } else { now };
    let room = connections_within(files, each).min(connections_max);
    if room < connections_max {
        log::warn!(
            "the system lets this process open {files} files, so it accepts {room} connections and not \
             {connections_max} ([limits] connections_max); raise the former, for example with `ulimit -n \
             {wanted}`, or lower the latter"
        );
    }
    room
}

/// How many connections this many files are enough for, if each takes `each`. Under a tiny limit they get half.
fn connections_within(files: u64, each: u64) -> usize {
    (files.saturating_sub(OTHER_FILES).max(files / 2) / each) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_and_bounds_the_connections() {
        let before = getrlimit(Resource::Nofile);
        let room = make_room(100_000) as u64;
        let after = getrlimit(Resource::Nofile);
        let wanted = 100_000 * files_per_connection() + OTHER_FILES;
        let reachable = before.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let files = after.current.unwrap_or(u64::MAX);
        assert!(files >= reachable, "{before:?}, then {after:?}");
        assert_eq!(after.maximum, before.maximum);
        assert!(room <= 100_000 && room * files_per_connection() < files, "{room} in {after:?}");
    }

    #[test]
    fn some_files_are_left_for_everything_else() {
        assert_eq!(connections_within(20_000, 1), 19_744);
        assert_eq!(connections_within(20_000, 2), 9_872);
        assert_eq!(connections_within(64, 1), 32);
    }
}
