//! How many entries a second PostgreSQL takes by the bare statement of an append, without this server: one that moves the heads
//! of stores and inserts their entries, see `docs/CLUSTER.md`.
//!
//! `cargo bench --bench postgres -- URL [--seconds N] [--only write|stores]`. It makes tables whose names begin with `bare_`
//! in that database. Prints a line for each load:
//!
//! * `write`: one connection, one store, 64 entries a statement: as many as are in flight.
//! * `stores`: 1,000 stores in turn, one entry each, 256 stores a statement, two connections.
//!
//! Each with the two indexes that an append needs, and with the third one that Effect's tables have. `bench/postgres/run.mjs
//! bare` runs it beside a load generator.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]
#![allow(clippy::expect_used, reason = "a benchmark may end where it cannot go on")]

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

const PAYLOAD_BYTES: usize = 100;

const TABLES: &str = "
DROP TABLE IF EXISTS bare_heads, bare_entries;
CREATE TABLE bare_heads (store_id TEXT PRIMARY KEY, next_sequence BIGINT NOT NULL);
CREATE TABLE bare_entries (store_id TEXT NOT NULL, sequence BIGINT NOT NULL, entry_id BYTEA NOT NULL, event TEXT NOT NULL,
    primary_key TEXT NOT NULL, payload BYTEA NOT NULL, PRIMARY KEY (store_id, sequence), UNIQUE (store_id, entry_id));
INSERT INTO bare_heads SELECT 'store-' || n, 1 FROM generate_series(0, 999) AS n;
VACUUM ANALYZE bare_heads;";

const THIRD_INDEX: &str = "CREATE INDEX ON bare_entries
    (store_id, hashtextextended(event, 0), hashtextextended(primary_key, 0), entry_id)";

/// Moves the heads of the stores `$1` from `$2` by `$3`, and inserts the entries `$4` to `$9`; `$4` is the number of an
/// entry's store.
const APPEND: &str = "
WITH w AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS w (store_id, expected, count, n)
), l AS (
    SELECT s.store_id, w.n, w.expected + w.count AS next FROM bare_heads s JOIN w ON s.store_id = w.store_id
    WHERE s.next_sequence = w.expected ORDER BY s.store_id FOR UPDATE OF s
), h AS (
    UPDATE bare_heads s SET next_sequence = l.next FROM l WHERE s.store_id = l.store_id RETURNING s.store_id, l.n
), e AS (
    INSERT INTO bare_entries (store_id, sequence, entry_id, event, primary_key, payload)
    SELECT h.store_id, x.sequence, x.id, x.event, x.key, x.payload
    FROM unnest($4::bigint[], $5::bigint[], $6::bytea[], $7::text[], $8::text[], $9::bytea[]) AS x (n, sequence, id, event, key, payload)
    JOIN h ON h.n = x.n
)
SELECT n FROM h";

/// What one connection appends.
#[derive(Clone, Copy)]
struct Load {
    /// The stores of this connection.
    first: usize,
    stores: usize,
    stores_each: usize,
    entries_each: usize,
    time: Duration,
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(async move { connection.await.ok() });
    client
}

/// Appends one statement after the other. Returns how many entries were committed, and how long statements took.
async fn append(client: Client, load: Load) -> (u64, Vec<Duration>) {
    let statement = client.prepare(APPEND).await.expect("the statement");
    let mut next = vec![1_i64; load.stores];
    let (mut at, mut done, mut took) = (0, 0, Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < load.time {
        let stores: Vec<usize> = (0..load.stores_each).map(|n| (at + n) % load.stores).collect();
        at += load.stores_each;
        let names: Vec<_> = stores.iter().map(|n| format!("store-{}", load.first + n)).collect();
        let expected: Vec<_> = stores.iter().map(|n| next[*n]).collect();
        let counts = vec![load.entries_each as i64; stores.len()];
        let each = 0..load.entries_each as i64;
        let numbers: Vec<i64> =
            (1..=stores.len() as i64).flat_map(|n| each.clone().map(move |_| n)).collect();
        let sequences: Vec<i64> =
            expected.iter().flat_map(|first| each.clone().map(move |n| first + n)).collect();
        let ids: Vec<_> = numbers.iter().map(|_| *uuid::Uuid::now_v7().as_bytes()).collect();
        let ids: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
        let events = vec!["BenchmarkDone"; numbers.len()];
        let keys: Vec<_> = sequences.iter().map(|n| format!("key-{n:06}")).collect();
        let payloads = vec![[7_u8; PAYLOAD_BYTES]; numbers.len()];
        let payloads: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
        let sent = Instant::now();
        let rows = client
            .query(
                &statement,
                &[
                    &names, &expected, &counts, &numbers, &sequences, &ids, &events, &keys,
                    &payloads,
                ],
            )
            .await
            .expect("an append");
        took.push(sent.elapsed());
        assert_eq!(rows.len(), stores.len(), "nobody else moves these heads");
        done += numbers.len() as u64;
        stores.into_iter().for_each(|n| next[n] += load.entries_each as i64);
    }
    (done, took)
}

async fn measure(url: &str, name: &str, loads: &[Load]) {
    let begun = Instant::now();
    let mut running = Vec::new();
    for load in loads {
        running.push(tokio::spawn(append(connect(url).await, *load)));
    }
    let (mut done, mut took) = (0, Vec::new());
    for one in running {
        let (count, times) = one.await.expect("no panic");
        done += count;
        took.extend(times);
    }
    took.sort_unstable();
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    println!("{name}: {rate:.0} entries/s, a statement takes p50 {:?}", took[took.len() / 2]);
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let Some(url) = args.first() else {
        println!("usage: cargo bench --bench postgres -- URL [--seconds N] [--only write|stores]");
        return;
    };
    let of = |flag: &str| args.windows(2).find(|pair| pair[0] == flag).map(|pair| &*pair[1]);
    let seconds = of("--seconds").map_or(3, |seconds| seconds.parse().expect("a number"));
    let (only, time) = (of("--only"), Duration::from_secs(seconds));
    let one = Load { first: 0, stores: 1, stores_each: 1, entries_each: 64, time };
    let many = |first| Load { first, stores: 500, stores_each: 256, entries_each: 1, time };
    let set_up = connect(url).await;
    for (layout, index) in [("two indexes", ""), ("three indexes", THIRD_INDEX)] {
        for (load, loads) in [("write", vec![one]), ("stores", vec![many(0), many(500)])] {
            if only.is_some_and(|only| only != load) {
                continue;
            }
            for statement in TABLES.split(';').chain([index]).filter(|it| !it.trim().is_empty()) {
                set_up.batch_execute(statement).await.expect("tables");
            }
            measure(url, &format!("{load}, {layout}"), &loads).await;
        }
    }
}
