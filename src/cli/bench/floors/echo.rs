//! The generator against a bare echo server: the most that any server made of the same parts can do.

use std::io;
use std::time::Duration;

use super::super::load::{self, Load, Measured, Record};
use super::super::process::Usage;
use super::super::socket::Socket;
use super::super::target::Target;

const WARM_UP: Duration = Duration::from_secs(1);

/// Sends the frames of `load` for so long, as fast as they come back.
pub(in super::super) async fn run(load: &Load, time: Duration) -> io::Result<Measured> {
    let load = Load {
        echo: true,
        duration: time,
        count: None,
        rate: None,
        warm_up: WARM_UP,
        stores: 1,
        ..load.clone()
    };
    let target = Target::start_echo()?;
    let keys = load::fresh_keys(load.connections, 1);
    let (_, measured) = load::run(&target, &keys, &load, Record::Nothing).await?;
    match measured.faults.keys().next() {
        Some(fault) => Err(io::Error::other(format!("the echo server: {fault}"))),
        None => Ok(measured),
    }
}

/// Resident bytes for each of so many connections that have sent one message; `None` where the system does not tell.
pub(super) async fn idle_bytes(connections: usize) -> io::Result<Option<f64>> {
    let target = Target::start_echo()?;
    let usage = || target.pid.and_then(Usage::of);
    let before = usage();
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
    Ok(before.zip(usage()).map(|(before, after)| {
        let bytes = after.resident_bytes.saturating_sub(before.resident_bytes);
        bytes as f64 / connections.max(1) as f64
    }))
}
