// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kernel calls that `std` does not offer: receiving descriptors, and looking for a hang-up.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// The maximum number of descriptors in a message (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// Returns whether the kernel reports that the peer has closed. A peer that has shut down both
/// directions looks the same.
pub(super) fn peer_gone(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let gone = PollFlags::HUP | PollFlags::ERR;
    poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().intersects(gone)
}

/// Receives bytes and descriptors. Sets close-on-exec, and closes descriptors that do not fit.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    fds: &mut [RawFd],
) -> io::Result<(usize, usize)> {
    if bytes.is_empty() {
        return Ok((0, 0));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(bytes)];
        recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut places = fds.iter_mut();
    let mut count = 0;
    for message in control.drain() {
        let RecvAncillaryMessage::ScmRights(came) = message else {
            continue;
        };
        for fd in came {
            if let Some(place) = places.next() {
                *place = fd.into_raw_fd();
                count += 1;
            }
        }
    }
    Ok((received.bytes, count))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{ErrorKind, IoSlice, Read, Write};
    use std::mem::MaybeUninit;
    use std::net::Shutdown;
    use std::os::fd::{AsFd, RawFd};
    use std::os::unix::net::UnixStream;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use crate::VsockStream;

    fn pass(socket: &UnixStream, bytes: &[u8], fds: &[&UnixStream]) {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let parts = [IoSlice::new(bytes)];
        sendmsg(socket, &parts, &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn descriptors_come_with_their_bytes_and_are_close_on_exec() {
        let (near, far) = UnixStream::pair().unwrap();
        let (passed, mut other) = UnixStream::pair().unwrap();
        pass(&far, b"take", &[&passed]);
        drop(passed);
        let (mut bytes, mut fds) = ([0; 8], [-1; 4]);
        assert_eq!(near.recv_data_fd(&mut bytes, &mut fds).unwrap(), (4, 1));
        assert_eq!((&bytes[..4], &fds[1..]), (&b"take"[..], &[-1; 3][..]));
        let path = |fd: RawFd| format!("/proc/self/fd/{fd}");
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fds[0])).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_eq!(flags & 0o2_000_000, 0o2_000_000);
        let link = fs::read_link(path(fds[0])).unwrap();
        assert!(link.to_str().unwrap().starts_with("socket:"), "{link:?}");
        other.write_all(b"still open").unwrap();
    }

    #[test]
    fn descriptors_that_do_not_fit_are_closed() {
        let (near, far) = UnixStream::pair().unwrap();
        let passed = [(); 3].map(|()| UnixStream::pair().unwrap());
        let fds: Vec<_> = passed.iter().map(|(fd, _)| fd).collect();
        pass(&far, b"x", &fds);
        let mut others = passed.map(|(_, other)| other);
        for other in &others {
            other.set_nonblocking(true).unwrap();
        }
        let mut place = [-1];
        assert_eq!(near.recv_data_fd(&mut [0; 8], &mut place).unwrap(), (1, 1));
        assert_eq!(others[1].read(&mut [0]).unwrap(), 0, "not closed");
        assert_eq!(others[2].read(&mut [0]).unwrap(), 0, "not closed");
        let open = others[0].read(&mut [0]).unwrap_err();
        assert_eq!(open.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn bytes_arrive_without_descriptors_too() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        VsockStream::set_nonblocking(&mut near, true).unwrap();
        let nothing = near.recv_data_fd(&mut [0; 8], &mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        far.write_all(b"plain").unwrap();
        assert_eq!(near.recv_data_fd(&mut [], &mut [0]).unwrap(), (0, 0));
        assert_eq!(near.recv_data_fd(&mut [0; 8], &mut []).unwrap(), (5, 0));
        drop(far);
        assert_eq!(near.recv_data_fd(&mut [0; 8], &mut [0]).unwrap(), (0, 0));
    }

    #[test]
    fn a_closed_peer_is_seen_and_a_half_close_is_not_one() {
        let (near, far) = UnixStream::pair().unwrap();
        assert!(!near.peer_gone());
        far.shutdown(Shutdown::Write).unwrap();
        assert!(!near.peer_gone());
        drop(far);
        assert!(near.peer_gone());
    }
}
