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

/// Measure a server, in either protocol, and check what it answers.
///
/// Without --url it starts a server of its own in a temporary directory, and measures floors beside it: what the disk,
/// a bare echo server and the storage do by themselves.
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
    /// Many connections write small batches: acknowledged writes per second, and how long an ack takes.
    Write(LoadArgs),
    /// A few connections write large batches: durable entries per second.
    Ingest(LoadArgs),
    /// A reader takes in a store's whole history: entries per second.
    CatchUp(CatchUpArgs),
    /// Many subscribers of one store while a few connections write to it: deliveries per second, and how long they take.
    FanOut(FanOutArgs),
    /// One client with one write in flight, alone and then beside others who ask for a lot: how long an ack takes.
    Fair(FairArgs),
    /// Connections with a subscription and nothing to do: memory of the server for each.
    Idle(IdleArgs),
    /// The generator's own ceiling: the frames of `write` against a bare echo server, which does nothing with them.
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
    /// The server to measure, such as `ws://127.0.0.1:7420/eventlog`. Without it one is started in a temporary directory.
    #[arg(long)]
    pub(super) url: Option<ServerUrl>,
    /// What to speak with it [default: rpc if the URL ends in /rpc, else msgpack]. With rpc every key proves itself first.
    #[arg(long, value_enum)]
    pub(super) protocol: Option<Protocol>,
    /// Token of the server's admin API, which keys are assigned to stores with. Without it the server has to know the
    /// keys, or run with --dev.
    #[arg(long, env = "EVENTLOG_ADMIN_TOKEN", hide_env_values = true)]
    pub(super) admin_token: Option<String>,
    /// Process id of the server, to tell its CPU time and memory.
    #[arg(long)]
    pub(super) pid: Option<u32>,
    /// Where the temporary directory of a server of its own is made: the disk that is measured.
    #[arg(long)]
    pub(super) directory: Option<PathBuf>,
    /// One more argument for a server of its own; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) server_arg: Vec<String>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// What to measure beside it, on this machine alone, to compare with [default: all that concern the scenario, or
    /// none with --url].
    #[arg(long, value_delimiter = ',', value_name = "FLOOR")]
    pub(super) floors: Option<Vec<FloorArg>>,
    /// How long to measure each of them, in seconds.
    #[arg(long, default_value = "3", value_parser = seconds)]
    pub(super) floor_duration: Duration,
}

/// A floor: what is measured is made of it, and cannot be better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FloorArg {
    /// Syncs of the disk, by `fdatasync` and as the server does them.
    Sync,
    /// The same frames against a bare echo server.
    Echo,
    /// The server's storage, without sockets.
    Storage,
    /// No floor.
    None,
}

impl TargetArgs {
    /// What was asked for, or else what the URL says.
    pub(super) fn protocol(&self) -> Protocol {
        let said = self.url.as_ref().map_or(Protocol::Msgpack, ServerUrl::protocol);
        self.protocol.unwrap_or(said)
    }

    /// A fresh directory on the disk that is measured.
    pub(super) fn temporary_directory(&self) -> io::Result<TempDir> {
        let parent = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        TempDir::with_prefix_in("eventlog-bench-", parent)
    }

    /// Whether `floor` is to be measured.
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
    #[arg(long)]
    batch: Option<usize>,
    /// Bytes in the payload of an entry; for fan-out at least 8, since the time of sending travels in it.
    #[arg(long, default_value_t = 100)]
    payload: usize,
}

impl EntryArgs {
    /// `batch` unless another was chosen.
    pub(super) fn shape(self, batch: usize) -> EntryShape {
        EntryShape { batch: self.batch.unwrap_or(batch).max(1), payload: self.payload }
    }
}

/// When it is written.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct TimeArgs {
    /// How long to measure, in seconds.
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub(super) duration: Duration,
    /// How long to write before measuring begins, in seconds.
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(super) warm_up: Duration,
    /// Batches per second over all connections that write, whatever the server does; latency then counts from the moment
    /// when a batch was due. Without it every connection writes on as soon as it is answered.
    #[arg(long)]
    pub(super) rate: Option<f64>,
}

