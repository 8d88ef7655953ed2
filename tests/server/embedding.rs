//! The server inside other applications.

use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use eventlog_server::model::Limits;
use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::rpc;
use eventlog_server::server::{Listen, Server, listen_beside, on_connect};
use eventlog_server::storage::sled::{Database, DatabaseOptions};
use futures_util::future::OptionFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::rpc::{RpcSocket, framed_entry, identity};
use crate::support::server::in_memory;
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key, store};

const MIB: usize = 1_024 * 1_024;

#[path = "../../examples/embed.rs"]
mod embed;

/// An application on a port of its own, with two workers; its thread ends with the test process.
pub async fn serve(
    configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> std::net::SocketAddr {
    let (told, address) = oneshot::channel();
    std::thread::spawn(move || {
        rt::System::new().block_on(async move {
            let app = move || {
                let configure = configure.clone();
                App::new().configure(move |config| configure(config))
            };
            let server = HttpServer::new(app).on_connect(on_connect).workers(2);
            let server = server.bind(("127.0.0.1", 0)).expect("a port");
            told.send(server.addrs()[0]).expect("the test waits");
            server.run().await.expect("it serves");
        });
    });
    address.await.expect("it starts")
}

#[tokio::test]
async fn the_example_asks_for_its_cookie_and_serves_its_own_routes() {
    let data = tempfile::tempdir().expect("a folder");
    let database = Database::open(data.path(), DatabaseOptions::default()).expect("a database");
    let server = embed::start(&database).await.expect("it starts");
    let mounted = server.clone();
    let address = serve(move |config| embed::application(&mounted, config)).await;
    assert!(http::get(address, "/").await.contains("an application of its own"));
    let url = format!("ws://{address}/sync/eventlog");
    assert_eq!(Socket::refused_status(&url, &[]).await, 401);
    assert_eq!(Socket::refused_status(&url, &[("Cookie", "session=guess")]).await, 401);
    let cookie = [("Cookie", "theme=dark; session=let-me-in")];
    let mut client = Socket::connect_with(&url, &cookie).await;
    client.next().await;
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
}

/// In either protocol, the application's `Auth` allows only the user's own key.
#[tokio::test]
async fn the_examples_users_get_no_further_than_their_own_keys() {
    let data = tempfile::tempdir().expect("a folder");
    let database = Database::open(data.path(), DatabaseOptions::default()).expect("a database");
    let server = embed::start(&database).await.expect("it starts");
    let mounted = server.clone();
    let address = serve(move |config| embed::application(&mounted, config)).await;
    let bob = [("Cookie", "session=me-too")];

    let mut client = Socket::connect_with(&format!("ws://{address}/sync/eventlog"), &bob).await;
    client.next().await;
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::Unauthorized);
    client.subscribe(&key("alice"), 0).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::Unauthorized);
    client.write(&key("bob"), 2, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await, (2, vec![1]));

    let mut client = RpcSocket::connect_with(&format!("ws://{address}/sync/rpc"), &bob).await;
    let refused = client.authenticate(&identity("alice")).await.expect_err("refused");
    assert_eq!(refused.code, rpc::ErrorCode::Unauthorized);
    client.authenticate(&identity("bob")).await.expect("authenticated");
    let write = client.write("bob", &[framed_entry("E", "", b"")]).await;
    assert_eq!(write.expect("acknowledged").len(), 1);
}

/// Two servers in one application share nothing.
#[tokio::test]
async fn two_servers_mounted_side_by_side_keep_different_data() {
    let mut servers: Vec<Server> = Vec::new();
    for _ in 0..2 {
        let server = in_memory().start().expect("it starts");
        server.assign(key("alice"), store("team")).await.expect("assigned");
        servers.push(server);
    }
    let mounted = servers.clone();
    let address = serve(move |config| {
        for (server, path) in mounted.iter().zip(["/one", "/two"]) {
            config.service(web::scope(path).configure(|config| server.configure(config)));
        }
    })
    .await;
    assert_ne!(servers[0].remote_id(), servers[1].remote_id());
    for (path, count) in [("one", 3), ("two", 1)] {
        let mut client = Socket::connect(&format!("ws://{address}/{path}/eventlog")).await;
        for id in 1..=count {
            client.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
            assert_eq!(client.next_ack().await, (id, vec![id]));
        }
    }
}

