// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the guest: parses a chain of the transmit queue as a header and a payload, and writes the
//! payload to a stream.

use std::io::IoSlice;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{GuestMemory, VolatileSlice};
use vsock_backend_api::{VsockMessages, VsockStream};
use vsock_muxer::{GuestPayload, send_message};
use vsock_proto::{Header, MessageFlags, Progress};

use crate::chain::BadChain;
use crate::direct::{Direct, DirectTypes};
use crate::scatter::{Cursor, Slice, Slices};
use crate::stream_io::{self, MAX_PAYLOAD, Scratch};

/// Reads the header once, from a chain with this many readable bytes. Returns the header and the
/// position of the payload.
pub(crate) fn header<B: BitmapSlice>(
    slices: &[VolatileSlice<'_, B>],
    readable: usize,
) -> Result<(Header, Cursor), BadChain> {
    let room = readable.checked_sub(Header::LEN).ok_or(BadChain)?;
    let mut bytes = [0; Header::LEN];
    let mut cursor = Cursor::default();
    cursor.copy_to(slices, &mut bytes);
    let header = Header::decode(&bytes);
    // From here on only this copy counts: the guest may change the original at any time.
    let len = header.len as usize;
    if len > room || len > MAX_PAYLOAD {
        return Err(BadChain);
    }
    Ok((header, cursor))
}

/// The payload of one packet, in guest memory.
pub(crate) struct TxPayload<'a, 'm, M: GuestMemory> {
    pub(crate) slices: &'a [Slice<'m, M>],
    pub(crate) cursor: Cursor,
    /// How many bytes are left.
    pub(crate) left: usize,
    pub(crate) direct: &'a DirectTypes<M>,
    pub(crate) scratch: &'a mut Scratch,
}

impl<M: GuestMemory> GuestPayload for TxPayload<'_, '_, M> {
    fn write_to(&mut self, stream: &mut dyn VsockStream) -> Progress {
        // A direct write pays only if the pieces that are left have `least` bytes on average.
        let pieces = self.cursor.pieces_left(self.slices.len());
        match self.direct.of(stream) {
            Some(direct) if self.left >= direct.least.saturating_mul(pieces) => {
                self.write_pieces(stream, direct)
            }
            _ => self.write_gathered(stream),
        }
    }

    fn send_to(&mut self, stream: &mut dyn VsockMessages, flags: MessageFlags) -> Progress {
        // A message has to be sent with one call, so it is always gathered.
        let buffer = self.scratch.first(self.left);
        let mut ahead = self.cursor;
        let gathered = ahead.copy_to(self.slices, buffer);
        let message = IoSlice::new(buffer.get(..gathered).unwrap_or_default());
        let progress = send_message(stream, &[message], flags);
        if let Progress::Done(len) = progress {
            self.taken(len);
        }
        progress
    }

    fn copy_to(&mut self, dst: &mut [u8]) {
        let wanted = dst.len().min(self.left);
        if let Some(dst) = dst.get_mut(..wanted) {
            self.left -= self.cursor.copy_to(self.slices, dst);
        }
    }
}

impl<'m, M: GuestMemory> TxPayload<'_, 'm, M> {
    /// Writes the pieces directly from guest memory.
    fn write_pieces(&mut self, stream: &mut dyn VsockStream, direct: &Direct<M>) -> Progress {
        let pieces: Slices<'m, M> = self.cursor.pieces(self.slices, self.left).collect();
        let (moved, last) = stream_io::all(&pieces, self.left, |rest, len| {
            stream_io::write(len, || (direct.write)(stream, rest))
        });
        self.taken(moved);
        stream_io::together(moved, last)
    }

    /// Gathers the pieces in a buffer and writes that once.
    fn write_gathered(&mut self, stream: &mut dyn VsockStream) -> Progress {
        let buffer = self.scratch.first(self.left);
        if buffer.is_empty() {
            return Progress::Done(0);
        }
        // The stream may take only a part, so the payload's own cursor advances afterwards.
        let mut ahead = self.cursor;
        let gathered = ahead.copy_to(self.slices, buffer);
        let bytes = buffer.get(..gathered).unwrap_or_default();
        let progress = stream_io::write(gathered, || stream.write(bytes));
        if let Progress::Done(len) = progress {
            self.taken(len);
        }
        progress
    }

    /// Advances by this many bytes, which may span pieces.
    fn taken(&mut self, len: usize) {
        self.left -= len;
        self.cursor.skip(self.slices, len);
    }
}
