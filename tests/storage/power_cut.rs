//! A power cut: a file system on a loop device is shut down while another process writes to it, so that everything is
//! lost that was not on disk at that moment; then it is mounted again.
//!
//! Needs Linux, root, `mkfs.ext4`, loop devices, and `python3` for the one system call; elsewhere it says that it does
//! not run. `EVENTLOG_TEST_POWER_CUTS` sets the number of cuts: there are eight kinds, which take turns.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::load::{Load, Writing, check};

const CUTS: u64 = 8;
const SIZE: u64 = 2 << 30;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written any more.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

struct LoopDisk {
    image: PathBuf,
    mounted_at: PathBuf,
    _directory: tempfile::TempDir,
}

/// Runs a command; returns what went wrong, if anything.
fn run(command: &str, args: &[&Path]) -> Result<(), String> {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl LoopDisk {
    fn make() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, mounted_at) =
            (directory.path().join("image"), directory.path().join("mounted"));
        std::fs::create_dir(&mounted_at).map_err(|error| error.to_string())?;
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(SIZE).map_err(|error| error.to_string())?;
        run("mkfs.ext4 -q -F", &[&image])?;
        let disk = Self { image, mounted_at, _directory: directory };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount -o loop", &[&self.image, &self.mounted_at])
    }

    fn cut(&self) -> Result<(), String> {
        let output = Command::new("python3").args(["-c", SHUTDOWN]).arg(&self.mounted_at).output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("python3: {error}")),
        }
    }

    fn unmount(&self) -> Result<(), String> {
        let mut tries = 0;
        loop {
            match run("umount", &[&self.mounted_at]) {
                // Threads may still be closing their files.
                Err(_) if tries < 100 => tries += 1,
                done => return done,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // It may not be mounted.
        let _ = run("umount", &[&self.mounted_at]);
    }
}

#[test]
fn nothing_answered_is_lost_in_a_power_cut() {
    let disk = match LoopDisk::make() {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: no power can be cut here: {reason}"),
    };
    if let Err(reason) = disk.cut() {
        return println!("skipped: no power can be cut here: {reason}");
    }
    disk.unmount().expect("unmounted");
    let cuts = std::env::var("EVENTLOG_TEST_POWER_CUTS").ok();
    let cuts = cuts.and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS);
    let mut subject = Subject { data: disk.mounted_at.join("data"), ..Subject::default() };
    for cut in 0..cuts {
        disk.mount().expect("mounted");
        if free(&disk) < SIZE / 2 {
            std::fs::remove_dir_all(&subject.data).expect("removed");
            subject = Subject { data: subject.data, ..Subject::default() };
        }
        println!("cut {cut}");
        // Checkpoints and changes of files happen all the time.
        let delay = Duration::from_millis(cut * 37 % 400);
        match cut % 8 {
            6 if !subject.loads.is_empty() => subject.cut_while_built_again(&disk, delay / 2),
            6 => subject.cut_while_written(&disk, Load::Mixed, delay),
            7 => {
                // Killed, and started again, before the cut.
                let writing = Writing::start(&subject.data, Load::Mixed);
                writing.wait_for_an_ack();
                subject.acks.extend(writing.kill());
                subject.cut_while_written(&disk, Load::Mixed, delay);
            }
            load => subject.cut_while_written(&disk, Load::ALL[load as usize], delay),
        }
        disk.unmount().expect("unmounted");
        disk.mount().expect("mounted");
        subject.check(cut % 8 != 6);
        disk.unmount().expect("unmounted");
    }
    println!("{cuts} power cuts, {} entries", subject.entries);
}

/// A data directory, and what is known about it.
#[derive(Default)]
struct Subject {
    data: PathBuf,
    loads: Vec<Load>,
    acks: HashMap<u64, u64>,
    entries: u64,
}

impl Subject {
    fn cut_while_written(&mut self, disk: &LoopDisk, load: Load, delay: Duration) {
        if !self.loads.contains(&load) {
            self.loads.push(load);
        }
        let writing = Writing::start(&self.data, load);
        writing.wait_for_an_ack();
        std::thread::sleep(delay);
        disk.cut().expect("cut");
        self.acks.extend(writing.kill());
    }

    /// The database is lost, and rebuilt when it is opened: the power is cut during that.
    fn cut_while_built_again(&mut self, disk: &LoopDisk, delay: Duration) {
        std::fs::remove_file(self.data.join("sled/db")).expect("removed");
        let writing = Writing::start(&self.data, Load::Mixed);
        std::thread::sleep(delay);
        disk.cut().expect("cut");
        self.acks.extend(writing.kill());
    }

    fn check(&mut self, has_more: bool) {
        let now = check(&self.data, &self.loads, &self.acks);
        assert!(now >= self.entries + u64::from(has_more), "something was written");
        self.entries = now;
    }
}

fn free(disk: &LoopDisk) -> u64 {
    let space = rustix::fs::statvfs(&disk.mounted_at).expect("mounted");
    space.f_bavail * space.f_frsize
}
