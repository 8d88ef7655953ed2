//! Many clients that never make a valid request, on a thread of the lowest priority; and how long others wait
//! meanwhile.
//!
//! The thread has that priority once all of them are there: at the lowest one, on a busy machine, they would take
//! minutes to come.
//!
//! The others write now and then over existing connections, and some reconnect: both are reported.
//!
//! Keeps: strangers come from other addresses than the others, and all of them are there, and have begun to send,
//! before anything is measured.
//! Leaves out: what they send (`kinds`).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use super::SHAPE;
use super::kinds::Script;
use super::neighbours::lowest_priority;
use crate::cli::bench::args::{FairArgs, TimeArgs};
use crate::cli::bench::load::{self, Key, Load, Measured};
use crate::cli::bench::report::Report;
use crate::cli::bench::target::Target;
use crate::cli::bench::writer::Run;
use crate::cli::text::people_bytes;

/// How many connections write, and how many writes they make a second.
const OTHERS: usize = 20;
const WRITES_A_SECOND: f64 = 400.0;
/// How often one of them reconnects.
const NEWCOMER_EVERY: Duration = Duration::from_millis(50);
/// How many strangers come from each address, which does not have ports for very many.
const AN_ADDRESS: usize = 2_500;
/// When one that was cut off comes back.
const BACK_AFTER: Duration = Duration::from_secs(1);
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
/// How long one that is there may take for its first input. It may never come to an end with that.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// Longer than it takes until all have been there.
const ALL_PATIENCE: Duration = Duration::from_secs(300);
/// How often to check whether they are.
const POLL: Duration = Duration::from_millis(10);

pub(super) async fn run(args: &FairArgs, count: usize) -> io::Result<bool> {
    let kind = args.kind_name();
    let settings = json!({ "beside": args.beside.name(), "kind": kind, "neighbours": count });
    let title = format!("others beside {count} strangers, {kind}");
    let mut report = Report::new("fair", settings, &title);
    let target = Target::open(&args.target)?;
    let mut keys = load::fresh_keys(OTHERS + 1, 1);
    target.assign(&keys)?;
    let newcomer = keys.split_off(OTHERS);
    let others = Others { target: &target, keys, newcomer, time: args.time };
    others.measure(&mut report, ["alone", "newcomers_alone"]).await?;
    if args.control {
        let elsewhere = Target::open(&args.target)?;
        let strangers = Strangers::start(elsewhere.addr, args.kind.script(args.every), count)?;
        strangers.all_there(&mut report).await;
        others.measure(&mut report, ["control", "newcomers_control"]).await?;
        strangers.stop()?;
    }
    let before = target.usages()[0].unwrap_or_default();
    let strangers = Strangers::start(target.addr, args.kind.script(args.every), count)?;
    strangers.all_there(&mut report).await;
    let beside = others.measure(&mut report, ["acknowledged", "newcomers"]).await?;
    let usage = target.usages()[0].unwrap_or_default();
    strangers.stop()?;
    let elapsed = beside.run.figures.elapsed();
    let entries = beside.run.figures.acks.entries;
    report.usages(beside.before, beside.after, elapsed, entries);
    let cost = usage.resident_bytes_max.saturating_sub(before.resident_bytes);
    report.add("cost_bytes", "strangers cost", cost, format!("{} at most", people_bytes(cost)));
    Ok(report.print(args.target.json))
}

/// The clients that are not strangers.
struct Others<'a> {
    target: &'a Target,
    keys: Vec<Key>,
    newcomer: Vec<Key>,
    time: TimeArgs,
}

impl Others<'_> {
    async fn measure(&self, report: &mut Report, names: [&str; 2]) -> io::Result<Measured> {
        let time = TimeArgs { rate: Some(WRITES_A_SECOND), ..self.time };
        let load = Load { time, shared: true, ..Load::new(OTHERS, 1, SHAPE) };
        let (newcomers, local) = (Rc::new(RefCell::new(Run::default())), LocalSet::new());
        newcomers.borrow_mut().figures.begin();
        let known = load::run(self.target, &self.keys, &load, Vec::new());
        let known = local
            .run_until(async {
                tokio::select! {
                    known = known => known,
                    failed = self.come_anew(&newcomers) => Err(failed),
                }
            })
            .await?;
        report.latency(names[0], &known.run.figures);
        newcomers.borrow_mut().figures.stop();
        report.latency(names[1], &newcomers.borrow().figures);
        Ok(known)
    }

    /// One after another connects and writes once, until one fails.
    async fn come_anew(&self, run: &RefCell<Run>) -> io::Error {
        let load = Load { count: Some(1), shared: true, ..Load::new(1, 1, SHAPE) };
        loop {
            let came = run.borrow().figures.now();
            let written = load::run(self.target, &self.newcomer, &load, Vec::new()).await;
            if let Err(error) = written {
                return io::Error::other(format!("one who came was not served: {error}"));
            }
            let now = run.borrow().figures.now();
            run.borrow_mut().figures.acked(came, now, 1);
            sleep(NEWCOMER_EVERY).await;
        }
    }
}

