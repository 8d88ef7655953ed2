//! How many files, and so connections, the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The database, logs, listeners and threads need some besides the connections.
const OTHER_FILES: u64 = 256;

/// Raises the limit of this process as far as it may, and says so if that is too low for so many connections: systems give
/// a process 1,024 by default, whatever they could.
pub(super) fn raise_limit(connections_max: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = connections_max as u64 + OTHER_FILES;
    let Some(now) = current.filter(|now| *now < wanted) else { return };
    let reachable = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum });
    let files = if raised.is_ok() { reachable } else { now };
    if files < wanted {
        log::info!(
            "the system lets this process have {files} files open, too few for {connections_max} connections \
             ([limits] connections_max); raise it, for example with `ulimit -n {wanted}`, or lower the limit"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may() {
        let before = getrlimit(Resource::Nofile);
        raise_limit(100_000);
        let after = getrlimit(Resource::Nofile);
        let reachable = before.maximum.map_or(100_256, |maximum| maximum.min(100_256));
        assert!(after.current.is_none_or(|files| files >= reachable), "{before:?}, then {after:?}");
        assert_eq!(after.maximum, before.maximum);
    }
}
