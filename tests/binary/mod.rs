//! The binary as people and scripts use it: its commands, what they print, how they end.

mod audit;
mod bench;
mod callback;
mod command_line;
mod descriptors;
mod dist;
mod durability;
mod jwt;
mod logged;
mod process;
mod proof;
mod quotas;
mod rpc;
mod tour;
