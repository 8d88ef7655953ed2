//! The log in a real folder, with what can happen to its files.

mod basics;
mod damage;
mod ends;
mod failures;
mod files;
mod ground;
