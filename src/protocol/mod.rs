//! Bytes to messages and back.
//!
//! Keeps: decoding never panics, never allocates on the word of a length, never recurses; what is encoded can be read
//! by the clients of the protocol. Leaves out: sockets and timers (`server`, `actors`), and what a message leads to.
//! Nothing here reads a clock: where time matters it is passed in.

pub mod chunk;
pub(crate) mod grow;
pub mod lines;
pub mod msgpack;
pub(crate) mod peers;
pub mod rpc;
