// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! To the guest: fills buffers of the receive queue with packets.
//!
//! The muxer decides what to send and calls [`RxBuffers`], its view of the receive queue. For
//! payload, the device looks at several buffers in advance, reads from the stream into all of them,
//! and then writes a header into each that received bytes. It puts the other ones back.

use vm_memory::GuestMemory;
use vsock_backend_api::VsockStream;
use vsock_muxer::{Allowance, GuestBuffers};
use vsock_proto::{Header, Progress};

use crate::chain::{DESCRIPTOR_COST, Part};
use crate::direct::DirectTypes;
use crate::scatter::{Cursor, Slice, Slices};
use crate::stream_io::{self, MAX_PAYLOAD, Scratch};
use crate::tap::TapSlot;
use crate::virtqueue::Virtqueue;
use crate::{DeviceCounters, DeviceFault, PacketDirection};

/// The maximum cost of the chains that the device looks at in advance: 1,024 descriptors. Counting
/// pieces instead would not limit the work, because an empty descriptor has none.
const MOST_AHEAD: usize = 1024 * DESCRIPTOR_COST;

/// A chain that the device has taken and not used yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    head: u16,
    /// The range of its pieces in the list of all pieces.
    first: usize,
    end: usize,
    /// The space for payload after a header, in bytes; `None` if the chain is unusable.
    room: Option<usize>,
    /// The cost of the walk through its descriptors.
    cost: usize,
}

/// The minimum cost of a buffer that goes back without a packet, charged to the budget of a call.
pub(crate) const REFUSAL_COST: usize = 2048;

/// The parts of the device that it lends for a call.
pub(crate) struct Tools<'a, M: GuestMemory> {
    pub(crate) direct: &'a DirectTypes<M>,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) reserved: &'a mut Vec<Reserved>,
    pub(crate) tap: &'a mut TapSlot,
    pub(crate) counters: &'a mut DeviceCounters,
}

/// The buffers of the receive queue, in order.
///
/// It takes chains when they are needed, and puts unused ones back at the end. It keeps no chain
/// between two calls, so a reset or a migration never loses one.
pub(crate) struct RxBuffers<'a, 'q, 'm, M: GuestMemory> {
    queue: &'a mut Virtqueue<'q, 'm, M>,
    tools: Tools<'a, M>,
    slices: Slices<'m, M>,
    /// The index of the first unused chain in `tools.reserved`: the front.
    next: usize,
    /// The cost of the walks through the chains in `tools.reserved`.
    looked: usize,
    /// The cost at which this stops using further buffers.
    budget: usize,
    cost: usize,
    fault: Option<DeviceFault>,
}

impl<'a, 'q, 'm, M: GuestMemory> RxBuffers<'a, 'q, 'm, M> {
    pub(crate) fn new(
        queue: &'a mut Virtqueue<'q, 'm, M>,
        tools: Tools<'a, M>,
        budget: usize,
    ) -> Self {
        tools.reserved.clear();
        Self {
            queue,
            tools,
            slices: Slices::<M>::new(),
            next: 0,
            looked: 0,
            budget,
            cost: 0,
            fault: None,
        }
    }

    /// The cost so far, charged to the budget of a call. A packet costs its bytes including the
    /// header, or the cost of its descriptors if that is more. A refused buffer costs at least
    /// [`REFUSAL_COST`].
    pub(crate) const fn cost(&self) -> usize {
        self.cost
    }

    /// Whether the budget is used up. There is no room for packets then.
    pub(crate) const fn is_spent(&self) -> bool {
        self.cost >= self.budget
    }

