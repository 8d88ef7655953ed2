//! What the database has to guarantee, asked on each new connection: after a failover it is a different one.

use super::connect::Conn;
use super::failed::Failed;

/// The oldest version that is accepted.
const VERSION_MIN: i32 = 130_000;

const ASK: &str = "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
    current_setting('transaction_read_only'), current_setting('fsync'), current_setting('full_page_writes'), \
    current_setting('synchronous_commit'), current_setting('server_encoding'), \
    current_setting('synchronous_standby_names')";

/// What a server said about itself.
#[derive(Clone, Debug)]
pub(super) struct Promises {
    version: i32,
    is_standby: bool,
    is_read_only: bool,
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    encoding: String,
    pub(super) standbys: String,
}

impl Promises {
    pub(super) async fn ask(conn: &mut Conn) -> Result<Self, Failed> {
        // Not prepared: it is asked once per connection.
        let rows = conn.client.query(ASK, &[]).await?;
        let row =
            rows.first().ok_or_else(|| Failed::new("the database does not report its settings"))?;
        Ok(Self {
            version: row.try_get(0)?,
            is_standby: row.try_get(1)?,
            is_read_only: row.try_get::<_, &str>(2)? == "on",
            fsync: row.try_get(3)?,
            full_page_writes: row.try_get(4)?,
            synchronous_commit: row.try_get(5)?,
            encoding: row.try_get(6)?,
            standbys: row.try_get(7)?,
        })
    }

    /// Whether commits would be answered before they are durable, unless a session says otherwise.
    pub(super) fn is_lax(&self) -> bool {
        matches!(&*self.synchronous_commit, "off" | "local")
    }

    /// Says in a sentence what is missing.
    pub(super) fn check(&self) -> Result<(), Failed> {
        let missing = if self.version < VERSION_MIN {
            format!(
                "the database is PostgreSQL {}, but 13 is the oldest supported version",
                self.version / 10_000
            )
        } else if self.is_standby {
            "the database is a standby, which takes no writes: name its primary, or all hosts, in the URL".to_owned()
        } else if self.is_read_only {
            "the database takes no writes (transaction_read_only is on, or default_transaction_read_only for this role)".to_owned()
        } else if self.fsync != "on" {
            "the database runs with fsync = off: a power cut would lose what was acknowledged"
                .to_owned()
        } else if self.full_page_writes != "on" {
            "the database runs with full_page_writes = off: a power cut could damage it".to_owned()
        } else if self.encoding != "UTF8" {
            format!("the database is encoded in {}, but UTF8 is required", self.encoding)
        } else {
            return Ok(());
        };
        Err(Failed::before_anything(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Promises {
        let on = || "on".to_owned();
        Promises {
            version: 150_018,
            is_standby: false,
            is_read_only: false,
            fsync: on(),
            full_page_writes: on(),
            synchronous_commit: on(),
            encoding: "UTF8".to_owned(),
            standbys: String::new(),
        }
    }

    #[test]
    fn each_promise_is_needed() {
        assert!(good().check().is_ok());
        let off = || "off".to_owned();
        let wanting = [
            (Promises { version: 120_001, ..good() }, "PostgreSQL 12"),
            (Promises { is_standby: true, ..good() }, "standby"),
            (Promises { is_read_only: true, ..good() }, "read_only"),
            (Promises { fsync: off(), ..good() }, "fsync"),
            (Promises { full_page_writes: off(), ..good() }, "full_page_writes"),
            (Promises { encoding: "SQL_ASCII".to_owned(), ..good() }, "SQL_ASCII"),
        ];
        for (promises, word) in wanting {
            let told = promises.check().expect_err("refused").to_string();
            assert!(told.contains(word), "{told}");
        }
        assert!(Promises { synchronous_commit: off(), ..good() }.is_lax() && !good().is_lax());
    }
}
