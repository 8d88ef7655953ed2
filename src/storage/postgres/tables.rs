//! The names of the tables, and the statements for entries that use them.
//!
//! Keeps: each statement is written once. Those of the services are in the services.

use crate::model::RemoteId;

/// Names and statements.
pub(crate) struct Tables {
    pub(crate) entries: String,
    pub(crate) stores: String,
    pub(crate) bindings: String,
    pub(crate) remote_id: String,
    pub(crate) meta: String,
    pub(crate) appends: String,
    pub(crate) trims: String,
    pub(crate) erased: String,
    pub(crate) hashes: String,
    pub(crate) keys: String,
    pub(crate) used_keys: String,
    pub(crate) changed_keys: String,
    pub(crate) nodes: String,
    /// The name of this node: letters and digits.
    pub(super) node: String,
    pub(crate) records: String,
    pub(crate) journal: String,
    pub(crate) quarantine: String,
    pub(crate) quarantine_parts: String,
    pub(crate) quarantine_last: String,
    pub(crate) claims: String,
    pub(crate) handlers: String,
    /// The channel of NOTIFY.
    pub(super) channel: String,
    pub(super) sql: Statements,
}

/// The statements for entries.
pub(super) struct Statements {
    /// Adds rows for stores that have none. `$1` is their names.
    pub(super) ensure_stores: String,
    /// See [`append`].
    pub(super) append: String,
    /// The next sequence of the store `$1`.
    pub(super) next: String,
    /// The same, but nobody else can change it before the transaction ends.
    pub(super) next_for_update: String,
    /// Gaps and bytes of the store `$1`, and the last sequence for which they are known.
    pub(super) totals: String,
    /// Records entries of another server: store `$1`, first `$2`, last `$3`, gaps `$4`, bytes `$5` before them.
    pub(super) note_foreign: String,
    /// Bytes of the entries from `$2` to `$3` of the store `$1`, and how many there are.
    pub(super) bytes_between: String,
    /// The statements for [`trim`](super::trim).
    pub(super) trim: TrimStatements,
    /// The statements for [`erase`](super::erase).
    pub(super) erase: EraseStatements,
    /// The greatest id of the store `$1` that is not above `$2`.
    pub(super) newest_id: String,
    /// Which of the ids `$2` the store `$1` has, and their sequences.
    pub(super) known: String,
    /// The sequences of ids above `$2` before `$3` in the store `$1`, at most `$4` of them.
    pub(super) above: String,
    /// See [`read`].
    pub(super) read: String,
    /// The facts of the appends of the store `$1` that overlap `$2` to `$3`, at most `$4` of them.
    pub(super) facts: String,
    /// At most `$2` stores behind the name `$1`, with their sizes.
    pub(super) stores: String,
    /// The size of the store `$1`.
    pub(super) size: String,
    /// The last sequence of the store `$1` and the hash up to there, if `verify` has noted it.
    pub(super) hash: String,
    /// The next sequences of the stores `$1`, how far they are trimmed, and the numbers of their last erasures.
    pub(super) heads: String,
}

/// The statements for trimming. `$1` is the store.
pub(super) struct TrimStatements {
    /// How far the store is trimmed, the gaps and bytes up to there, how far rows are emptied, and the number of the last
    /// erasure.
    pub(super) trimmed: String,
    /// Adds the store's row if it has none.
    pub(super) ensure: String,
    /// Like `trimmed`, but nobody else can trim before the transaction ends.
    pub(super) for_update: String,
    /// The last append that ends up to `$2`: its end, and the bytes of the store up to there, erased ones included.
    pub(super) counted: String,
    /// Records that the store is trimmed up to `$2`, with the gaps `$3` and the bytes `$4` up to there.
    pub(super) set: String,
    /// Forgets what `verify` has noted about the entries up to `$2`, except the hash.
    pub(super) unsalt: String,
    /// Empties the rows from `$2` to `$3`.
    pub(super) empty: String,
    /// Records that rows up to `$2` are emptied, and deletes who wrote them.
    pub(super) emptied: String,
    /// The first sequence behind the entries that were committed before `$2`, in milliseconds since 1970. NULL if all
    /// were.
    pub(super) young: String,
    /// The last append up to which the store had at most `$2` bytes since its beginning: its end and these bytes, and
    /// the end of the next append.
    pub(super) bytes_at: String,
    /// The first sequence from `$2` to `$3` with which `$4` bytes and those before it come to `$5`.
    pub(super) bytes_within: String,
    /// The `$3`th entry behind `$2`, counted from 0.
    pub(super) nth: String,
}

