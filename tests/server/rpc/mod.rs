//! The protocol of Effect's own clients over real sockets: what `docs/PROTOCOL-RPC.md` promises them.

mod broken;
mod compaction;
mod feeds;
mod handshake;
mod large;
mod parts;
mod quarantine;
mod stores;
mod writes;
