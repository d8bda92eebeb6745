// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets as they pass a device, for a capture.

use std::fmt;
use std::ops::ControlFlow;

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;
use vsock_proto::Header;

use crate::scatter::Cursor;
use crate::stream_io::MAX_PAYLOAD;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PacketDirection {
    /// The guest has sent it, through the transmit queue.
    FromGuest,
    /// It fills a buffer of the receive queue.
    ToGuest,
}

/// Sees every packet that passes a device, in the order in which the device takes and sends them.
///
/// It is code that the device calls for each packet, on the thread that moves bytes: it must not
/// wait. What is no packet, such as a chain that is too short for a header, does not come here, and
/// [`DeviceCounters`](crate::DeviceCounters) counts it.
///
/// ```
/// use std::ops::ControlFlow;
/// use vsock_virtio::{Header, PacketDirection, PacketTap};
///
/// /// Counts the bytes of payload that pass, and does not look at them.
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
    /// How many bytes of each payload it wants to see at most. It is asked once.
    fn payload_bytes(&self) -> usize;

    /// A packet passes: its header, whose [`len`](Header::len) counts the whole payload, and the
    /// first bytes of that. A header from the guest is as the guest wrote it, and not checked.
    /// After `Break` the device drops the tap.
    fn packet(
        &mut self,
        direction: PacketDirection,
        header: &Header,
        payload: &[u8],
    ) -> ControlFlow<()>;
}

/// The place of a device's tap. Without one, a packet costs a comparison.
#[derive(Default)]
pub(crate) struct TapSlot(Option<Box<Tapped>>);

struct Tapped {
    tap: Box<dyn PacketTap>,
    /// As long as what the tap wants to see of a payload.
    buffer: Vec<u8>,
}

impl TapSlot {
    /// Puts a tap in, or none; returns the one before.
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

    /// A packet passes, which lies in `slices`.
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
