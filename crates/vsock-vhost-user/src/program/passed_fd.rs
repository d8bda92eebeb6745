// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors that the program is passed by number.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// The descriptor with this number, which is closed on exec from then on; `None` if it is not open.
/// It is passed through a pair of sockets, because nothing safe owns a number. To be called before
/// the program opens anything, which could get the number of a descriptor that was not passed.
pub(crate) fn take(number: RawFd) -> io::Result<Option<OwnedFd>> {
    let (from, to) = UnixStream::pair()?;
    if [from.as_raw_fd(), to.as_raw_fd()].contains(&number) {
        return Ok(None);
    }
    match from.send_with_fd(&[0_u8][..], number) {
        Ok(_) => {}
        Err(error) if error.errno() == Errno::BADF.raw_os_error() => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let byte = &mut [0];
    let part = &mut [IoSliceMut::new(byte)];
    recvmsg(&to, part, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
        _ => None,
    });
    if passed.is_some() {
        // The other end sees the end of a connection when this process closes what it owns.
        nix::unistd::close(number)?;
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_open_is_none() {
        assert!(take(100_000).unwrap().is_none());
    }
}
