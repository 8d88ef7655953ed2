//! The scenario `idle`: connections that have a subscription and nothing to say but a ping now and then.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use eventlog_server::model::{PublicKey, Sequence};
use eventlog_server::protocol::msgpack::encode_ping;
use eventlog_server::protocol::rpc::Envelope;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::args::IdleArgs;
use super::feed::Feeds;
use super::floors::Floors;
use super::load;
use super::process::Usage;
use super::progress::Progress;
use super::report::{Report, grouped, human};
use super::socket::Socket;
use super::target::Target;
use crate::cli::peer::Protocol;

/// So many connections are opened at a time.
const OPENING: usize = 64;
/// As often as the protocol's clients do.
const PING_INTERVAL: Duration = Duration::from_secs(10);

struct Idle {
    protocol: Protocol,
    socket: Socket,
    feeds: Feeds,
    pings: u64,
}

pub(super) async fn run(args: &IdleArgs) -> io::Result<bool> {
    let settings = json!({
        "connections": args.connections, "keys": args.keys, "stores": args.stores,
    });
    let title = format!("{} connections with a subscription each", args.connections);
    let mut report = Report::new("idle", settings, &title);
    let floor = Floors::of_idle(&args.target, args.connections, &mut report).await?;
    let target = Target::open(&args.target)?;
    let keys = load::fresh_keys(args.keys.max(1), args.stores.clamp(1, args.keys.max(1)));
    target.assign(&keys)?;
    let keys: Vec<PublicKey> = keys.into_iter().map(|(key, _)| key).collect();
    Progress::say("opening connections");
    let usage = || target.pid.and_then(Usage::of);
    let before = usage();
    let started = std::time::Instant::now();
    let opening = (0..args.connections).map(|at| Idle::open(&target, &keys[at % keys.len()]));
    let mut idle: Vec<Idle> = stream::iter(opening).buffer_unordered(OPENING).try_collect().await?;
    let opened = started.elapsed();
    let per_second = args.connections as f64 / opened.as_secs_f64();
    let text = format!("{}, {} connections/s", human(opened), grouped(per_second));
    report.add("open_seconds", "opened in", opened.as_secs_f64(), text);

    let open = usage();
    let deadline = started + opened + args.duration;
    loop {
        ping_all(&mut idle).await?;
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        tokio::time::sleep(left.min(PING_INTERVAL)).await;
        if left <= PING_INTERVAL {
            break;
        }
    }
    let after = usage();
    if let (Some(before), Some(after)) = (before, after) {
        let all = after.resident_bytes.saturating_sub(before.resident_bytes);
        let each = all as f64 / args.connections.max(1) as f64;
        let text = format!("{:.2} KiB", each / 1_024.0);
        report.add("bytes_per_connection", "memory each", each.round(), text);
        if let Some(floor) = floor {
            let (times, text) = (each / floor, format!("{:.2} times", each / floor));
            report.add("of_echo", "to echo each", times, text);
        }
    }
    report.usage("server", open.zip(after), args.duration, args.connections as u64);
    Ok(report.print(args.target.json))
}

/// Pings every connection, and waits for every pong.
async fn ping_all(idle: &mut [Idle]) -> io::Result<()> {
    for connection in &mut *idle {
        connection.ping().await?;
    }
    for connection in idle {
        connection.pong().await?;
    }
    Ok(())
}

impl Idle {
    async fn open(target: &Target, key: &PublicKey) -> io::Result<Self> {
        let protocol = target.protocol;
        let mut socket = target.connect(&[key]).await?;
        let feeds =
            Feeds::subscribe(protocol, &mut socket, std::iter::once(key.clone()), Sequence::FIRST);
        let mut idle = Self { protocol, socket, feeds, pings: 0 };
        // Its answer says that the subscription was taken in.
        idle.ping().await?;
        idle.pong().await?;
        Ok(idle)
    }

    async fn ping(&mut self) -> io::Result<()> {
        self.pings += 1;
        let ping = match self.protocol {
            Protocol::Msgpack => {
                let mut ping = BytesMut::new();
                encode_ping(&mut ping, self.pings);
                ping.freeze()
            }
            Protocol::Rpc => Envelope::Ping.encode(),
        };
        self.socket.push(&ping);
        self.socket.flush().await
    }

    async fn pong(&mut self) -> io::Result<()> {
        while self.feeds.pongs() < self.pings {
            self.socket.receive().await?;
            while let Some(message) = self.socket.next_message()? {
                self.feeds.take(message, &mut |_| ())?;
            }
            self.feeds.acknowledge(&mut self.socket);
            self.socket.flush().await?;
        }
        Ok(())
    }
}
