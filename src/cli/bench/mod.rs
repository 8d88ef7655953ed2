//! `eventlog-server bench`: measures any server that speaks one of the two protocols.
//!
//! Keeps: what is measured is checked as well, acks against what was written and feeds against their order; the
//! generator runs on one thread, because the server has to share the machine with it. Leaves out: `wss://`.

mod args;
mod catch_up;
mod echo;
mod fair;
mod fan_out;
mod figures;
mod floors;
mod idle;
mod in_flight;
mod load;
mod process;
mod progress;
mod reader;
mod report;
mod rpc;
mod seen;
mod socket;
mod subscriber;
mod target;
mod template;
mod write;
mod writer;

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(super) use args::Args;
use args::Scenario;

/// A measurement failed, or what it measured is wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    /// It could not be done.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was done, but the results are wrong.
    #[error("the server did not do what it has to, see FAULT above")]
    Faulty,
}

/// Measures, and prints the results.
pub(super) fn run(args: &Args) -> Result<(), BenchError> {
    raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sound = match &args.scenario {
        Scenario::Write(args) => runtime.block_on(write::run("write", args, write::WRITE))?,
        Scenario::Ingest(args) => runtime.block_on(write::run("ingest", args, write::INGEST))?,
        Scenario::CatchUp(args) => runtime.block_on(catch_up::run(args))?,
        Scenario::FanOut(args) => runtime.block_on(fan_out::run(args))?,
        Scenario::Fair(args) => runtime.block_on(fair::run(args))?,
        Scenario::Idle(args) => runtime.block_on(idle::run(args))?,
        Scenario::Echo(args) => runtime.block_on(write::echo(args))?,
        Scenario::EchoServer { listen } => return Ok(echo::serve(*listen)?),
    };
    if sound { Ok(()) } else { Err(BenchError::Faulty) }
}

/// Connections are open files: raises the limit as far as possible. A child process inherits that.
fn raise_open_files() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
