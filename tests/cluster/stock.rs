//! Unmodified clients of `effect` 4.1 against the binary on PostgreSQL. Where a script asks for a restart, the process
//! is killed, and another node takes its place: nothing is left of the previous one but the database.

use super::cluster;
use crate::js::stock::run;

fn on_postgres(script: &str, flag: Option<&str>) {
    let Some(cluster) = cluster() else { return };
    let storage = format!("[storage]\nkind = \"postgres\"\nurl = \"{}\"\n", cluster.database());
    run(script, flag, &mut |_| storage.clone());
}

#[test]
fn stock_clients_sync_and_go_on_at_another_node() {
    on_postgres("stock_session.mjs", Some("--dev"));
}

#[test]
fn stock_clients_whose_key_is_to_move_lose_nothing_there_either() {
    on_postgres("stock_moves.mjs", None);
}

#[test]
fn stock_clients_get_rid_of_all_that_they_wrote_offline_there_too() {
    on_postgres("stock_bulk.mjs", Some("--dev"));
}

#[test]
fn stock_clients_go_on_in_a_store_that_is_trimmed_there_too() {
    on_postgres("stock_trim.mjs", Some("--dev"));
}

#[test]
fn stock_clients_live_with_an_entry_that_is_put_aside_there_too() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    run("stock_quarantine.mjs", Some("--dev"), &mut |starts| {
        let bytes = if starts == 1 { 300_000 } else { 2_000_000 };
        format!(
            "[storage]\nkind = \"postgres\"\nurl = \"{database}\"\n[limits]\nentry_bytes_max = {bytes}\n"
        )
    });
}

#[test]
fn stock_clients_go_on_in_a_store_of_which_entries_are_erased_there_too() {
    on_postgres("stock_erase.mjs", Some("--dev"));
}
