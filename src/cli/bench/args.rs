//! The flags of `bench`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use tempfile::TempDir;

use super::fair::kinds::Kind;
use super::template::EntryShape;
use crate::cli::address::ServerUrl;
use crate::cli::peer::Protocol;

/// Measure a server, in either protocol, and check its answers.
///
/// Without --url it starts its own server in a temporary directory. It also measures references (floors): what
/// the disk, an echo server and the storage do alone.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  eventlog-server bench write
  eventlog-server bench write --connections 1 --in-flight 1 --floors sync
  eventlog-server bench write --rate 10000 --duration 60
  eventlog-server bench fan-out --subscribers 1000 --json
  eventlog-server bench fair --beside catch-up --neighbours 10
  eventlog-server bench fair --beside strangers --kind slow-headers
  eventlog-server bench write --protocol rpc --url ws://127.0.0.1:7420/rpc
  eventlog-server bench idle --url ws://127.0.0.1:7420/eventlog --pid $(pidof eventlog-server)

It exits with 1 if an answer was wrong or missing. With --rate, a write that is answered late or never sent counts from \
when it was due.")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(super) scenario: Scenario,
}

#[derive(Subcommand, Debug)]
pub(super) enum Scenario {
    /// Many connections write small batches: acknowledged writes per second, and ack latency.
    Write(LoadArgs),
    /// A few connections write large batches: durable entries per second.
    Ingest(LoadArgs),
    /// A reader reads a store's whole history: entries per second.
    CatchUp(CatchUpArgs),
    /// Many subscribers of one store while a few connections write to it: deliveries per second, and their
    /// latency.
    FanOut(FanOutArgs),
    /// One client with one write in flight, first alone and then beside busy clients: ack latency.
    Fair(FairArgs),
    /// Idle connections with a subscription: memory of the server for each.
    Idle(IdleArgs),
    /// The limit of the generator itself: the frames of `write` against an echo server that does nothing with
    /// them.
    Echo(EchoArgs),
    #[command(hide = true)]
    EchoServer {
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// Which server.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct TargetArgs {
    /// The server to measure, such as `ws://127.0.0.1:7420/eventlog` [default: start one in a temporary
    /// directory]
    #[arg(long)]
    pub(super) url: Option<ServerUrl>,
    /// The protocol [default: rpc if the URL ends in /rpc, else msgpack]. With rpc every key is proved first.
    #[arg(long, value_enum)]
    pub(super) protocol: Option<Protocol>,
    /// Token of the server's admin API, to assign keys to stores. Without it the server must know the keys, or
    /// run with --dev.
    #[arg(long, env = "EVENTLOG_ADMIN_TOKEN", hide_env_values = true)]
    pub(super) admin_token: Option<String>,
    /// Process id of the server, to report its CPU time and memory.
    #[arg(long)]
    pub(super) pid: Option<u32>,
    /// Where to make the temporary directory of its own server. This is the disk that is measured.
    #[arg(long)]
    pub(super) directory: Option<PathBuf>,
    /// One more argument for its own server; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) server_arg: Vec<String>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// The references to measure on this machine [default: all that fit the scenario, or none with --url].
    #[arg(long, value_delimiter = ',', value_name = "FLOOR")]
    pub(super) floors: Option<Vec<FloorArg>>,
    /// How long to measure each reference, in seconds.
    #[arg(long, default_value = "3", value_parser = seconds)]
    pub(super) floor_duration: Duration,
}

/// A floor: the scenario includes this work, so it cannot be faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FloorArg {
    /// Syncs of the disk, by `fdatasync` and as the server does them.
    Sync,
    /// The same frames against an echo server.
    Echo,
    /// The server's storage, without sockets.
    Storage,
    /// No floor.
    None,
}

impl TargetArgs {
    /// The chosen protocol, or else the one of the URL.
    pub(super) fn protocol(&self) -> Protocol {
        let said = self.url.as_ref().map_or(Protocol::Msgpack, ServerUrl::protocol);
        self.protocol.unwrap_or(said)
    }

    /// A new directory on the disk that is measured.
    pub(super) fn temporary_directory(&self) -> io::Result<TempDir> {
        let parent = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        TempDir::with_prefix_in("eventlog-bench-", parent)
    }

