// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The front-end's end of a connection.

use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::message::Message;

/// How long any action of the device may take, on any machine.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// The size of a header.
const HEADER: usize = 12;
/// The most descriptors of a message: more than the protocol allows.
const DESCRIPTORS: usize = 16;

pub(super) struct FrontEnd(UnixStream);

impl FrontEnd {
    /// Returns `None` if the process has no descriptors left.
    pub(super) fn connect(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(LIMIT)).ok()?;
        stream.set_write_timeout(Some(LIMIT)).ok()?;
        Some(Self(stream))
    }

    /// Sends a message, unless the device has closed the connection.
    pub(super) fn send(&self, message: &Message) {
        self.send_part(message, usize::MAX);
    }

    pub(super) fn send_all(&self, messages: impl Iterator<Item = Message>) {
        messages.for_each(|message| self.send(&message));
    }

    /// Sends the first bytes of a message, with its descriptors.
    pub(super) fn send_part(&self, message: &Message, most: usize) {
        let bytes = message.encode();
        let bytes = &bytes[..most.min(bytes.len())];
        let borrowed: Vec<_> = message.descriptors.iter().map(AsFd::as_fd).collect();
        let borrowed = &borrowed[..borrowed.len().min(DESCRIPTORS)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(borrowed));
        }
        // The device may have had reason to close the connection.
        let _ = sendmsg(
            &self.0,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
    }

    /// Reads the replies that have arrived.
    pub(super) fn read_some(&self) {
        let mut buf = [0; 1024];
        let _ = recv(&self.0, &mut buf[..], RecvFlags::DONTWAIT);
    }

    /// Sends a message and waits for its reply or acknowledgement.
    pub(super) fn ask(&mut self, mut message: Message, answered: bool) {
        message.need_reply = !answered;
        self.send(&message);
        let mut header = [0; HEADER];
        self.0.read_exact(&mut header).expect("a reply");
        let [request, _, size] = [0, 4, 8].map(|at| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        });
        assert_eq!(request, message.request);
        let mut body = vec![0; size as usize];
        self.0.read_exact(&mut body).expect("a reply's body");
        assert!(
            answered || body == [0; 8],
            "{request} was refused: {body:?}"
        );
    }

    /// Ends the sending direction, and waits until the device closes the connection.
    pub(super) fn finish(&mut self) {
        if self.0.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut buf = [0; 4096];
        loop {
            match self.0.read(&mut buf) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the device does not end the session")
                }
                Err(_) => return,
            }
        }
    }
}
