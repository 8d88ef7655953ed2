//! A server that speaks S3: moto, from `PyPI`, which `.ci/run` installs below `target`.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::http;

pub const BUCKET: &str = "events";
/// Must not appear in any log.
pub const SECRET: &str = "CANARY-of-the-bucket";

/// A running server. Killed when it is dropped.
pub struct S3 {
    child: Child,
    pub address: SocketAddr,
}

/// A port that was free a moment ago.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}

impl S3 {
    /// Starts it with an empty bucket; `None`, with a message, if it is not installed.
    pub async fn start(address: SocketAddr) -> Option<Self> {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/target/s3/bin/moto_server");
        if !Path::new(program).is_file() {
            assert!(std::env::var_os("CI").is_none(), "{program} is missing: run .ci/run");
            eprintln!("skipped: {program} is missing, which .ci/run installs");
            return None;
        }
        let port = address.port().to_string();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self { child: child.expect("it starts"), address };
        let deadline = Instant::now() + Duration::from_secs(120);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let made = http::request(address, &format!("PUT /{BUCKET}"), "", "").await;
        assert!(made.contains("200 "), "{made}");
        Some(server)
    }

    /// The names of all objects, in order.
    pub async fn names(&self) -> Vec<String> {
        let listed = http::get(self.address, &format!("/{BUCKET}?list-type=2")).await;
        let keys = listed.split("<Key>").skip(1);
        keys.map(|key| key.split('<').next().expect("a name").to_owned()).collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes `command` use the server at `address`.
pub fn at(command: &mut Command, address: SocketAddr) {
    command.env("AWS_ENDPOINT_URL", format!("http://{address}"));
    command.env("AWS_ACCESS_KEY_ID", "tester").env("AWS_SECRET_ACCESS_KEY", SECRET);
    command.env("AWS_REGION", "eu-central-1").env_remove("AWS_SHARED_CREDENTIALS_FILE");
}
