//! Effect's own server and ours on one database, in turn and at the same time, with unmodified clients.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::{ADMIN, cluster};
use crate::js::node;
use crate::js::stock::answer_with;
use crate::support::process::{Process, binary};

/// Effect's server, which ends when this is dropped.
struct Theirs {
    child: Child,
    port: u16,
    _alive: ChildStdin,
}

impl Theirs {
    fn start(port: u16, database: &str) -> Self {
        let mut command = node::sql_script("server.mjs").expect("it was there before");
        command.args([&port.to_string(), database, "default"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node starts");
        let output = child.stdout.take().expect("its output");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let port =
            line.trim().strip_prefix("listening ").expect("that line").parse().expect("a port");
        let alive = child.stdin.take().expect("its input");
        Self { child, port, _alive: alive }
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum Serving {
    Theirs { _server: Theirs },
    Ours { _server: Process },
}

fn on(mut command: Command, database: &str) -> Command {
    command.env("EVENTLOG_STORAGE_KIND", "postgres").env("EVENTLOG_STORAGE_URL", database);
    command.env("EVENTLOG_AUTH_MODE", "allow-all").env("EVENTLOG_ADMIN_TOKEN", ADMIN);
    command
}

#[test]
fn effects_own_server_and_ours_take_turns_on_one_database_and_run_side_by_side() {
    let Some(cluster) = cluster() else { return };
    let Some(mut clients) = node::script("stock_takeover.mjs") else { return };
    let database = cluster.database();
    let directory = tempfile::tempdir().expect("a directory");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
    clients.arg(format!("127.0.0.1:{port}"));
    let theirs = |port| Serving::Theirs { _server: Theirs::start(port, &database) };
    let mut serving = Some(theirs(port));
    let mut beside = None;
    answer_with(clients, |asked| {
        if asked == "beside" {
            let server = Theirs::start(0, &database);
            return beside.insert(server).port.to_string();
        }
        if let Some(id) = asked.strip_prefix("erase ") {
            let mut erase = binary();
            erase.args(["erase", "--url", &format!("http://127.0.0.1:{port}"), "--token", ADMIN]);
            let done = erase.args(["--store", "default", "--id", id, "--yes"]).output();
            let done = done.expect("it runs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            return String::new();
        }
        assert_eq!(asked, "restart");
        let was_theirs = matches!(serving.take(), Some(Serving::Theirs { .. }));
        serving = Some(if was_theirs {
            let mut command = on(binary(), &database);
            command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"]);
            command.arg(directory.path());
            let server = Process::start(command);
            // Its clients are refused until then, and come back.
            let mut import = on(binary(), &database);
            import.args(["keys", "import", "--from-effect", "--store", "default"]);
            let done = import.output().expect("it runs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Serving::Ours { _server: server }
        } else {
            theirs(port)
        });
        String::new()
    });
    drop((serving, beside));
    let whole = "SELECT count(*) = max(sequence) AND count(DISTINCT entry_id) = count(*) \
        AND max(sequence) + 1 = (SELECT next_sequence FROM effect_events_stores) FROM effect_events WHERE store_id = 'default'";
    assert_eq!(cluster.sql(&database, whole), "t");
    assert_eq!(cluster.sql(&database, "SELECT count(*) FROM effect_remote_id"), "1");
    // What is there now moves to a data directory with the command of the help.
    let help = binary().args(["import", "--help"]).output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let query = help.split("psql -qAt -c \"").nth(1).and_then(|rest| rest.split('"').next());
    let query = query.expect("the command").replace("'team'", "'default'");
    let lines = directory.path().join("lines");
    std::fs::write(&lines, cluster.sql(&database, &query)).expect("written");
    let data = directory.path().join("sled");
    let mut empty = Process::serve_dev(&data);
    empty.signal("TERM");
    empty.wait();
    let mut import = binary();
    import.args(["import", "--store", "default", "--data-dir"]).arg(data).arg(lines);
    let done = import.output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let content = "SELECT count(*) FROM effect_events WHERE event <> ''";
    let count = cluster.sql(&database, content);
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        format!("default  {count} entries: {count} new, 0 were there already\n")
    );
}
