//! The `eventlog-server` binary: see `eventlog-server help`.

#[expect(clippy::disallowed_methods, reason = "commands read files, and measure")]
mod cli;
mod config;

/// Batches are allocated on the threads of sessions and freed on those of stores and of the disk, which the allocators
/// of most systems do slowly. Compared with glibc's, in one run: 700,000 one-entry writes/s instead of 580,000, 2.2
/// million entries/s instead of 1.95 in large batches; 122 MiB resident instead of 72, and 30 instead of 20 with one
/// client.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Buffers of large messages are returned to the system as soon as they are free. If they were kept for the next one,
/// as smaller ones are, each thread would keep some of every size that a message had while it grew: 21 of 76 MiB, with
/// 500 connections that sent halves of 16 MiB. Up to 5 MiB are kept: sled takes 4 MiB, aligned, for each 4 MiB that it
/// writes, and new memory costs more than writing to it. (With these returned, ingesting has three to four
/// times as many page faults.)
#[cfg(not(target_env = "msvc"))]
#[expect(unsafe_code, reason = "jemalloc finds its settings by the name of a symbol")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 27] = b"oversize_threshold:5242881\0";

fn main() -> std::process::ExitCode {
    cli::run()
}
