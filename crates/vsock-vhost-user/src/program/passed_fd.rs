// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors that were passed to the program by number.

use std::ffi::OsStr;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketType, getsockname,
    recvmsg,
};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Takes the descriptor with this number and marks it close-on-exec. Returns `None` if it is not
/// open.
///
/// No safe function turns a number into an [`OwnedFd`], so the descriptor is sent over a pair of
/// sockets and the original is closed. Call this before the program opens any file: a new file
/// could get the number of a descriptor that was announced and not passed.
pub(crate) fn take(number: RawFd) -> io::Result<Option<OwnedFd>> {
    let (from, to) = UnixStream::pair()?;
    // The pair got this number, so it was free.
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
        // Otherwise this second descriptor would keep a connection open after the first is closed.
        nix::unistd::close(number)?;
    }
    Ok(passed)
}

/// Returns the type of a listening Unix socket, and its path if it has one in the file system.
/// Returns `None` if the descriptor is anything else.
pub(crate) fn listener(fd: &OwnedFd) -> Option<(SocketType, Option<PathBuf>)> {
    if socket_acceptconn(fd) != Ok(true) {
        return None;
    }
    let address = SocketAddrUnix::try_from(getsockname(fd).ok()?).ok()?;
    let path = address.path_bytes().map(OsStr::from_bytes);
    Some((socket_type(fd).ok()?, path.map(PathBuf::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_open_gives_none() {
        assert!(take(100_000).unwrap().is_none());
    }
}