/// The statements for erasing. `$1` is the store.
pub(super) struct EraseStatements {
    /// The facts of the appends that contain the sequences `$2`. Nobody else can change them before the transaction ends.
    pub(super) appends: String,
    /// Replaces the facts of the appends that begin with `$2` by `$3`.
    pub(super) note: String,
    /// Empties the rows `$2`.
    pub(super) empty: String,
    /// Forgets what `verify` has noted about the entries `$2`, except the hash.
    pub(super) unsalt: String,
    /// The time in milliseconds since 1970, by the database's clock.
    pub(super) now: String,
    /// Counts an erasure, and adds it to the ledger: its record without number and time `$2`, how it is recognized `$3`, and
    /// whether others were told of it `$4`. Returns its number.
    pub(super) add: String,
}

/// The number of changes of keys that are kept apart. A node that was away for longer assumes that all keys have changed.
pub(super) const CHANGED_KEYS_MAX: i64 = 10_000;

impl Tables {
    /// Parts of a statement that counts a change, if `happened` has a row. They make sure that no node appends anything that it has
    /// allowed before it applied the change. Appends in progress end first.
    pub(crate) fn count_change(&self, happened: &str) -> String {
        let (counted, nodes) = (self.counted(happened), &self.nodes);
        format!(
            "{counted}, fenced AS (UPDATE {nodes} AS n SET changes = c.changes FROM counted AS c)"
        )
    }

    /// The same, for a change of the key `$1`.
    pub(crate) fn count_change_of_key(&self, happened: &str) -> String {
        let counted = self.count_change(happened);
        format!("{counted}, {}", self.noted())
    }

    /// The same, for a change of the key `$1` that other nodes hear of a moment later, and that refuses none of their appends.
    pub(crate) fn tell_change_of_key(&self, happened: &str) -> String {
        let counted = self.counted(happened);
        format!("{counted}, {}", self.noted())
    }

    fn counted(&self, happened: &str) -> String {
        let meta = &self.meta;
        format!(
            "counted AS (UPDATE {meta} SET changes = changes + 1 WHERE EXISTS (SELECT FROM {happened}) RETURNING changes)"
        )
    }

    fn noted(&self) -> String {
        let table = &self.changed_keys;
        format!(
            "noted AS (INSERT INTO {table} SELECT changes, $1 FROM counted), \
             forgotten AS (DELETE FROM {table} WHERE change < (SELECT changes - {CHANGED_KEYS_MAX} FROM counted))"
        )
    }

    pub(super) fn new(prefix: &str, remote_id_table: &str) -> Self {
        let named = |ending: &str| format!("{prefix}_{ending}");
        let (entries, stores, appends) = (prefix.to_owned(), named("stores"), named("appends"));
        let (nodes, trims, meta) = (named("nodes"), named("trims"), named("meta"));
        let (erased, hashes) = (named("erased"), named("hashes"));
        let own = Own {
            appends: &appends,
            nodes: &nodes,
            trims: &trims,
            meta: &meta,
            erased: &erased,
            hashes: &hashes,
        };
        let sql = Statements::new(&entries, &stores, &own);
        Self {
            entries,
            stores,
            bindings: named("session_auth_bindings"),
            remote_id: remote_id_table.to_owned(),
            meta,
            appends,
            trims,
            erased,
            hashes,
            keys: named("keys"),
            used_keys: named("used_keys"),
            changed_keys: named("changed_keys"),
            nodes,
            node: RemoteId::random().to_string(),
            records: named("records"),
            journal: named("journal"),
            quarantine: named("quarantine"),
            quarantine_parts: named("quarantine_parts"),
            quarantine_last: named("quarantine_last"),
            claims: named("claims"),
            handlers: named("handlers"),
            channel: named("heads"),
            sql,
        }
    }
}

