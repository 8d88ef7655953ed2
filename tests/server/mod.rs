//! The server over real sockets.

mod feed;
