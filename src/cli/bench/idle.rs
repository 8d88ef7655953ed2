//! The scenario `idle`: connections that have a subscription and send only a ping now and then.

use std::io;
use std::time::{Duration, Instant};

use eventlog_server::model::{PublicKey, Sequence};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::args::IdleArgs;
use super::floors::Floors;
use super::load;
use super::progress::Progress;
use super::report::{Report, grouped, human};
use super::subscriber::Subscriber;
use super::target::Target;

/// How many connections are opened at a time.
const OPENING: usize = 64;
/// As often as the protocol's clients do.
const PING_INTERVAL: Duration = Duration::from_secs(10);

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
    let before = target.usages();
    let started = Instant::now();
    let opening = (0..args.connections).map(|at| open(&target, &keys[at % keys.len()]));
    let mut idle: Vec<Subscriber> =
        stream::iter(opening).buffer_unordered(OPENING).try_collect().await?;
    let opened = started.elapsed();
    let per_second = args.connections as f64 / opened.as_secs_f64();
    let text = format!("{}, {} connections/s", human(opened), grouped(per_second));
    report.add("open_seconds", "opened in", opened.as_secs_f64(), text);

    let open = target.usages();
    let deadline = started + opened + args.duration;
    loop {
        ping_all(&mut idle).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.min(PING_INTERVAL)).await;
        if left <= PING_INTERVAL {
            break;
        }
    }
    let after = target.usages();
    if let (Some(before), Some(after)) = (before[0], after[0]) {
        let each = after.resident_bytes_since(&before) / args.connections.max(1) as f64;
        let text = format!("{:.2} KiB", each / 1_024.0);
        report.add("bytes_per_connection", "memory each", each.round(), text);
        if let Some(floor) = floor {
            let (times, text) = (each / floor, format!("{:.2} times", each / floor));
            report.add("of_echo", "to echo each", times, text);
        }
    }
    report.usages(open, after, args.duration, args.connections as u64);
    Ok(report.print(args.target.json))
}

/// A connection whose subscription was received: the answer to a ping says so.
async fn open(target: &Target, key: &PublicKey) -> io::Result<Subscriber> {
    let mut subscriber =
        Subscriber::open(target, std::slice::from_ref(key), Sequence::FIRST).await?;
    subscriber.ping().await?;
    subscriber.pong().await?;
    Ok(subscriber)
}

/// Pings every connection, and waits for every pong.
async fn ping_all(idle: &mut [Subscriber]) -> io::Result<()> {
    for connection in &mut *idle {
        connection.ping().await?;
    }
    for connection in idle {
        connection.pong().await?;
    }
    Ok(())
}