/// Those of our own tables that statements for entries use.
struct Own<'a> {
    appends: &'a str,
    nodes: &'a str,
    trims: &'a str,
    meta: &'a str,
    erased: &'a str,
    hashes: &'a str,
}

impl Statements {
    fn new(entries: &str, stores: &str, own: &Own<'_>) -> Self {
        let Own { appends, nodes, trims, hashes, .. } = *own;
        let sizes = format!(
            "SELECT s.store_id, s.next_sequence, coalesce(a.gaps, 0) - coalesce(t.gaps, 0), \
             coalesce(a.bytes, 0) - coalesce(t.bytes, 0), coalesce(t.last, 0) FROM {stores} s \
             LEFT JOIN LATERAL (SELECT gaps, bytes FROM {appends} WHERE store_id = s.store_id ORDER BY first DESC LIMIT 1) a ON true \
             LEFT JOIN {trims} t ON t.store_id = s.store_id"
        );
        Self {
            ensure_stores: format!(
                "INSERT INTO {stores} (store_id, next_sequence) SELECT store_id, 1 FROM unnest($1::text[]) AS n (store_id) \
                 ORDER BY store_id ON CONFLICT DO NOTHING"
            ),
            append: append(entries, stores, appends, nodes),
            next: format!("SELECT next_sequence FROM {stores} WHERE store_id = $1"),
            next_for_update: format!(
                "SELECT next_sequence FROM {stores} WHERE store_id = $1 FOR UPDATE"
            ),
            totals: format!(
                "SELECT gaps, bytes, last FROM {appends} WHERE store_id = $1 ORDER BY first DESC LIMIT 1"
            ),
            note_foreign: format!(
                "INSERT INTO {appends} (store_id, first, last, gaps, bytes) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
            ),
            bytes_between: format!(
                "SELECT coalesce(sum({RECORD_BYTES}), 0)::bigint, count(*) FROM {entries} WHERE store_id = $1 AND sequence BETWEEN $2 AND $3"
            ),
            trim: TrimStatements::new(entries, appends, trims, hashes),
            erase: EraseStatements::new(entries, own),
            newest_id: format!(
                "SELECT entry_id FROM {entries} WHERE store_id = $1 AND entry_id <= $2 ORDER BY entry_id DESC LIMIT 1"
            ),
            known: format!(
                "SELECT entry_id, sequence FROM {entries} WHERE store_id = $1 AND entry_id = ANY($2::bytea[])"
            ),
            above: format!(
                "SELECT sequence FROM {entries} WHERE store_id = $1 AND entry_id > $2 AND sequence < $3 \
                 AND event <> '' AND sequence > coalesce((SELECT last FROM {trims} WHERE store_id = $1), 0) LIMIT $4"
            ),
            read: read(entries),
            facts: format!(
                "SELECT first, last, facts FROM {appends} WHERE store_id = $1 AND first <= $3 AND first >= \
                 coalesce((SELECT max(first) FROM {appends} WHERE store_id = $1 AND first <= $2), 0) ORDER BY first LIMIT $4"
            ),
            stores: format!(
                "{sizes} WHERE s.store_id COLLATE \"C\" > $1 AND s.next_sequence > 1 ORDER BY s.store_id COLLATE \"C\" LIMIT $2"
            ),
            size: format!("{sizes} WHERE s.store_id = $1"),
            hash: format!(
                "SELECT h.last, h.hash FROM {stores} s JOIN {hashes} h ON h.store_id = s.store_id \
                 AND h.first = (SELECT max(first) FROM {hashes} WHERE store_id = $1) \
                 WHERE s.store_id = $1 AND h.last = s.next_sequence - 1 AND h.hash IS NOT NULL"
            ),
            heads: format!(
                "SELECT s.store_id, s.next_sequence, coalesce(t.last, 0), coalesce(t.erasures, 0) FROM {stores} s \
                 LEFT JOIN {trims} t ON t.store_id = s.store_id WHERE s.store_id = ANY($1::text[])"
            ),
        }
    }
}