/// How writers behave.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Connections that write [default: 16 for write, 4 for ingest].
    #[arg(long)]
    pub(super) connections: Option<usize>,
    /// Most unanswered batches on a connection [default: 64 for write, 4 for ingest].
    #[arg(long)]
    pub(super) in_flight: Option<usize>,
    #[command(flatten)]
    pub(super) entries: EntryArgs,
    /// Public keys, dealt out over the connections [default: as many as connections, or as stores if they are more].
    #[arg(long)]
    pub(super) keys: Option<usize>,
    /// Stores, dealt out over the keys. More than one takes an admin token.
    #[arg(long, default_value_t = 1)]
    pub(super) stores: usize,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    /// Write so many entries and measure all of it.
    #[arg(long, conflicts_with = "duration")]
    pub(super) count: Option<u64>,
    /// Write, then send all of it again, and measure that [default count: 1000000].
    #[arg(long)]
    pub(super) resend: bool,
}

/// How the generator meets a server that does nothing.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct EchoArgs {
    /// Connections that write [default: 16].
    #[arg(long)]
    connections: Option<usize>,
    /// Most unanswered batches on a connection [default: 64].
    #[arg(long)]
    in_flight: Option<usize>,
    #[command(flatten)]
    entries: EntryArgs,
    #[command(flatten)]
    time: TimeArgs,
    /// Write so many entries and measure all of it.
    #[arg(long, conflicts_with = "duration")]
    count: Option<u64>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl EchoArgs {
    /// As those of a load, on a server of its own.
    pub(super) fn load(&self) -> LoadArgs {
        let Self { connections, in_flight, entries, time, count, json } = self.clone();
        let target = TargetArgs { json, ..TargetArgs::default() };
        let (keys, stores, resend) = (None, 1, false);
        LoadArgs { target, connections, in_flight, entries, keys, stores, time, count, resend }
    }
}

/// How a reader catches up.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct CatchUpArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Entries that the store is filled with first.
    #[arg(long, default_value_t = 1_000_000)]
    pub(super) count: u64,
    #[command(flatten)]
    pub(super) entries: EntryArgs,
    /// Readers at the same time, each on a connection of its own.
    #[arg(long, default_value_t = 1)]
    pub(super) readers: usize,
    /// How often to read everything.
    #[arg(long, default_value_t = 3)]
    pub(super) rounds: usize,
}

/// Who reads and who writes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct FanOutArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Subscriptions of the one store.
    #[arg(long, default_value_t = 1_000)]
    pub(super) subscribers: usize,
    /// Connections that the subscriptions are spread over, each with keys of its own [default: one for each].
    #[arg(long)]
    pub(super) connections: Option<usize>,
    /// Connections that write.
    #[arg(long, default_value_t = 2)]
    pub(super) writers: usize,
    /// Most unanswered batches on a writer's connection.
    #[arg(long, default_value_t = 4)]
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
    /// What the others do, on a thread of the lowest priority. With --url all but `ingest` take an admin token.
    #[arg(long, value_enum, default_value_t = Beside::CatchUp)]
    pub(super) beside: Beside,
    /// How many they are [default: 30 readers, 32 large writes in flight, 1000 subscribers, 1000 clients a second,
    /// 1900 strangers; `ingest` has 4 connections].
    #[arg(long)]
    pub(super) neighbours: Option<usize>,
    /// What strangers send.
    #[arg(long, value_enum, default_value_t = Kind::Silent)]
    pub(super) kind: Kind,
    /// Entries that there are to catch up on.
    #[arg(long, default_value_t = 1_000_000)]
    pub(super) count: u64,
    #[command(flatten)]
    pub(super) time: TimeArgs,
}

/// What the others do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Beside {
    /// Readers take in the whole history of another store, over and over.
    CatchUp,
    /// Writes of 200 kB to another store.
    LargeWrites,
    /// The scenario `ingest`, to the same store.
    Ingest,
    /// Subscribers of another store, which two connections write to as fast as they can.
    FanOut,
    /// Clients connect and prove themselves in the RPC protocol, so many in each second.
    Identify,
    /// Connections that never make a good request; and then it is twenty connections that write now and then, and some
    /// that come anew.
    Strangers,
}

impl FairArgs {
    /// The name of the kind of strangers.
    pub(super) fn kind_name(&self) -> String {
        self.kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Beside {
    /// How many there are unless told otherwise.
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
    #[arg(long, default_value_t = 10_000)]
    pub(super) connections: usize,
    /// Public keys, dealt out over the connections.
    #[arg(long, default_value_t = 100)]
    pub(super) keys: usize,
    /// Stores, dealt out over the keys.
    #[arg(long, default_value_t = 1)]
    pub(super) stores: usize,
    /// How long to stay, in seconds; every connection pings at the beginning and every 10 seconds.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(super) duration: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