    /// Whether to measure `floor`.
    pub(super) fn measures(&self, floor: FloorArg) -> bool {
        match &self.floors {
            Some(chosen) => chosen.contains(&floor),
            None => self.url.is_none(),
        }
    }
}

/// What is written.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct EntryArgs {
    /// Entries in a batch [default: 1 for write, 10 for fan-out, 1000 for ingest and catch-up].
    #[arg(long, value_parser = from_one)]
    batch: Option<usize>,
    /// Bytes in the payload of an entry; for fan-out at least 8, since the payload carries the time of sending.
    #[arg(long, default_value_t = 100)]
    payload: usize,
}

impl EntryArgs {
    /// `batch`, unless another value was chosen.
    pub(super) fn shape(self, batch: usize) -> EntryShape {
        EntryShape { batch: self.batch.unwrap_or(batch).max(1), payload: self.payload }
    }
}

/// When it is written.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct TimeArgs {
    /// How long to measure, in seconds.
    #[arg(long, default_value = "10", value_parser = some_seconds)]
    pub(super) duration: Duration,
    /// How long to write before the measurement begins, in seconds.
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(super) warm_up: Duration,
    /// Batches per second over all writing connections, however fast the server answers. Latency then counts from
    /// when a batch was due. Without it every connection writes again as soon as it gets an answer.
    #[arg(long)]
    pub(super) rate: Option<f64>,
}

/// How writers behave.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Connections that write [default: 16 for write, 4 for ingest].
    #[arg(long, value_parser = from_one)]
    pub(super) connections: Option<usize>,
    /// Most unanswered batches on a connection [default: 64 for write, 4 for ingest].
    #[arg(long, value_parser = from_one)]
    pub(super) in_flight: Option<usize>,
    #[command(flatten)]
    pub(super) entries: EntryArgs,
    /// Public keys, spread over the connections [default: as many as connections, or as stores if they are more].
    #[arg(long, value_parser = from_one)]
    pub(super) keys: Option<usize>,
    /// Stores, spread over the keys. More than one needs an admin token.
    #[arg(long, default_value_t = 1, value_parser = from_one)]
    pub(super) stores: usize,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    /// Write this many entries, and measure all of it.
    #[arg(long, conflicts_with = "duration")]
    pub(super) count: Option<u64>,
    /// Write, then send everything again, and measure that [default count: 1000000].
    #[arg(long)]
    pub(super) resend: bool,
    /// The times in the ids of the entries.
    #[arg(long, value_enum, default_value_t)]
    pub(super) ids: IdTimes,
}

/// Which times a client's ids have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum IdTimes {
    /// That of sending.
    #[default]
    Now,
    /// Any time in the last 365 days: devices that were offline, or send everything again after a restore.
    Any,
    /// A year after sending: a device with a wrong clock.
    Ahead,
}

impl IdTimes {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Any => "any",
            Self::Ahead => "ahead",
        }
    }
}

/// How the generator meets a server that does nothing.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct EchoArgs {
    /// Connections that write [default: 16].
    #[arg(long, value_parser = from_one)]
    connections: Option<usize>,
    /// Most unanswered batches on a connection [default: 64].
    #[arg(long, value_parser = from_one)]
    in_flight: Option<usize>,
    #[command(flatten)]
    entries: EntryArgs,
    #[command(flatten)]
    time: TimeArgs,
    /// Write this many entries, and measure all of it.
    #[arg(long, conflicts_with = "duration")]
    count: Option<u64>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl EchoArgs {
    /// The arguments of a load, on its own server.
    pub(super) fn load(&self) -> LoadArgs {
        let Self { connections, in_flight, entries, time, count, json } = self.clone();
        let target = TargetArgs { json, ..TargetArgs::default() };
        let (keys, stores, resend) = (None, 1, false);
        let ids = IdTimes::Now;
        LoadArgs { target, connections, in_flight, entries, keys, stores, time, count, resend, ids }
    }
}

