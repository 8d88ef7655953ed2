//! What the system says about a process (CPU time and memory) and about itself.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// CPU time so far, in user and system mode.
    pub(super) cpu: Duration,
    /// Currently resident memory.
    pub(super) resident_bytes: u64,
    /// The peak of that.
    pub(super) resident_bytes_max: u64,
}

/// The measured server and this process, as far as the system tells.
pub(super) type Usages = [Option<Usage>; 2];

impl Usage {
    /// The usage of process `pid`; `None` if there is none, or no `/proc`.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // The name may contain anything; what follows it does not.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let millis = (ticks(11)? + ticks(12)?) * 1_000 / rustix::param::clock_ticks_per_second();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        Some(Self {
            cpu: Duration::from_millis(millis),
            resident_bytes: kib("VmRSS:")? * 1_024,
            resident_bytes_max: kib("VmHWM:")? * 1_024,
        })
    }

    /// CPU time since `before`, in seconds.
    pub(super) fn cpu_since(&self, before: &Self) -> f64 {
        self.cpu.saturating_sub(before.cpu).as_secs_f64()
    }

    /// By how many bytes the resident memory grew since `before`.
    pub(super) fn resident_bytes_since(&self, before: &Self) -> f64 {
        self.resident_bytes.saturating_sub(before.resident_bytes) as f64
    }
}

/// Processor, cores and kernel of this machine.
pub(super) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let name = name.map_or(std::env::consts::ARCH, |(_, name)| name);
    format!("{name}, {cores} cores, {} {}", std::env::consts::OS, kernel.trim())
}

/// Milliseconds since 1970.
pub(super) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory() {
        let usage = Usage::of(std::process::id()).expect("a process");
        assert!(usage.resident_bytes > 100_000 && usage.resident_bytes <= usage.resident_bytes_max);
    }
}
