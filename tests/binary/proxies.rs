//! The proxies of `docs/PROXIES.md`, configured as the page says, between clients and the binary.
//!
//! If a program is not installed, its test says so and passes; with `CI=true` in the environment it fails.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::tempdir;

use super::jwt::Jwt;
use super::process::{Serve, command, data, logged};
use crate::support::http::get_with;
use crate::support::jwt::SECRET;
use crate::support::server::comes_to;
use crate::support::socket::Socket;

/// What the page shows in this language, with these texts replaced, each of which has to be there.
fn shown(language: &str, changes: &[(&str, &str)]) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROXIES.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let block =
        page.split(&format!("```{language}\n")).nth(1).and_then(|rest| rest.split("```").next());
    changes.iter().fold(block.expect("a block").to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        text.replace(from, to)
    })
}

/// Where a program is: on the path, or where administrators' programs are.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let found = places.map(|place| Path::new(place).join(name)).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have {name}");
        // The test's own output is hidden when it passes.
        let _ = writeln!(std::io::stderr(), "not run: there is no {name}");
    }
    found
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A proxy in front of a server. Ended when it is dropped.
struct Proxy {
    child: Child,
    address: String,
}

impl Proxy {
    /// Waits until it passes requests on.
    async fn start(mut command: Command, port: u16) -> Self {
        let child = command.stdout(Stdio::null()).spawn().expect("it starts");
        let proxy = Self { child, address: format!("127.0.0.1:{port}") };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let connected = tokio::net::TcpStream::connect(&proxy.address).await.is_ok();
            if connected && get_with(&proxy.address, "/healthz", HOST).await.ends_with("ok\n") {
                return proxy;
            }
            assert!(tokio::time::Instant::now() < deadline, "it passes nothing on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const HOST: &str = "host: sync.example\r\n";
const PAGE: (&str, &str) = ("origin", "http://sync.example");

/// A server that pings often, with proxies of this machine trusted or not.
fn serve(directory: &Path, log: &Path, trusted: &str) -> Serve {
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(directory)]).env("EVENTLOG_AUTH_MODE", "allow-all");
    serve.env("EVENTLOG_ADMIN_TOKEN", "secret").env("EVENTLOG_TRUSTED_PROXIES", trusted);
    serve.env("EVENTLOG_LIMITS_PING_INTERVAL", "200ms");
    serve.stderr(std::fs::File::create(log).expect("a file"));
    Serve::of(serve)
}

/// nginx with this text as its HTTP configuration.
fn nginx(program: &Path, http: &str, directory: &Path) -> Command {
    let file = directory.join("nginx.conf");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {}/{what};\n", directory.display()))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{http}\n}}\n",
        directory.display()
    );
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(program);
    command.args(["-e", "stderr", "-p", data(directory), "-c"]).arg(file).stderr(Stdio::null());
    command
}

/// nginx's part of the page, for a server at `upstream`, without TLS.
fn nginx_text(port: u16, upstream: &str, more: &[(&str, &str)]) -> String {
    let listen = format!("listen 127.0.0.1:{port};");
    let changes = [
        ("listen 443 ssl;", &*listen),
        ("127.0.0.1:7420", upstream),
        ("ssl_certificate     /etc/ssl/sync.example.pem;", ""),
        ("ssl_certificate_key /etc/ssl/sync.example.key;", ""),
        ("proxy_read_timeout 60s", "proxy_read_timeout 1s"),
    ];
    shown("nginx", &[&changes, more].concat())
}

