// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shows the packets that pass through a device to an observer, such as a capture.

use std::fmt;
use std::ops::ControlFlow;

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;
use vsock_proto::Header;

use crate::scatter::Cursor;
use crate::stream_io::MAX_PAYLOAD;

/// The direction of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PacketDirection {
    /// The guest sent the packet through the transmit queue.
    FromGuest,
    /// The packet fills a buffer of the receive queue.
    ToGuest,
}

/// An observer of every packet that passes through a device, in the order in which the device takes
/// and sends them.
///
/// The device calls it for each packet, on the thread that moves the bytes, so it must not block.
/// It does not see chains that do not contain a packet, for example because they are too short for
/// a header; [`DeviceCounters`](crate::DeviceCounters) counts those.
///
/// ```
/// use std::ops::ControlFlow;
/// use vsock_virtio::{Header, PacketDirection, PacketTap};
///
/// /// Counts payload bytes without looking at them.
/// struct Meter(u64);
///
/// impl PacketTap for Meter {
///     fn payload_bytes(&self) -> usize {
///         0
///     }
///     fn packet(&mut self, _: PacketDirection, header: &Header, _: &[u8]) -> ControlFlow<()> {
///         self.0 += u64::from(header.len);
///         ControlFlow::Continue(())
///     }
/// }
///
/// let tap: Box<dyn PacketTap> = Box::new(Meter(0));
/// # drop(tap);
/// ```
pub trait PacketTap: Send {
    /// Returns how many bytes of each payload the tap wants to see at most. The device calls this
    /// once.
    fn payload_bytes(&self) -> usize;

    /// Receives a packet: its header, whose [`len`](Header::len) counts the whole payload, and the
    /// first bytes of the payload. A header from the guest is unchecked. The device drops a tap
    /// that returns `Break`.
    fn packet(
        &mut self,
        direction: PacketDirection,
        header: &Header,
        payload: &[u8],
    ) -> ControlFlow<()>;
}

/// A device's tap, if it has one. Without a tap, each packet costs one comparison.
#[derive(Default)]
pub(crate) struct TapSlot(Option<Box<Tapped>>);

struct Tapped {
    tap: Box<dyn PacketTap>,
    /// A buffer for the part of a payload that the tap wants to see.
    buffer: Vec<u8>,
}

impl TapSlot {
    /// Installs a tap, or removes it; returns the previous one.
    pub(crate) fn replace(
        &mut self,
        tap: Option<Box<dyn PacketTap>>,
    ) -> Option<Box<dyn PacketTap>> {
        let tapped = tap.map(|tap| {
            let buffer = vec![0; tap.payload_bytes().min(MAX_PAYLOAD)];
            Box::new(Tapped { tap, buffer })
        });
        let before = std::mem::replace(&mut self.0, tapped);
        before.map(|tapped| tapped.tap)
    }

    /// Shows the packet in `slices` to the tap.
    #[inline]
    pub(crate) fn pass<B: BitmapSlice>(
        &mut self,
        direction: PacketDirection,
        header: &Header,
        slices: &[VolatileSlice<'_, B>],
    ) {
        if self.0.is_some() {
            self.show(direction, header, slices);
        }
    }

    #[cold]
    fn show<B: BitmapSlice>(
        &mut self,
        direction: PacketDirection,
        header: &Header,
        slices: &[VolatileSlice<'_, B>],
    ) {
        let Some(Tapped { tap, buffer }) = self.0.as_deref_mut() else {
            return;
        };
        // The header's length is the guest's claim for a packet from the guest, so the copy below
        // also stops at the end of the slices.
        let wanted = buffer.len().min(header.len as usize);
        let seen = buffer.get_mut(..wanted).unwrap_or_default();
        let mut payload = Cursor::default();
        payload.skip(slices, Header::LEN);
        let copied = payload.copy_to(slices, seen);
        let seen = seen.get(..copied).unwrap_or_default();
        if tap.packet(direction, header, seen).is_break() {
            self.0 = None;
        }
    }
}

impl fmt::Debug for TapSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TapSlot").field(&self.0.is_some()).finish()
    }
}
