//! Finds `node`, and installs what the scripts need.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Where the scripts and their packages are.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js")
}

/// `node` with one of our scripts; `None`, with a message, if there is no `node` here.
pub fn script(name: &str) -> Option<Command> {
    let mut command = node(name)?;
    command.arg(directory().join(name)).current_dir(directory());
    Some(command)
}

/// `node` with one of the scripts that are Effect's own server on a database.
pub fn sql_script(name: &str) -> Option<Command> {
    let mut command = node(name)?;
    let folder = directory().join("sql");
    install(&folder);
    command.arg(folder.join(name)).current_dir(folder);
    Some(command)
}

/// `node` with one of the examples, as if its packages were installed next to it in `beside`.
pub fn example(name: &str, beside: &Path) -> Option<Command> {
    let mut command = node(name)?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    std::fs::copy(example, beside.join(name)).expect("a copy");
    let packages = directory().join("node_modules");
    std::os::unix::fs::symlink(packages, beside.join("node_modules")).expect("a link");
    command.arg(beside.join(name)).current_dir(beside);
    Some(command)
}

/// `node` with the packages installed.
fn node(name: &str) -> Option<Command> {
    let found = Command::new("node").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have node");
        // The test's own output is hidden when it passes.
        let _ = writeln!(std::io::stderr(), "not run: there is no node, so {name} cannot be used");
        return None;
    }
    install(&directory());
    Some(Command::new("node"))
}

/// Chromium, under one of its names; `None`, with a message, if there is none here.
pub fn chromium(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| {
            ["chromium", "chromium-browser", "google-chrome"].map(|it| folder.join(it))
        })
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have Chromium");
        // The test's own output is hidden when it passes.
        let _ =
            writeln!(std::io::stderr(), "not run: there is no Chromium, so {name} cannot be used");
    }
    found
}

/// Builds the application in `examples/browser`, with its own packages.
pub fn build_application() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/browser");
    install(&folder);
    let built = Command::new("npm").args(["run", "build"]).current_dir(&folder).output();
    let built = built.expect("npm comes with node");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stdout));
}

/// Installs the packages of this folder, if there is node.
pub fn packages(name: &str) -> bool {
    node(name).is_some()
}

/// Installs the packages of a folder, unless that was done since the lock file changed. Tests may run in separate
/// processes, so a file lock lets one of them do it while the others wait.
fn install(folder: &Path) {
    let lock_path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm.lock");
    let lock = File::create(lock_path).expect("a lock file");
    lock.lock().expect("the lock");
    let changed = |path: &str| folder.join(path).metadata().and_then(|m| m.modified()).ok();
    if changed("node_modules/.package-lock.json") > changed("package-lock.json") {
        return;
    }
    let installed = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .output()
        .expect("npm comes with node");
    let problem = String::from_utf8_lossy(&installed.stderr);
    assert!(installed.status.success(), "npm ci failed: {problem}");
}

/// Runs jobs through `codec.mjs`, all in one process, and returns their results; `None` without `node`.
pub fn codec(jobs: &[Value]) -> Option<Vec<Value>> {
    let mut command = script("codec.mjs")?;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node starts");
    let mut input = child.stdin.take().expect("a pipe");
    let lines: Vec<String> = jobs.iter().map(Value::to_string).collect();
    let writer = std::thread::spawn(move || {
        for line in lines {
            writeln!(input, "{line}").expect("node reads");
        }
    });
    let output = child.wait_with_output().expect("node ends");
    writer.join().expect("all jobs are written");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let results: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(results.len(), jobs.len());
    Some(results)
}
