// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host components in other processes: connections over Unix sockets, in the hybrid way.

mod backend;
mod door;
mod pieces;
mod rights;
mod seqpacket_backend;
mod seqpacket_stream;
mod stream;

use std::io;
use std::net::Shutdown;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::net;

pub use backend::UnixBackend;
pub(crate) use rights::Guarded;
pub use seqpacket_backend::UnixSeqpacketBackend;
pub use seqpacket_stream::UnixSeqpacketStream;
pub use stream::UnixVsockStream;

/// Whether a socket's peer is gone, as far as the system tells: where both directions were shut down, by
/// whichever side, it looks the same.
fn is_left(socket: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let gone = PollFlags::HUP | PollFlags::ERR;
    poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().intersects(gone)
}

fn shutdown(socket: &impl AsFd, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => net::Shutdown::Read,
        Shutdown::Write => net::Shutdown::Write,
        Shutdown::Both => net::Shutdown::Both,
    };
    Ok(net::shutdown(socket, how)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{IoSlice, Write};
    use std::os::unix::net::UnixStream;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::process::Signal;
    use vm_memory::VolatileSlice;
    use vmm_sys_util::signal::{block_signal, clear_signal};
    use vsock_backend_api::VsockVolatileStream;

    use super::*;

    /// Whether a signal for a broken pipe waits for this thread, which blocks it.
    fn is_pending() -> bool {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let signals = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
        let signals = u64::from_str_radix(signals.unwrap().trim(), 16).unwrap();
        signals & (1 << (Signal::PIPE.as_raw() - 1)) != 0
    }

    fn broken() -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        near
    }

    fn stream() -> UnixVsockStream {
        UnixVsockStream::new(broken())
    }

    #[test]
    fn t68_no_write_to_somebody_who_has_gone_raises_a_signal() {
        let pipe = Signal::PIPE.as_raw();
        // A signal that is ignored, as by Rust's programs, waits nevertheless while it is blocked.
        block_signal(pipe).unwrap();
        rustix::io::write(broken(), b"x").unwrap_err();
        assert!(is_pending(), "it would be seen");
        clear_signal(pipe).unwrap();

        stream().write(b"x").unwrap_err();
        assert!(!is_pending());
        stream().write_vectored(&[IoSlice::new(b"x")]).unwrap_err();
        assert!(!is_pending());
        let mut byte = [1];
        let piece = VolatileSlice::from(&mut byte[..]);
        stream().write_volatile_vectored(&[piece]).unwrap_err();
        assert!(!is_pending());
        let flags = SocketFlags::CLOEXEC;
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut messages = UnixSeqpacketStream::new(near).unwrap();
        drop(far);
        messages.write(b"x").unwrap_err();
        assert!(!is_pending());
    }
}