    /// How many chains have been taken, used or not.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn taken(&self) -> u16 {
        self.queue.next_available()
    }

    /// Gives the front back unused if it has no room for payload, when only payload is left to
    /// send. Returns whether it did.
    pub(crate) fn refuse_roomless(&mut self) -> bool {
        match self.front() {
            Some(chain) if chain.room == Some(0) && !self.is_spent() => {
                self.refuse(chain);
                true
            }
            _ => false,
        }
    }

    /// Puts unused chains back, and returns the fault that stopped this, if any.
    pub(crate) fn finish(self) -> Result<(), DeviceFault> {
        let unused = self.tools.reserved.len().saturating_sub(self.next);
        self.queue
            .put_back(u16::try_from(unused).unwrap_or(u16::MAX));
        self.fault.map_or(Ok(()), Err)
    }

    /// Returns the next chain that can hold a packet. Gives chains that cannot back to the guest.
    fn front(&mut self) -> Option<Reserved> {
        // Refusing a chain makes the next one the front, so this ends with a usable chain, an empty
        // queue, a fault, or a spent budget.
        while self.fault.is_none() {
            let chain = match self.tools.reserved.get(self.next) {
                Some(chain) => *chain,
                None => self.reserve()?,
            };
            if chain.room.is_some() {
                return Some(chain);
            }
            if self.is_spent() {
                return None;
            }
            self.refuse(chain);
        }
        None
    }

    /// Returns the chain `ahead` places after the front. Takes it now if necessary, unless the
    /// chains in advance have cost too much.
    fn ahead(&mut self, ahead: usize) -> Option<Reserved> {
        match self.tools.reserved.get(self.next + ahead) {
            Some(chain) => Some(*chain),
            None if self.looked < MOST_AHEAD => self.reserve(),
            None => None,
        }
    }

    /// Takes one more chain.
    fn reserve(&mut self) -> Option<Reserved> {
        let first = self.slices.len();
        let taken = match self.queue.take(Part::Writable, &mut self.slices) {
            Ok(taken) => taken?,
            // The muxer's interface has no errors: `finish` reports the fault.
            Err(fault) => {
                self.fault = Some(fault);
                return None;
            }
        };
        let room = taken.len.ok().and_then(|len| len.checked_sub(Header::LEN));
        if room.is_none() {
            // A malformed chain may have appended some pieces.
            self.slices.truncate(first);
        }
        let chain = Reserved {
            head: taken.head,
            first,
            end: self.slices.len(),
            room,
            cost: taken.cost,
        };
        self.looked += taken.cost;
        self.tools.reserved.push(chain);
        Some(chain)
    }

    fn refuse(&mut self, chain: Reserved) {
        self.cost += chain.cost.max(REFUSAL_COST);
        self.tools.counters.unusable_buffers += 1;
        self.give_back(chain, 0);
    }

    /// Gives the front to the guest, with `len` bytes in it.
    fn give_back(&mut self, chain: Reserved, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if let Err(fault) = self.queue.give_back(chain.head, len) {
            self.fault = Some(fault);
        }
        self.next += 1;
        // With no chain left in reserve, the lists start again, so they do not grow with the number
        // of packets.
        if self.next == self.tools.reserved.len() {
            self.next = 0;
            self.looked = 0;
            self.tools.reserved.clear();
            self.slices.clear();
        }
    }

    /// Writes the header before the payload that is already in the front, and gives the front to
    /// the guest.
    fn publish(&mut self, chain: Reserved, header: &Header, payload: usize) {
        Cursor::default().copy_from(self.pieces(chain), &header.encode());
        // Show the packet before the guest owns the buffer again and may change it.
        let slices = self.slices.get(chain.first..chain.end).unwrap_or_default();
        self.tools
            .tap
            .pass(PacketDirection::ToGuest, header, slices);
        let len = Header::LEN + payload;
        self.cost += chain.cost.max(len);
        self.give_back(chain, len);
    }

    fn pieces(&self, chain: Reserved) -> &[Slice<'m, M>] {
        self.slices.get(chain.first..chain.end).unwrap_or_default()
    }

    /// The position of the payload in the chain.
    fn payload(&self, chain: Reserved) -> Cursor {
        let mut cursor = Cursor::default();
        cursor.skip(self.pieces(chain), Header::LEN);
        cursor
    }

    /// Returns how many bytes the next buffers can take within the allowance, and their pieces.
    /// Stops after the buffer with which there is enough room for the `expected` bytes or for one
    /// read.
    fn ahead_of(&mut self, allowance: Allowance, expected: usize) -> (usize, Slices<'m, M>) {
        let enough = MAX_PAYLOAD.min(expected);
        let (mut room, mut pieces) = (0, Slices::<M>::new());
        for index in 0..allowance.packets {
            // Refuse an unusable buffer only at the front: the guest gets buffers back in order.
            let next = if index == 0 {
                self.front()
            } else {
                self.ahead(index)
            };
            let Some(chain) = next else { break };
            // The muxer limits the payload of each packet and of all packets together. `room` never
            // exceeds the latter, so this cannot underflow.
            let more = chain.room.unwrap_or(0).min(allowance.packet_bytes);
            let more = more.min(allowance.bytes - room);
            pieces.extend(self.payload(chain).pieces(self.pieces(chain), more));
            room += more;
            // A buffer with no room for payload ends the sequence, as does an unusable one.
            if more == 0 || room >= enough {
                break;
            }
        }
        (room, pieces)
    }

    /// Gives the next buffers, which now contain `bytes` bytes of payload, to the guest. Divides
    /// the bytes among the buffers exactly as [`ahead_of`](Self::ahead_of) did.
    fn publish_ahead(
        &mut self,
        mut bytes: usize,
        packet_bytes: usize,
        packet: &mut dyn FnMut(usize) -> Header,
    ) {
        while bytes > 0 {
            let Some(chain) = self.front() else { break };
            let len = chain.room.unwrap_or(0).min(packet_bytes).min(bytes);
            if len == 0 {
                break;
            }
            self.publish(chain, &packet(len), len);
            bytes -= len;
        }
    }
}