/// The bytes of an entry's record: see `docs/FORMAT.md`.
pub(super) const RECORD_BYTES: &str = "16 + octet_length(event) + octet_length(primary_key) + octet_length(payload) \
    + CASE WHEN octet_length(event) < 128 THEN 1 ELSE 2 END + CASE WHEN octet_length(primary_key) < 128 THEN 1 ELSE 2 END \
    + CASE WHEN octet_length(payload) < 128 THEN 1 WHEN octet_length(payload) < 16384 THEN 2 \
           WHEN octet_length(payload) < 2097152 THEN 3 ELSE 4 END";

impl TrimStatements {
    fn new(entries: &str, appends: &str, trims: &str, hashes: &str) -> Self {
        let trimmed =
            format!("SELECT last, gaps, bytes, emptied, erasures FROM {trims} WHERE store_id = $1");
        Self {
            ensure: format!(
                "INSERT INTO {trims} (store_id, last, gaps, bytes, emptied) VALUES ($1, 0, 0, 0, 0) ON CONFLICT DO NOTHING"
            ),
            for_update: format!("{trimmed} FOR UPDATE"),
            trimmed,
            counted: format!(
                "SELECT last, bytes FROM {appends} WHERE store_id = $1 AND first <= $2 AND last <= $2 ORDER BY first DESC LIMIT 1"
            ),
            set: format!("UPDATE {trims} SET last = $2, gaps = $3, bytes = $4 WHERE store_id = $1"),
            unsalt: format!(
                "UPDATE {hashes} SET salt = NULL, checked = NULL WHERE store_id = $1 AND first <= $2 AND salt IS NOT NULL"
            ),
            empty: format!(
                "UPDATE {entries} SET event = '', primary_key = '', payload = '' WHERE store_id = $1 AND sequence BETWEEN $2 AND $3"
            ),
            // The last append states how much the store holds, so it stays.
            emptied: format!(
                "WITH t AS (UPDATE {trims} SET emptied = greatest(emptied, $2) WHERE store_id = $1) DELETE FROM {appends} \
                 WHERE store_id = $1 AND last <= $2 AND first < (SELECT max(first) FROM {appends} WHERE store_id = $1)"
            ),
            young: format!(
                "SELECT min(first) FROM {appends} WHERE store_id = $1 AND committed_at >= to_timestamp($2::float8 / 1000)"
            ),
            bytes_at: format!(
                "SELECT (SELECT max(last) FROM {appends} WHERE store_id = $1 AND bytes <= $2), \
                 (SELECT max(bytes) FROM {appends} WHERE store_id = $1 AND bytes <= $2), \
                 (SELECT min(last) FROM {appends} WHERE store_id = $1 AND bytes > $2)"
            ),
            bytes_within: format!(
                "SELECT min(sequence) FROM (SELECT sequence, $4::bigint + (sum({RECORD_BYTES}) OVER (ORDER BY sequence))::bigint AS total \
                 FROM {entries} WHERE store_id = $1 AND sequence BETWEEN $2 AND $3) AS counted WHERE total >= $5::bigint"
            ),
            nth: format!(
                "SELECT sequence FROM {entries} WHERE store_id = $1 AND sequence > $2 ORDER BY sequence OFFSET $3 LIMIT 1"
            ),
        }
    }
}

impl EraseStatements {
    fn new(entries: &str, own: &Own<'_>) -> Self {
        let Own { appends, trims, meta, erased, hashes, .. } = *own;
        Self {
            appends: format!(
                "SELECT first, last, facts FROM {appends} WHERE store_id = $1 AND first IN (\
                 SELECT (SELECT max(first) FROM {appends} WHERE store_id = $1 AND first <= s.at) FROM unnest($2::bigint[]) AS s (at)) \
                 ORDER BY first FOR UPDATE"
            ),
            note: format!(
                "UPDATE {appends} AS a SET facts = n.facts FROM unnest($2::bigint[], $3::bytea[]) AS n (first, facts) \
                 WHERE a.store_id = $1 AND a.first = n.first"
            ),
            empty: format!(
                "UPDATE {entries} SET event = '', primary_key = '', payload = '' WHERE store_id = $1 AND sequence = ANY($2::bigint[])"
            ),
            unsalt: format!(
                "UPDATE {hashes} AS h SET salt = NULL, checked = NULL WHERE store_id = $1 AND salt IS NOT NULL \
                 AND EXISTS (SELECT FROM unnest($2::bigint[]) AS s (at) WHERE s.at BETWEEN h.first AND h.last)"
            ),
            now: "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint".to_owned(),
            add: format!(
                "WITH m AS (UPDATE {meta} SET erasures = erasures + 1 RETURNING erasures AS number), \
                 t AS (UPDATE {trims} SET erasures = m.number FROM m WHERE store_id = $1::text) \
                 INSERT INTO {erased} (number, store_id, record, identity, told) SELECT number, $1::text, $2::bytea, $3::bytea, $4::boolean FROM m RETURNING number"
            ),
        }
    }
}

