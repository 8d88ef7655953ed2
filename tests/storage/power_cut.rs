//! A power cut: a file system on a loop device is shut down while another process writes to it, so that everything
//! is gone that was not on disk at that moment; then it is mounted again.
//!
//! Needs Linux, root, `mkfs.ext4`, loop devices, and `python3` for the one system call; elsewhere it says that it does
//! not run. `EVENTLOG_TEST_POWER_CUTS` sets the number of cuts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::load::{Writing, check};

const CUTS: u64 = 4;
const SIZE: u64 = 512 << 20;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written any more.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

struct LoopDisk {
    image: PathBuf,
    mounted_at: PathBuf,
    _directory: tempfile::TempDir,
}

/// Runs a command; what went wrong, if something did.
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
                // Threads may still be letting go of their files.
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
    let data = disk.mounted_at.join("data");
    let (mut acks, mut entries) = (HashMap::new(), 0);
    for cut in 0..cuts {
        disk.mount().expect("mounted");
        if free(&disk) < SIZE / 2 {
            std::fs::remove_dir_all(&data).expect("removed");
            (acks, entries) = (HashMap::new(), 0);
        }
        let writing = Writing::start(&data);
        writing.wait_for_an_ack();
        std::thread::sleep(Duration::from_millis(cut * 37 % 400));
        disk.cut().expect("cut");
        acks.extend(writing.kill());
        disk.unmount().expect("unmounted");

        disk.mount().expect("mounted");
        let now = check(&data, &acks);
        assert!(now > entries, "cut {cut}: something was written");
        entries = now;
        disk.unmount().expect("unmounted");
    }
    println!("{cuts} power cuts, {entries} entries");
}

fn free(disk: &LoopDisk) -> u64 {
    let space = rustix::fs::statvfs(&disk.mounted_at).expect("mounted");
    space.f_bavail * space.f_frsize
}