/// Reads once into `buffer`, and copies that to guest memory.
fn read_and_copy<M: GuestMemory>(
    stream: &mut dyn VsockStream,
    pieces: &[Slice<'_, M>],
    buffer: &mut [u8],
) -> (usize, Progress) {
    match stream_io::read(buffer.len(), || stream.read(buffer)) {
        Progress::Done(len) => {
            let bytes = buffer.get(..len).unwrap_or_default();
            let copied = Cursor::default().copy_from(pieces, bytes);
            (copied, Progress::Done(0))
        }
        nothing => (0, nothing),
    }
}

impl<M: GuestMemory> GuestBuffers for RxBuffers<'_, '_, '_, M> {
    fn room(&mut self) -> Option<usize> {
        if self.is_spent() {
            return None;
        }
        self.front()?.room
    }

    fn put(&mut self, header: &Header) {
        self.put_bytes(header, &[]);
    }

    fn put_bytes(&mut self, header: &Header, payload: &[u8]) {
        if let Some(chain) = self.front() {
            self.payload(chain).copy_from(self.pieces(chain), payload);
            self.publish(chain, header, payload.len());
        }
    }

    fn fill(
        &mut self,
        stream: &mut dyn VsockStream,
        allowance: Allowance,
        packet: &mut dyn FnMut(usize) -> Header,
    ) -> Progress {
        let direct = self.tools.direct.of(stream);
        let expected = direct.map_or(usize::MAX, |direct| (direct.readable)(stream));
        let (wanted, pieces) = self.ahead_of(allowance, expected);
        // A guest's buffers usually have one size, so the first piece stands for all.
        let first = pieces.first().map_or(0, |piece| piece.len());
        let (got, last) = match direct {
            // A read into no room would look like the end of the stream.
            _ if wanted == 0 => return Progress::Done(0),
            Some(direct) if first >= direct.least => {
                stream_io::all(&pieces, wanted, |rest, room| {
                    stream_io::read(room, || (direct.read)(stream, rest))
                })
            }
            _ => {
                let buffer = self.tools.scratch.first(wanted);
                read_and_copy::<M>(stream, &pieces, buffer)
            }
        };
        // Publish what was read even if a later call failed: the bytes have left the stream.
        self.publish_ahead(got, allowance.packet_bytes, packet);
        stream_io::together(got, last)
    }
}
