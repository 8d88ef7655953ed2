//! What is said about places other than the tables that may have erased content.

use super::super::connect::on_connection;
use super::super::verify::elsewhere;
use super::super::{Failed, PostgresOptions};
use super::*;

/// What the role of a node sees of standbys, one of them without the right to see more than that it is there. Relations of the session
/// come before those of the catalog.
const STANDBYS: &str = "CREATE TEMP VIEW pg_stat_replication AS SELECT * FROM (VALUES \
    ('hidden', NULL::inet, 1, NULL, NULL::pg_lsn), ('behind', NULL, 2, 'streaming', '0/1'), ('new', NULL, 3, 'startup', NULL), \
    ('level', NULL, 4, 'streaming', '0/10')) AS s (application_name, client_addr, pid, state, replay_lsn)";

#[test]
fn a_role_that_cannot_see_how_far_a_standby_is_hears_what_it_lacks() {
    let Some(nodes) = Nodes::start(1) else { return };
    let said = on_connection(&PostgresOptions::new(&*nodes.url), |mut conn, _| async move {
        conn.client.batch_execute(STANDBYS).await.map_err(Failed::from)?;
        elsewhere(&mut conn, "0/10").await
    });
    let said = said.expect("asked").join("\n");
    for name in ["behind", "new"] {
        assert!(said.contains(&format!("standby {name} has not replayed the last era")), "{said}");
    }
    assert!(said.contains("cannot see whether standby hidden has replayed"), "{said}");
    assert!(said.contains("GRANT pg_read_all_stats TO eventlog (or pg_monitor)"), "{said}");
    assert!(!said.contains("level"), "{said}");
}
