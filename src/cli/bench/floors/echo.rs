//! The generator against a bare echo server: the most that any server made of the same parts can do.

use std::io;
use std::time::Duration;

use super::super::args::TimeArgs;
use super::super::load::{self, Load, Measured};
use super::super::socket::Socket;
use super::super::target::Target;

const WARM_UP: Duration = Duration::from_secs(1);

/// Sends the frames of `load` for this long, as fast as they come back.
pub(super) async fn run(load: &Load, duration: Duration) -> io::Result<Measured> {
    let time = TimeArgs { duration, warm_up: WARM_UP, rate: None };
    let load = Load { echo: true, time, count: None, stores: 1, ..*load };
    let target = Target::start_echo()?;
    let keys = load::fresh_keys(load.connections, 1);
    let measured = load::run(&target, &keys, &load, Vec::new()).await?;
    match measured.run.figures.faults.keys().next() {
        Some(fault) => Err(io::Error::other(format!("the echo server: {fault}"))),
        None => Ok(measured),
    }
}

/// Resident bytes per connection, for this many connections that have each sent one message; `None` where the system
/// does not tell.
pub(super) async fn idle_bytes(connections: usize) -> io::Result<Option<f64>> {
    let target = Target::start_echo()?;
    let [before, _] = target.usages();
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut socket = Socket::connect(target.addr, &target.path).await?;
        socket.push(&[0]);
        socket.flush().await?;
        while socket.next_message()?.is_none() {
            socket.receive().await?;
        }
        open.push(socket);
    }
    let [after, _] = target.usages();
    let each = |bytes: f64| bytes / connections.max(1) as f64;
    Ok(before.zip(after).map(|(before, after)| each(after.resident_bytes_since(&before))))
}
