//! Ends a connection's socket from outside its task, which may not be running.
//!
//! The socket belongs to actix, which lends it once, when it connects. The plain way is to duplicate it then, but that
//! doubles the file descriptors of every connection, which systems limit, for the few that are ever severed. So only
//! the descriptor's number is kept, with the cookie by which the kernel tells sockets apart, and the duplicate is made
//! when it is needed. Duplicating by number takes `pidfd_getfd(2)` on our own process: `/proc/self/fd` opens no
//! sockets, `SOCK_DESTROY` needs privileges, and the other ways in the standard library and `rustix` take the socket
//! itself. The duplicate stays the same socket whatever happens to the number, so checking its cookie settles whose it
//! is.
//!
//! A duplicate takes a descriptor for a moment. If the process has none left, the connection is severed in a later
//! round: WebSocket sessions cannot have taken the last ones, because their number is bounded, but requests can, and they have
//! only seconds to arrive.
//!
//! Where the system has no such call or forbids it, as the default filters of containers do, the duplicate is made at
//! once.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;

use actix_web::rt::net::TcpStream;
use socket2::Socket;

/// What the watchdog uses to end a connection's socket.
#[derive(Clone, Debug)]
pub(super) enum Severable {
    #[cfg(target_os = "linux")]
    Named(named::Name),
    /// A descriptor of its own.
    Held(Arc<Socket>),
}

impl Severable {
    /// # Errors
    ///
    /// The process has too many files open.
    pub(super) fn of(stream: &TcpStream) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(name) = named::Name::of(stream) {
            return Ok(Self::Named(name));
        }
        Self::held(stream)
    }

    fn held(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self::Held(Arc::new(Socket::from(stream.as_fd().try_clone_to_owned()?))))
    }

    /// Ends the socket in both directions; `false` if it is gone, or cannot be reached now.
    pub(super) fn sever(&self) -> bool {
        let severed = match self {
            #[cfg(target_os = "linux")]
            Self::Named(name) => {
                name.duplicate().and_then(|socket| socket.shutdown(Shutdown::Both))
            }
            Self::Held(socket) => socket.shutdown(Shutdown::Both),
        };
        if let Err(error) = &severed {
            log::debug!("severing a connection: {error}");
        }
        severed.is_ok()
    }
}

/// How many files a connection takes of the process's limit on open files: 1, or 2 where the server cannot reach a
/// socket by its number.
pub fn files_per_connection() -> u64 {
    #[cfg(target_os = "linux")]
    if named::is_possible() {
        return 1;
    }
    2
}

#[cfg(target_os = "linux")]
mod named {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd, RawFd};
    use std::sync::LazyLock;

    use actix_web::rt::net::TcpStream;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    use socket2::{SockRef, Socket};

    /// Our own process, if its descriptors can be duplicated by number. Determined once: a filter does not go away.
    static PROCESS: LazyLock<Option<OwnedFd>> = LazyLock::new(|| {
        let process = pidfd_open(getpid(), PidfdFlags::empty());
        let probed = process.and_then(|process| {
            pidfd_getfd(&process, process.as_raw_fd(), PidfdGetfdFlags::empty()).map(|_| process)
        });
        let told =
            |error: &_| log::info!("each connection takes two descriptors: pidfd_getfd: {error}");
        probed.inspect_err(told).ok()
    });

    /// Whether a socket can be found by its name.
    pub(super) fn is_possible() -> bool {
        PROCESS.is_some()
    }

    /// A socket of this process, kept by name.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::server) struct Name {
        descriptor: RawFd,
        cookie: u64,
    }

    impl Name {
        /// `None` where a socket cannot be found by its name.
        pub(super) fn of(stream: &TcpStream) -> Option<Self> {
            PROCESS.as_ref()?;
            let cookie = SockRef::from(stream).cookie().ok()?;
            Some(Self { descriptor: stream.as_raw_fd(), cookie })
        }

        /// # Errors
        ///
        /// The socket is closed, or the process has too many files open.
        pub(super) fn duplicate(self) -> io::Result<Socket> {
            let process = PROCESS.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            let socket = pidfd_getfd(process, self.descriptor, PidfdGetfdFlags::empty())?;
            let socket = Socket::from(socket);
            if socket.cookie()? == self.cookie {
                return Ok(socket);
            }
            Err(io::Error::new(io::ErrorKind::NotFound, "another socket has its number"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream as Plain};
    use std::os::fd::OwnedFd;

    use super::*;

    /// The two ends of a connection.
    fn connect(listener: &TcpListener) -> (TcpStream, Plain) {
        let peer = Plain::connect(listener.local_addr().expect("an address")).expect("a peer");
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_nonblocking(true).expect("a mode");
        (TcpStream::from_std(stream).expect("a stream"), peer)
    }

    fn is_ended(mut peer: Plain) -> bool {
        matches!(peer.read(&mut [0; 1]), Ok(0))
    }

    #[actix_web::test]
    async fn a_socket_is_severed_by_its_name_and_by_a_duplicate() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        for sever in [Severable::of, Severable::held] {
            let (stream, peer) = connect(&listener);
            let severable = sever(&stream).expect("a severable");
            assert!(severable.sever());
            assert!(is_ended(peer));
            drop(stream);
        }
    }

    #[cfg(target_os = "linux")]
    #[actix_web::test]
    async fn what_has_the_number_of_a_closed_socket_is_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let (closed, _gone) = connect(&listener);
        let severable = Severable::of(&closed).expect("a severable");
        if matches!(severable, Severable::Held(_)) {
            eprintln!("skipped: the system does not let a process duplicate by number");
            return;
        }
        let (later, peer) = connect(&listener);
        // Takes the place of the first, whatever other tests open meanwhile.
        let mut closed = OwnedFd::from(closed.into_std().expect("a socket"));
        rustix::io::dup2(&later, &mut closed).expect("its number");
        assert!(!severable.sever());
        peer.set_nonblocking(true).expect("a mode");
        let read = (&peer).read(&mut [0; 1]);
        assert_eq!(read.expect_err("it is open").kind(), io::ErrorKind::WouldBlock);
    }
}