/// Pages of the public name connect at both paths and below a prefix, others do not; a silent connection outlives the
/// proxy's timeout; the admin API supports keys with slashes; the log has the client's address.
async fn serves_clients(proxy: &Proxy, server: &Serve, log: &Path) {
    let silent =
        Socket::connect_with(&proxy.url("/eventlog"), &[PAGE, ("host", "sync.example")]).await;
    let began = tokio::time::Instant::now();
    for path in ["/rpc", "/sync/eventlog", "/sync/rpc/"] {
        Socket::connect_with(&proxy.url(path), &[PAGE, ("host", "sync.example")]).await;
    }
    let foreign = [("origin", "http://evil.example"), ("host", "sync.example")];
    assert_eq!(Socket::refused_status(&proxy.url("/rpc"), &foreign).await, 403);
    logged(log, "a page of \"http://evil.example\" may not use", 1);
    let headers = format!("{HOST}authorization: Bearer secret\r\n");
    for path in ["/admin/keys/user%2F1", "/sync/admin/keys/user%2F1"] {
        let answer = get_with(&proxy.address, path, &headers).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("user/1"), "{answer}");
    }
    // A broken message: its log line names the client.
    let headers = [("host", "sync.example"), ("x-forwarded-for", "198.51.100.7")];
    let mut broken = Socket::connect_with(&proxy.url("/rpc"), &headers).await;
    broken.send_text("{\"_tag\":\"Ping\"}").await;
    assert_eq!(broken.close_code().await, Some(1003));
    logged(log, "\"/rpc\" is closed: a client of Effect's RPC in JSON", 1);
    // Three times as long as the proxy waits for a silent connection.
    tokio::time::sleep_until(began + Duration::from_secs(3)).await;
    let mut silent = silent;
    assert!(matches!(
        silent.next().await,
        eventlog_server::protocol::msgpack::Response::Hello { .. }
    ));
    silent.nothing_comes().await;
    drop(silent);
    comes_to(server.address().parse().expect("an address"), "eventlog_connections_open", 0).await;
}

#[tokio::test]
async fn clients_behind_nginx() {
    let Some(program) = installed("nginx") else { return };
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server = serve(&directory.path().join("d"), &log, "127.0.0.1");
    let port = free_port();
    let text = nginx_text(port, server.address(), &[]);
    let proxy = Proxy::start(nginx(&program, &text, directory.path()), port).await;
    serves_clients(&proxy, &server, &log).await;
}

/// The values of the Ingress's annotations, including those that the page comments out.
fn annotations(ingress: &str) -> Vec<(String, String)> {
    let lines = ingress.lines().map(|line| line.trim().trim_start_matches("# "));
    let annotations = lines.filter_map(|line| {
        let (name, value) = line.strip_prefix("nginx.ingress.kubernetes.io/")?.split_once(": ")?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    });
    annotations.collect()
}

/// No cluster is started here. Its controller turns the Ingress into a configuration of nginx, which is written here in
/// the way that the controller writes it; the values are the page's, and so are those in the container's environment.
#[tokio::test]
async fn clients_behind_what_an_ingress_controller_configures() {
    let Some(program) = installed("nginx") else { return };
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let (ingress, path) = (shown("yaml", &[]), "/sync(/|$)(.*)");
    assert!(ingress.contains(path) && ingress.contains("- host: sync.example"), "{ingress}");
    let mut directives = String::new();
    for (name, value) in annotations(&ingress) {
        let directive = match &*name {
            // Shorter than any client here is silent.
            "proxy-read-timeout" => {
                assert!(value.parse::<u32>().is_ok_and(|seconds| seconds > 10), "{value}");
                "proxy_read_timeout 1s;\n".to_owned()
            }
            "proxy-send-timeout" => format!("proxy_send_timeout {value}s;\n"),
            "proxy-body-size" => format!("client_max_body_size {value};\n"),
            "rewrite-target" => continue,
            other => panic!("nobody has said what becomes of {other:?}"),
        };
        directives.push_str(&directive);
    }
    let target = annotations(&ingress).into_iter().find(|(name, _)| name == "rewrite-target");
    let (_, target) = target.expect("what takes the prefix off");
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROXIES.md"));
    let page = page.expect("the page");
    let variables: Vec<(&str, &str)> = page
        .split("- name: EVENTLOG_")
        .skip(1)
        .filter_map(|rest| {
            let (name, rest) = rest.split_once('\n')?;
            Some((name, rest.trim().strip_prefix("value: ")?.split_whitespace().next()?))
        })
        .collect();
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["TRUSTED_PROXIES", "LIMITS_KEEP_ALIVE", "DRAIN_PAUSE"]);
    let mut serving = command(&["serve", "--listen", "127.0.0.1:0"]);
    serving.args(["--data-dir", data(&directory.path().join("d"))]);
    for (name, value) in variables {
        // Pods have other addresses.
        let value =
            if name == "TRUSTED_PROXIES" { format!("{value}, 127.0.0.1") } else { value.into() };
        serving.env(format!("EVENTLOG_{name}"), value);
    }
    serving.env("EVENTLOG_AUTH_MODE", "allow-all").env("EVENTLOG_ADMIN_TOKEN", "secret");
    serving.env("EVENTLOG_LIMITS_PING_INTERVAL", "200ms");
    let server = Serve::of({
        serving.stderr(std::fs::File::create(&log).expect("a file"));
        serving
    });
    let port = free_port();
    let text = format!(
        "map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
         upstream upstream_balancer {{ server {upstream}; keepalive 320; keepalive_timeout 60s; }}
         server {{
            server_name sync.example;
            listen 127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            {directives}
            location ~* \"^{path}\" {{
                rewrite \"(?i){path}\" {target} break;
                proxy_pass http://upstream_balancer;
            }}
            location / {{ proxy_pass http://upstream_balancer; }}
         }}",
        upstream = server.address()
    );
    let proxy = Proxy::start(nginx(&program, &text, directory.path()), port).await;
    serves_clients(&proxy, &server, &log).await;
}