/// Actix waits 30 seconds for open sockets, and then cuts them off.
#[tokio::test]
async fn ending_the_application_as_documented_closes_live_sockets_with_1001_at_once() {
    let server = in_memory().start().expect("it starts");
    for name in ["alice", "bob"] {
        server.assign(key(name), store("team")).await.expect("assigned");
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let (told, address) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        rt::System::new().block_on(async move {
            let (mounted, ending) = (server.clone(), server);
            let app = move || App::new().configure(|config| mounted.configure(config));
            let http = HttpServer::new(app).on_connect(on_connect).workers(2);
            let http = http.shutdown_signal(async move {
                stopped.await.expect("the test stops it");
                ending.shutdown(Duration::from_secs(20)).await;
            });
            let http = http.bind(("127.0.0.1", 0)).expect("a port");
            told.send(http.addrs()[0]).expect("the test waits");
            http.run().await.expect("it serves");
        });
        ended.send(()).expect("the test waits");
    });
    let address = address.await.expect("it starts");
    let mut silent = Socket::connect(&format!("ws://{address}/eventlog")).await;
    let mut writer = Socket::connect(&format!("ws://{address}/eventlog")).await;
    let mut reader = RpcSocket::connect(&format!("ws://{address}/rpc")).await;
    reader.authenticate(&identity("alice")).await.expect("authenticated");
    let feed = reader.subscribe("alice", "default", 0).await;
    writer.write(&key("bob"), 1, &batch(&[framed_entry("E", "", b"")])).await;
    assert_eq!(writer.next_ack().await, (1, vec![1]));
    reader.next_entries(&feed, 1).await;
    stop.send(()).expect("it runs");
    for socket in [&mut silent, &mut writer, &mut reader.socket] {
        assert_eq!(socket.close_code().await, Some(1001));
    }
    let end = tokio::time::timeout(Duration::from_secs(20), end).await;
    end.expect("before actix gives them up").expect("no panic");
}

/// An application's own `HttpServer` bounds none of this.
#[tokio::test]
async fn routes_beside_the_servers_have_its_bounds() {
    let limits = Limits { handshake_timeout: Duration::from_secs(1), ..Limits::default() };
    let server = in_memory().limits(limits).start().expect("it starts");
    server.assign(key("alice"), store("team")).await.expect("assigned");
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let thread = std::thread::spawn(move || {
        let accepting = server.clone();
        let upload = move |request: HttpRequest, body: web::Payload| {
            let is_known = request.headers().contains_key("x-user") && accepting.accept(&request);
            async move {
                let body = is_known.then_some(body);
                match OptionFuture::from(body.map(|body| body.to_bytes_limited(MIB))).await {
                    Some(Ok(Ok(body))) => HttpResponse::Ok().body(body.len().to_string()),
                    Some(_) => HttpResponse::BadRequest().finish(),
                    None => HttpResponse::Unauthorized().finish(),
                }
            }
        };
        let open = |body: web::Payload| async {
            match body.to_bytes_limited(MIB).await {
                Ok(Ok(body)) => HttpResponse::Ok().body(body.len().to_string()),
                _ => HttpResponse::BadRequest().finish(),
            }
        };
        let routes = move |config: &mut web::ServiceConfig| {
            config.route("/upload", web::post().to(upload.clone()));
            config.route("/open", web::post().to(open));
        };
        let options = Listen { workers: 1, shutdown_timeout: Duration::from_secs(5) };
        let stopped = async { drop(stopped.await) };
        rt::System::new().block_on(listen_beside(server, listener, options, routes, stopped))
    });
    let body = "x".repeat(300_000);
    let known = http::request(address, "POST /upload", "x-user: alice\r\n", &body).await;
    assert!(known.starts_with("HTTP/1.1 200 ") && known.ends_with("300000"), "{known}");
    let stranger = http::request(address, "POST /upload", "", "").await;
    assert!(stranger.starts_with("HTTP/1.1 401 "), "{stranger}");
    // Of somebody whom the application takes bodies from without knowing them.
    let some = http::request(address, "POST /open", "", &"x".repeat(20_000)).await;
    assert!(some.starts_with("HTTP/1.1 200 ") && some.ends_with("20000"), "{some}");
    let many = http::request(address, "POST /open", "", &body).await;
    assert!(!many.starts_with("HTTP/1.1 200 "), "{many}");
    let mut client = Socket::connect(&format!("ws://{address}/eventlog")).await;
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
    // A head, or the body of a stranger, that does not end.
    for begun in
        ["POST /upload HTT", "POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx"]
    {
        let mut slow = TcpStream::connect(address).await.expect("a connection");
        slow.write_all(begun.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let ended = slow.read_to_end(&mut answer);
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert!(ended.is_ok(), "it is closed");
    }
    stop.send(()).expect("it runs");
    assert_eq!(client.close_code().await, Some(1001));
    thread.join().expect("no panic").expect("it served");
}
