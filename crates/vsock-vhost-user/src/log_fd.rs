// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `SET_LOG_FD`, a request that the `vhost` crate does not answer. It passes an eventfd for a
//! front-end that wants to be woken when a page has been marked.
//!
//! The request comes from the interface of the kernel's vhost devices. Front-ends of vhost-user
//! read the log when they choose, and no known one waits for the eventfd. So the device receives
//! the descriptor and closes it, as other devices do.

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{Error as ProtocolError, Result as Answer};

/// The size of a header in bytes: the request, the flags, and the length of the body.
const HEADER: usize = 12;
/// The flags: the protocol version 1, a reply, a request for a reply.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Receives the request, which must be the next one, and replies if the front-end wants a reply.
pub(crate) fn take(socket: &UnixStream) -> Answer<()> {
    let (header, files) = receive(socket)?;
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
    let (flags, body) = (word(4), word(8));
    if flags & (VERSION_MASK | REPLY) != VERSION || body != 0 {
        return Err(ProtocolError::InvalidMessage);
    }
    if files != 1 {
        return Err(ProtocolError::IncorrectFds);
    }
    if flags & NEED_REPLY != 0 {
        let header = [FrontendReq::SET_LOG_FD.into(), VERSION | REPLY, 8_u32];
        let header = header.map(u32::to_ne_bytes).concat();
        let answer = [&header[..], &[0; 8]].concat();
        let mut writer = socket;
        writer
            .write_all(&answer)
            .map_err(ProtocolError::SocketBroken)?;
    }
    Ok(())
}

/// Reads a header and closes the files that came with it. Returns the header and their number.
fn receive(socket: &UnixStream) -> Answer<([u8; HEADER], usize)> {
    let (mut header, mut len, mut files) = ([0; HEADER], 0, 0);
    while len < HEADER {
        // Room for one more file than is allowed, so that too many are noticed.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let part = &mut [IoSliceMut::new(&mut header[len..])];
        match recvmsg(socket, part, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(ProtocolError::SocketBroken(error.into())),
            Ok(received) if received.bytes == 0 => return Err(ProtocolError::Disconnected),
            Ok(received) => len += received.bytes,
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                files += passed.count();
            }
        }
    }
    Ok((header, files))
}