/// How a reader catches up.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct CatchUpArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Entries to fill the store with first.
    #[arg(long, default_value_t = 1_000_000)]
    pub(super) count: u64,
    #[command(flatten)]
    pub(super) entries: EntryArgs,
    /// Readers at the same time, each on its own connection.
    #[arg(long, default_value_t = 1, value_parser = from_one)]
    pub(super) readers: usize,
    /// How many times to read everything.
    #[arg(long, default_value_t = 3, value_parser = from_one)]
    pub(super) rounds: usize,
}

/// Who reads and who writes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct FanOutArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Another node of the same server, which the subscribers connect to.
    #[arg(long, requires = "url")]
    pub(super) subscribers_url: Option<ServerUrl>,
    /// Subscriptions of the one store.
    #[arg(long, default_value_t = 1_000, value_parser = from_one)]
    pub(super) subscribers: usize,
    /// Connections for the subscriptions, each with its own keys [default: one for each].
    #[arg(long, value_parser = from_one)]
    pub(super) connections: Option<usize>,
    /// Connections that write.
    #[arg(long, default_value_t = 2, value_parser = from_one)]
    pub(super) writers: usize,
    /// Most unanswered batches on a writer's connection.
    #[arg(long, default_value_t = 4, value_parser = from_one)]
    pub(super) in_flight: usize,
    #[command(flatten)]
    pub(super) entries: EntryArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
}

/// Who is kept waiting by whom.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct FairArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// What the others do, on a thread of the lowest priority. With --url all but `ingest` need an admin token.
    #[arg(long, value_enum, default_value_t = Beside::CatchUp)]
    pub(super) beside: Beside,
    /// How many others there are [default: 30 readers, 32 large writes in flight, 1000 subscribers, 1000 clients
    /// a second, 1900 strangers; `ingest` has 4 connections].
    #[arg(long, value_parser = from_one)]
    pub(super) neighbours: Option<usize>,
    /// What strangers send.
    #[arg(long, value_enum, default_value_t = Kind::Silent)]
    pub(super) kind: Kind,
    /// Seconds until a stranger that sends something again and again does so again.
    #[arg(long, default_value = "0.02", value_parser = some_seconds)]
    pub(super) every: Duration,
    /// Measure also beside the same strangers at another server: what the machine alone makes of them.
    #[arg(long, conflicts_with = "url")]
    pub(super) control: bool,
    /// Entries to catch up on.
    #[arg(long, default_value_t = 1_000_000)]
    pub(super) count: u64,
    #[command(flatten)]
    pub(super) time: TimeArgs,
}

/// What the others do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Beside {
    /// Readers read the whole history of another store, again and again.
    CatchUp,
    /// Writes of 200 kB to another store.
    LargeWrites,
    /// The scenario `ingest`, to the same store.
    Ingest,
    /// Subscribers of another store, while two connections write to it as fast as they can.
    FanOut,
    /// Clients connect and prove their keys in the RPC protocol, this many each second.
    Identify,
    /// Connections that never make a valid request. The measured clients are then twenty connections that write
    /// now and then, and some new ones.
    Strangers,
}

impl FairArgs {
    /// The name of the kind of strangers.
    pub(super) fn kind_name(&self) -> String {
        self.kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Beside {
    /// The default number of them.
    pub(super) const fn usual(self) -> usize {
        match self {
            Self::CatchUp => 30,
            Self::LargeWrites => 32,
            Self::Ingest => 4,
            Self::FanOut | Self::Identify => 1_000,
            Self::Strangers => 1_900,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Who is idle.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct IdleArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Connections, each with one subscription.
    #[arg(long, default_value_t = 10_000, value_parser = from_one)]
    pub(super) connections: usize,
    /// Public keys, spread over the connections.
    #[arg(long, default_value_t = 100, value_parser = from_one)]
    pub(super) keys: usize,
    /// Stores, spread over the keys.
    #[arg(long, default_value_t = 1, value_parser = from_one)]
    pub(super) stores: usize,
    /// How long to stay connected, in seconds. Every connection pings at the beginning and every 10 seconds.
    #[arg(long, default_value = "5", value_parser = some_seconds)]
    pub(super) duration: Duration,
}

fn from_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a number from 1 on".to_owned())
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time.is_zero() { Err("expected more than 0 seconds".to_owned()) } else { Ok(time) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