/// They run until they are stopped.
struct Strangers {
    over: Arc<AtomicBool>,
    been_there: Arc<AtomicUsize>,
    count: usize,
    thread: std::thread::JoinHandle<io::Result<()>>,
}

impl Strangers {
    fn start(to: SocketAddr, script: Script, count: usize) -> io::Result<Self> {
        let (over, been_there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, came) = (over.clone(), been_there.clone());
        let thread = std::thread::Builder::new().name("strangers".to_owned());
        let thread = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let script = Rc::new(script);
            let local = LocalSet::new();
            let mut all = JoinSet::new();
            for number in 0..count {
                let (script, until) = (script.clone(), until.clone());
                let coming = Coming(came.clone());
                all.spawn_local_on(come_back(to, number, script, until, coming), &local);
            }
            runtime.block_on(local.run_until(async {
                while came.load(Ordering::Relaxed) < count {
                    sleep(POLL).await;
                }
                lowest_priority()?;
                while all.join_next().await.is_some() {}
                Ok(())
            }))
        })?;
        Ok(Self { over, been_there, count, thread })
    }

    /// Waits until each of them has sent its first input, or tried to.
    async fn all_there(&self, report: &mut Report) {
        let began = Instant::now();
        while self.been_there.load(Ordering::Relaxed) < self.count {
            if began.elapsed() >= ALL_PATIENCE {
                return report.fault("some strangers never came to connect");
            }
            sleep(POLL).await;
        }
    }

    fn stop(self) -> io::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the strangers panicked")))
    }
}

/// A stranger that is on its way. Counts as there when this is dropped.
struct Coming(Arc<AtomicUsize>);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connects, and reconnects whenever the server has ended the connection.
async fn come_back(
    to: SocketAddr,
    number: usize,
    script: Rc<Script>,
    over: Arc<AtomicBool>,
    coming: Coming,
) {
    let mut coming = Some(coming);
    while !over.load(Ordering::Relaxed) {
        let coming = coming.take();
        if let Ok(stream) = connect(to, number, &script).await {
            send(stream, &script, &over, coming).await;
        }
        let back = Instant::now() + BACK_AFTER;
        while Instant::now() < back && !over.load(Ordering::Relaxed) {
            sleep(BACK_AFTER / 10).await;
        }
    }
}

/// From an address that the others do not use, if the server is on this machine.
async fn connect(to: SocketAddr, number: usize, script: &Script) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Kernel memory is not what is measured.
    socket.set_send_buffer_size(16 * 1_024)?;
    if !script.reads {
        socket.set_recv_buffer_size(4 * 1_024)?;
    }
    if to.is_ipv4() && to.ip().is_loopback() {
        let from = Ipv4Addr::new(127, 0, 1, 1 + (number / AN_ADDRESS) as u8);
        socket.bind((from, 0).into())?;
    }
    let connected = timeout(CONNECT_PATIENCE, socket.connect(to)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends a stranger's input until the server ends the connection, or everything is over.
async fn send(stream: TcpStream, script: &Script, over: &AtomicBool, coming: Option<Coming>) {
    let (mut read, mut write) = stream.into_split();
    let coming = Cell::new(coming);
    let sends = async {
        write.write_all(&script.first).await?;
        drop(coming.take());
        while !script.again.is_empty() {
            write.write_all(&script.again).await?;
            sleep(script.every).await;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let reads = async {
        if !script.reads {
            std::future::pending::<()>().await;
        }
        let mut buffer = [0; 1_024];
        while read.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    let ends = async {
        sleep(FIRST_PATIENCE).await;
        drop(coming.take());
        while !over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        _ = sends => {}
        () = reads => {}
        () = ends => {}
    }
}
