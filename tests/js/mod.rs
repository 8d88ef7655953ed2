//! The msgpack protocol against the codec that JavaScript clients use (they read what we write, and we read what they
//! write), and the RPC protocol against the clients of `effect` themselves.
//!
//! They run in `node`, with the npm packages of `package-lock.json`, installed when they are missing. Without `node`
//! these tests say that they did not run, and so do those in a browser without Chromium; with `CI=true` in the
//! environment they fail.

mod browser;
mod codec;
mod console;
mod live;
pub mod node;
pub mod stock;
mod wrong_peers;