/// The appends of many stores. Each happens whole or not at all. Returns the numbers of those that happened, and 0 unless keys or records
/// have changed since the last change (`$16`) that this node (`$15`) had heard of when they were allowed. If they have, nothing
/// happens.
///
/// It waits for no store: a row that somebody else has locked is left out, and so is one whose head is not the expected one once it is
/// locked. A change waits for the lock of this node's row, and for nothing that waits for a store. An existing id fails the whole statement: a subquery could
/// not see what was committed since the statement began.
///
/// ```text
/// $1  store      $4  first    of each store        $9   number of the store    of each entry
/// $2  expected   $5  last                          $10  sequence
/// $3  next       $6  gaps                          $11  id
///                $7  bytes                         $12  event   $13  key   $14  payload
///                $8  facts
/// ```
fn append(entries: &str, stores: &str, appends: &str, nodes: &str) -> String {
    format!(
        "WITH g AS (
    SELECT FROM {nodes} WHERE node = $15 AND changes = $16 FOR SHARE
), w AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[])
    WITH ORDINALITY AS w (store_id, expected, next, first, last, gaps, bytes, facts, n)
), l AS (
    SELECT s.store_id, w.n, w.next FROM {stores} s JOIN w ON s.store_id = w.store_id
    WHERE s.next_sequence = w.expected AND EXISTS (SELECT FROM g) ORDER BY s.store_id FOR UPDATE OF s SKIP LOCKED
), h AS (
    UPDATE {stores} s SET next_sequence = l.next FROM l WHERE s.store_id = l.store_id RETURNING l.n
), e AS (
    INSERT INTO {entries} (store_id, sequence, entry_id, event, primary_key, payload)
    SELECT w.store_id, x.sequence, x.entry_id, x.event, x.primary_key, x.payload
    FROM unnest($9::bigint[], $10::bigint[], $11::bytea[], $12::text[], $13::text[], $14::bytea[])
        AS x (n, sequence, entry_id, event, primary_key, payload)
    JOIN h ON h.n = x.n JOIN w ON w.n = x.n
), a AS (
    INSERT INTO {appends} (store_id, first, last, gaps, bytes, facts)
    SELECT w.store_id, w.first, w.last, w.gaps, w.bytes, w.facts FROM w JOIN h ON h.n = w.n
)
SELECT n FROM h UNION ALL SELECT 0 FROM g"
    )
}

/// Entries of the store `$1` from `$2` to `$3`, at most `$5` of them, and no more once the previous ones have `$4`
/// bytes.
///
/// The sizes alone are added up first. Only where there are too many bytes, a second pass finds where they become too many:
/// it takes three times as long.
fn read(entries: &str) -> String {
    let sizes = format!(
        "SELECT sequence, octet_length(event) + octet_length(primary_key) + octet_length(payload) + 19 AS bytes FROM {entries} \
         WHERE store_id = $1 AND sequence BETWEEN $2 AND $3 ORDER BY sequence LIMIT $5"
    );
    format!(
        "SELECT sequence, entry_id, event, primary_key, payload FROM {entries}
WHERE store_id = $1 AND sequence BETWEEN $2 AND (
    SELECT CASE WHEN sum(bytes) < $4 THEN max(sequence) ELSE (
        SELECT max(sequence) FROM (
            SELECT sequence, sum(bytes) OVER (ORDER BY sequence ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
            FROM ({sizes}) AS page
        ) AS counted WHERE before IS NULL OR before < $4
    ) END FROM ({sizes}) AS page
) ORDER BY sequence"
    )
}
