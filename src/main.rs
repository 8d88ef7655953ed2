//! The `eventlog-server` binary.

fn main() {}
