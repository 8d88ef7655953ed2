//! The msgpack protocol against the codec that JavaScript clients use (what we write they read, what they write we read),
//! and the RPC protocol against the clients of `effect` themselves.
//!
//! They run in `node`, with the npm packages of `package-lock.json`, installed when they are missing. Without `node`
//! these tests say that they did not run, and so do those in a browser without Chromium; where the environment has `CI=true` that is a failure.

mod browser;
mod codec;
mod console;
mod live;
pub mod node;
pub mod stock;
mod wrong_peers;
