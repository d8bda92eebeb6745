// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the muxer asks of the guest's side: the payload of a packet, and buffers to fill.

use std::io::{ErrorKind, IoSlice};

use vsock_backend_api::{VsockMessages, VsockStream};
use vsock_proto::{Header, MessageFlags, Progress};

use crate::stream_calls::{read, send_message, write_bytes};

/// The payload of one packet from the guest, wherever it lies: the `len` bytes after the header.
///
/// Each method goes on where the last call stopped. Bytes in plain memory are one: `&[u8]`.
pub trait GuestPayload {
    /// Writes what is left to the stream, in as few calls as it can, and stops at the first call
    /// that takes less than it was offered. `Done` counts the bytes that were taken; once any were,
    /// nothing else is reported but a failure: the next call will find out. An interrupted call is
    /// repeated.
    fn write_to(&mut self, stream: &mut dyn VsockStream) -> Progress;

    /// Sends what is left, which is a whole message or nothing, in one call: `Done` when the stream
    /// has taken it, else nothing was taken. An interrupted call is repeated.
    ///
    /// The default takes the message to be refused (`Pending`): it is then copied, and sent from
    /// the copy.
    fn send_to(&mut self, _stream: &mut dyn VsockMessages, _flags: MessageFlags) -> Progress {
        Progress::Pending
    }

    /// Fills `dst` with the next bytes; the caller never asks for more than are left.
    fn copy_to(&mut self, dst: &mut [u8]);
}

impl GuestPayload for &[u8] {
    fn write_to(&mut self, stream: &mut dyn VsockStream) -> Progress {
        let progress = write_bytes(stream, self, &[]);
        if let Progress::Done(taken) = progress {
            *self = self.get(taken..).unwrap_or_default();
        }
        progress
    }

    fn send_to(&mut self, stream: &mut dyn VsockMessages, flags: MessageFlags) -> Progress {
        send_message(stream, &[IoSlice::new(self)], flags)
    }

    fn copy_to(&mut self, dst: &mut [u8]) {
        let (next, rest) = self.split_at(dst.len().min(self.len()));
        if let Some(dst) = dst.get_mut(..next.len()) {
            dst.copy_from_slice(next);
        }
        *self = rest;
    }
}

/// How much may be read from a stream for the guest in one call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allowance {
    /// Bytes altogether: the guest's credit. At least 1.
    pub bytes: usize,
    /// Packets altogether. At least 1.
    pub packets: usize,
    /// Bytes in one packet. At least 1.
    pub packet_bytes: usize,
}

/// The buffers that the guest has provided for packets.
pub trait GuestBuffers {
    /// Bytes that the next buffer has after a header; `None` while there is no buffer.
    ///
    /// A buffer that cannot hold a header is given back to the guest unused and does not count.
    fn room(&mut self) -> Option<usize>;

    /// Puts a packet without payload into the next buffer and gives it to the guest. Only called
    /// after [`room`](Self::room) has said that there is one.
    fn put(&mut self, header: &Header) {
        self.put_bytes(header, &[]);
    }

    /// Puts a packet into the next buffer whose payload is in memory already. Only called with at
    /// most [`room`](Self::room) bytes.
    fn put_bytes(&mut self, header: &Header, payload: &[u8]);

    /// Reads from the stream into the next buffers: one packet for each buffer, within the
    /// allowance, in as few calls as it can. For each buffer that got bytes, `packet` makes the
    /// header for so many, and the buffer is given to the guest. A buffer that got none stays the
    /// next one.
    ///
    /// Only called while [`room`](Self::room) is at least 1, so a read of 0 bytes is the end of the
    /// stream. `Done` counts the bytes altogether; once any came, nothing else is reported but a
    /// failure, which a stream may tell only once.
    ///
    /// The default reads into memory of its own, from where it [puts](Self::put_bytes) the bytes
    /// into one buffer after the other.
    fn fill(
        &mut self,
        stream: &mut dyn VsockStream,
        allowance: Allowance,
        packet: &mut dyn FnMut(usize) -> Header,
    ) -> Progress {
        let (mut bytes, mut packets, mut memory) = (0, 0, Vec::new());
        while bytes < allowance.bytes && packets < allowance.packets {
            let Some(room @ 1..) = self.room() else {
                break;
            };
            let most = room.min(allowance.bytes - bytes);
            memory.resize(most.min(allowance.packet_bytes), 0);
            let found = match read(stream, &mut memory) {
                Ok(len @ 1..) if len <= memory.len() => {
                    self.put_bytes(&packet(len), memory.get(..len).unwrap_or_default());
                    bytes += len;
                    packets += 1;
                    continue;
                }
                Ok(0) => Progress::Closed,
                Err(ErrorKind::WouldBlock) => Progress::Pending,
                Ok(_) | Err(_) => return Progress::Failed,
            };
            if bytes == 0 {
                return found;
            }
            break;
        }
        Progress::Done(bytes)
    }
}
