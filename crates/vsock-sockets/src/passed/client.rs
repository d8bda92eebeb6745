// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client that may pass a descriptor, from its connection until its command is complete.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recv, recvmsg,
};
use thiserror::Error;

use super::command::{Command, CommandError, KEYWORD, Opening, REST};
use crate::unix::closer;
use crate::unix::guarded_socket::GuardedSocket;

/// The maximum length of a command.
const MOST: usize = KEYWORD.len() + REST;

/// The reason for refusing a client.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub(super) enum RefusedClient {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("expected one descriptor with the port, found {0}")]
    Descriptors(usize),
    #[error("cannot receive its descriptor: the limit on open descriptors is reached")]
    NoRoom,
    #[error("it disconnected before its command was complete")]
    Left,
    #[error("too many files wait to be closed")]
    Busy,
    #[error("its socket failed: {0}")]
    Socket(Errno),
}

/// The state of a client's command.
pub(super) enum Said {
    /// The command is not complete yet.
    Part,
    /// The client does not pass a descriptor. None of its bytes have been read.
    Other,
    /// The client has passed a descriptor, with this command.
    Descriptor(OwnedFd, Command),
}

/// A client whose command is not complete.
#[derive(Debug)]
pub(super) struct Client {
    socket: GuardedSocket,
    /// The part of the command that was read. It stays empty until the whole keyword has arrived.
    text: Vec<u8>,
    files: Files,
}

/// The files that arrived with a command. When dropped, remaining files go to the closer thread,
/// because closing them can block.
#[derive(Debug, Default)]
struct Files(Vec<OwnedFd>);

impl Client {
    pub(super) fn new(socket: GuardedSocket) -> Self {
        Self {
            socket,
            text: Vec::new(),
            files: Files::default(),
        }
    }

    /// Returns the socket, which refuses further files.
    pub(super) fn into_socket(mut self) -> GuardedSocket {
        self.socket.refuse_files();
        self.socket
    }

    /// Reads the bytes that have arrived. `end` says that the client sends no more.
    pub(super) fn read(&mut self, end: bool) -> Result<Said, RefusedClient> {
        // Until the keyword is complete, only peek: if this turns out to be another command, the
        // device must read it from the beginning.
        if self.text.is_empty() {
            match self.peek()? {
                Opening::Keyword => {}
                Opening::Part if !end => return Ok(Said::Part),
                Opening::Part | Opening::Other => return Ok(Said::Other),
            }
        }
        while !self.is_whole() {
            match self.receive() {
                Ok(()) => {}
                Err(RefusedClient::Socket(Errno::AGAIN)) => return Ok(Said::Part),
                Err(error) => return Err(error),
            }
        }
        let command = Command::parse(self.text.get(KEYWORD.len()..).unwrap_or_default())?;
        match (self.files.0.pop(), self.files.0.len()) {
            (Some(file), 0) => Ok(Said::Descriptor(file, command)),
            (Some(file), others) => {
                self.files.0.push(file);
                Err(RefusedClient::Descriptors(others.saturating_add(1)))
            }
            (None, _) => Err(RefusedClient::Descriptors(0)),
        }
    }

    /// Returns whether the command is complete: the descriptor has arrived, or a newline after the
    /// port, or the command is too long.
    fn is_whole(&self) -> bool {
        let rest = self.text.get(KEYWORD.len()..).unwrap_or_default();
        !self.files.0.is_empty() || rest.contains(&b'\n') || self.text.len() >= MOST
    }

    fn peek(&self) -> Result<Opening, RefusedClient> {
        let mut buffer = [0; KEYWORD.len()];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        loop {
            return match recv(&self.socket, &mut buffer[..], flags) {
                // A client that has sent nothing and ends is handled by the device.
                Ok((_, 0)) => Ok(Opening::Other),
                Ok((_, len)) => Ok(Opening::of(buffer.get(..len).unwrap_or_default())),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(Opening::Part),
                Err(error) => Err(RefusedClient::Socket(error)),
            };
        }
    }

    /// Receives a part of the command, and the files that arrive with it.
    fn receive(&mut self) -> Result<(), RefusedClient> {
        if closer::is_busy() {
            return Err(RefusedClient::Busy);
        }
        let mut buffer = [0; MOST];
        let left = MOST.saturating_sub(self.text.len());
        let mut pieces = [IoSliceMut::new(buffer.get_mut(..left).unwrap_or_default())];
        let mut room =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(253))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = loop {
            match recvmsg(&self.socket, &mut pieces, &mut control, flags) {
                Err(Errno::INTR) => {}
                result => break result.map_err(RefusedClient::Socket)?,
            }
        };
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = part {
                self.files.0.extend(files);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(RefusedClient::NoRoom);
        }
        if message.bytes == 0 {
            return Err(RefusedClient::Left);
        }
        let piece = buffer.get(..message.bytes).unwrap_or_default();
        self.text.extend_from_slice(piece);
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.0.drain(..).for_each(closer::close);
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
