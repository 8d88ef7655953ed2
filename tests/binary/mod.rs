//! The binary as people and scripts use it: its commands, what they print, how they end.

mod audit;
mod backup;
mod bench;
mod callback;
mod canaries;
mod command_line;
mod descriptors;
mod dist;
mod drain;
mod durability;
mod grants;
mod jwt;
mod large;
mod logged;
mod newcomers;
mod pages;
mod process;
mod proof;
mod proxies;
mod quotas;
mod revocations;
mod rpc;
mod strangers;
mod tail;
mod tour;
mod wrong_peers;
