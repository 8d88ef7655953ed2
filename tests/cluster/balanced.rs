//! Three nodes behind `HAProxy`, which moves stock clients around as nodes are killed one after another.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Node, cluster};
use crate::js::node;
use crate::js::stock::follow;
use crate::support::http::get;

/// Killed when it is dropped.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `HAProxy` in front of these nodes, and its port; `None` if there is none.
fn balancer(nodes: &[Node], directory: &std::path::Path) -> Option<(Balancer, u16)> {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let mut config = format!(
        "defaults\n  mode http\n  option forwardfor\n  option redispatch\n  timeout connect 2s\n  timeout client 60s\n  \
         timeout server 60s\n  timeout tunnel 60s\nfrontend sync\n  bind 127.0.0.1:{port}\n  default_backend eventlog\n\
         backend eventlog\n  balance roundrobin\n  option httpchk GET /readyz\n"
    );
    for (n, node) in nodes.iter().enumerate() {
        let line =
            format!("  server n{n} 127.0.0.1:{} check inter 200ms fall 1 rise 1\n", node.port);
        config.push_str(&line);
    }
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, config).expect("written");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have haproxy");
        // The test's own output is hidden when it passes.
        let _ = writeln!(std::io::stderr(), "not run: there is no haproxy");
        return None;
    };
    Some((Balancer(child), port))
}

/// Waits until this node accepts clients again, and the balancer has noticed.
fn is_back(node: &Node) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = format!("127.0.0.1:{}", node.port).parse().expect("an address");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !runtime.block_on(get(address, "/readyz")).starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "it is not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
}

#[test]
fn stock_clients_are_moved_around_between_three_nodes_and_lose_nothing() {
    let Some(cluster) = cluster() else { return };
    let Some(mut command) = node::script("stock_balanced.mjs") else { return };
    let url = cluster.database();
    let mut nodes = [Node::dev(&url), Node::dev(&url), Node::dev(&url)];
    let directory = tempfile::tempdir().expect("a directory");
    let Some((_balancer, port)) = balancer(&nodes, directory.path()) else { return };
    command.arg(format!("127.0.0.1:{port}"));
    follow(command, || {
        for node in &mut nodes {
            node.kill();
            is_back(node);
        }
    });
    let sql = "SELECT count(*), min(sequence), max(sequence), count(DISTINCT entry_id) FROM effect_events";
    assert_eq!(cluster.sql(&url, sql), "78|1|78|78");
}