/// As it is without a line about `Host`: pages are refused, and the log says what to do.
#[tokio::test]
async fn pages_behind_nginx_as_it_comes_are_refused_with_a_word_in_the_log() {
    let Some(program) = installed("nginx") else { return };
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server = serve(&directory.path().join("d"), &log, "");
    let port = free_port();
    let without = [
        ("proxy_set_header Host $http_host;", ""),
        ("proxy_set_header X-Forwarded-Host $http_host;", ""),
    ];
    let text = nginx_text(port, server.address(), &without);
    let proxy = Proxy::start(nginx(&program, &text, directory.path()), port).await;
    let page = [PAGE, ("host", "sync.example")];
    assert_eq!(Socket::refused_status(&proxy.url("/rpc"), &page).await, 403);
    let line = logged(&log, "a page of \"http://sync.example\" may not use \"/rpc\"", 1).remove(0);
    let says = ["origins = [\"http://sync.example\"]", "pass Host on", "docs/PROXIES.md"];
    assert!(says.iter().all(|text| line.contains(text)), "{line}");
}

#[tokio::test]
async fn clients_behind_haproxy() {
    let Some(program) = installed("haproxy") else { return };
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server = serve(&directory.path().join("d"), &log, "127.0.0.1");
    let port = free_port();
    let bind = format!("bind 127.0.0.1:{port}");
    let text = shown(
        "haproxy",
        &[
            ("bind :443 ssl crt /etc/ssl/sync.example.pem", &bind),
            ("127.0.0.1:7420", server.address()),
            ("timeout tunnel 60s", "timeout tunnel 1s"),
        ],
    );
    let file = directory.path().join("haproxy.cfg");
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(file).stderr(Stdio::null());
    let proxy = Proxy::start(command, port).await;
    serves_clients(&proxy, &server, &log).await;
}

#[tokio::test]
async fn clients_behind_caddy() {
    let Some(program) = installed("caddy") else { return };
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server = serve(&directory.path().join("d"), &log, "127.0.0.1");
    let port = free_port();
    let site = format!("{{\n    admin off\n    auto_https off\n}}\nhttp://sync.example:{port} {{");
    let text =
        shown("caddyfile", &[("sync.example {", &site), ("127.0.0.1:7420", server.address())]);
    let file = directory.path().join("Caddyfile");
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(program);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    command.env("HOME", directory.path()).env("XDG_DATA_HOME", directory.path());
    command.env("XDG_CONFIG_HOME", directory.path()).stderr(Stdio::null());
    let proxy = Proxy::start(command, port).await;
    serves_clients(&proxy, &server, &log).await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_log_says_where_a_client_is() {
    let server =
        Jwt::with("trusted_proxies = [\"127.0.0.0/8\"]", &format!("secret = \"{SECRET}\""));
    let forwarded = [("X-Forwarded-For", "203.0.113.9, 198.51.100.7")];
    assert_eq!(Socket::refused_status(server.url(), &forwarded).await, 401);
    assert!(server.log().contains("198.51.100.7 is not let in"), "{}", server.log());
    // A proxy that writes one of the headers passes on what a client wrote in the other.
    let forwarded = [("Forwarded", "for=198.51.100.8"), ("X-Forwarded-For", "198.51.100.9")];
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(Socket::refused_status(server.url(), &forwarded).await, 401);
    assert!(server.log().contains("198.51.100.9 is not let in"), "{}", server.log());
    assert!(!server.log().contains("198.51.100.8"));
    // Anybody can write the header to a server that trusts no proxy.
    let server = Jwt::start(&format!("secret = \"{SECRET}\""));
    assert_eq!(Socket::refused_status(server.url(), &forwarded).await, 401);
    assert!(server.log().contains("127.0.0.1 is not let in"), "{}", server.log());
    assert!(!server.log().contains("198.51.100.9"));
}
