// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host components in other processes: connections over Unix sockets, in the hybrid way.

mod backend;
mod door;
mod pieces;
mod seqpacket_backend;
mod seqpacket_stream;
mod stream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;

pub use backend::UnixBackend;
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
