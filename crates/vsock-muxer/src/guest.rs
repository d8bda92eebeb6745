// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's side, as the muxer uses it: the payload of a packet, and buffers to fill.

use std::io::{ErrorKind, IoSlice};

use vsock_backend_api::{VsockMessages, VsockStream};
use vsock_proto::{Header, MessageFlags, Progress};

use crate::stream_calls::{read, send_message, write_bytes};

/// The payload of one packet from the guest, wherever it is stored: the `len` bytes after the
/// header.
///
/// Each method continues where the previous call stopped. `&[u8]` implements this trait for bytes
/// in ordinary memory.
pub trait GuestPayload {
    /// Writes the remaining bytes to the stream in as few calls as possible, and stops at the first
    /// call that accepts less than it was offered.
    ///
    /// `Done` contains the number of bytes that were accepted. After at least one byte, only a
    /// failure is reported instead; the next call finds any other condition. An interrupted call
    /// must be repeated.
    fn write_to(&mut self, stream: &mut dyn VsockStream) -> Progress;

    /// Sends the remaining bytes, which are one complete message, in one call.
    ///
    /// Returns `Done` if the stream has accepted the message; otherwise it has accepted nothing. An
    /// interrupted call must be repeated.
    ///
    /// The default implementation returns `Pending`, as if the stream had refused the message,
    /// which is then copied and sent from the copy.
    fn send_to(&mut self, _stream: &mut dyn VsockMessages, _flags: MessageFlags) -> Progress {
        Progress::Pending
    }

    /// Fills `dst` with the next bytes. The caller never requests more than remain.
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

/// How much one call may read from a stream for the guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allowance {
    /// Total bytes: the guest's credit. At least 1.
    pub bytes: usize,
    /// Total packets. At least 1.
    pub packets: usize,
    /// Bytes per packet. At least 1.
    pub packet_bytes: usize,
}

/// The buffers that the guest has provided for packets.
pub trait GuestBuffers {
    /// Returns how many bytes the next buffer can hold after a header, or `None` if there is no
    /// buffer.
    ///
    /// A buffer that cannot hold a header is skipped, and returned to the guest unused.
    fn room(&mut self) -> Option<usize>;

    /// Puts a packet without payload into the next buffer and passes the buffer to the guest. Only
    /// called after [`room`](Self::room) has returned `Some`.
    fn put(&mut self, header: &Header) {
        self.put_bytes(header, &[]);
    }

    /// Puts a packet with a payload from memory into the next buffer. The payload never exceeds
    /// [`room`](Self::room).
    fn put_bytes(&mut self, header: &Header, payload: &[u8]);

    /// Reads from the stream into the next buffers, one packet per buffer and within the allowance,
    /// in as few calls as possible. For each buffer that received bytes, `packet` makes the header
    /// for that number of bytes, and the buffer is passed to the guest. A buffer that received none
    /// stays the next one.
    ///
    /// Only called while [`room`](Self::room) is at least 1, so a read of 0 bytes is the end of the
    /// stream. `Done` contains the total number of bytes. After at least one byte, only a failure
    /// is reported instead, because a stream may report a failure only once.
    ///
    /// The default implementation reads into its own memory and then [puts](Self::put_bytes) the
    /// bytes into one buffer after another.
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
