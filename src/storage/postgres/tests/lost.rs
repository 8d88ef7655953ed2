//! Databases that have lost what a node has shown.

use super::*;

fn refused(nodes: &Nodes, node: usize) -> u64 {
    let figures = nodes.storages[node].0.figures();
    figures.iter().find(|figure| figure.name == "stores_refused").expect("a figure").value
}

/// What a standby has that was behind.
const LOSE: &str = "DELETE FROM effect_events WHERE sequence > 1; UPDATE effect_events_stores SET next_sequence = 2";

#[test]
fn a_store_that_has_lost_entries_is_refused_though_nobody_writes_and_whatever_others_write() {
    let Some(nodes) = Nodes::start(2) else { return };
    let log = nodes.log(0, "s");
    append(&*log, &ids(3), 10);
    nodes.sql(LOSE);
    until("it is found", || refused(&nodes, 0) == 1);
    // A node that has shown nothing of it goes on.
    append(&*nodes.log(1, "s"), &ids(4), 10);
    assert_eq!(nodes.log(1, "s").head(), at(5));
    let told = |error: String| {
        let lost = "its head is 1, and this node has shown entries up to 3";
        assert!(error.contains(lost) && error.contains("heal --database URL"), "{error}");
    };
    told(wait(log.catch_up(at(3))).expect_err("it would show others").to_string());
    told(log.read(at(2), 1 << 20).expect_err("others are in their places").to_string());
    told(try_append(&*log, 4, &ids(1)).expect_err("clients would miss it").to_string());
    told(wait(log.lock(at(3), ids(1))).map(drop).expect_err("refused").to_string());
    told(nodes.storages[0].0.open(&store("s")).map(drop).expect_err("refused").to_string());
    assert_eq!((refused(&nodes, 0), refused(&nodes, 1)), (1, 0));
}

#[test]
fn appends_while_the_database_is_asked_are_not_taken_for_lost() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = nodes.log(0, "s");
    for _ in 0..300 {
        nodes.storages[0].1.bus().ask_soon();
        append(&*log, &ids(1), 10);
    }
    assert_eq!((refused(&nodes, 0), log.head()), (0, at(300)));
}
