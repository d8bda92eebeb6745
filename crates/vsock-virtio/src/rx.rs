// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! To the guest: buffers of the receive queue are filled with packets.

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

/// What it may cost to look at chains in advance: 1,024 descriptors. Pieces would be no measure,
/// for an empty descriptor is none.
const MOST_AHEAD: usize = 1024 * DESCRIPTOR_COST;

/// A chain that was taken and is not used yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    head: u16,
    /// Where its pieces are.
    first: usize,
    end: usize,
    /// Bytes after a header; `None` if the chain is of no use.
    room: Option<usize>,
    /// What it cost to look at its descriptors.
    cost: usize,
}

/// What a buffer that is given back without a packet costs at least, of the budget of a call.
pub(crate) const REFUSAL_COST: usize = 2048;

/// What the device lends for a call.
pub(crate) struct Tools<'a, M: GuestMemory> {
    pub(crate) direct: &'a DirectTypes<M>,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) reserved: &'a mut Vec<Reserved>,
    pub(crate) tap: &'a mut TapSlot,
    pub(crate) counters: &'a mut DeviceCounters,
}

/// The buffers of the receive queue, in order.
///
/// Chains are taken when they are needed. Those that were taken for nothing are put back at the
/// end, so that nothing is kept between two calls: no reset, no migration can find a chain here.
pub(crate) struct RxBuffers<'a, 'q, 'm, M: GuestMemory> {
    queue: &'a mut Virtqueue<'q, 'm, M>,
    tools: Tools<'a, M>,
    slices: Slices<'m, M>,
    /// The first of `tools.reserved` that is not used.
    next: usize,
    /// What it cost to look at those in `tools.reserved`.
    looked: usize,
    /// What this may cost before no other buffer is looked for.
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

    /// What this has cost so far, of the budget of a call: the bytes of packets with their headers,
    /// or what their descriptors cost if that is more, and something for each buffer that was
    /// refused.
    pub(crate) const fn cost(&self) -> usize {
        self.cost
    }

    /// Whether the budget is used up, and with it all room.
    pub(crate) const fn is_spent(&self) -> bool {
        self.cost >= self.budget
    }

    /// How many chains were taken, used or not.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn taken(&self) -> u16 {
        self.queue.next_available()
    }

    /// Gives the next buffer back unused if it has no room for payload, which is all that is left
    /// to send. Returns whether it did.
    pub(crate) fn refuse_roomless(&mut self) -> bool {
        match self.front() {
            Some(chain) if chain.room == Some(0) && !self.is_spent() => {
                self.refuse(chain);
                true
            }
            _ => false,
        }
    }

    /// Puts back what was not used.
    pub(crate) fn finish(self) -> Result<(), DeviceFault> {
        let unused = self.tools.reserved.len().saturating_sub(self.next);
        self.queue
            .put_back(u16::try_from(unused).unwrap_or(u16::MAX));
        self.fault.map_or(Ok(()), Err)
    }

    /// The next chain that can hold a packet. Those that cannot go back to the guest, in turn.
    fn front(&mut self) -> Option<Reserved> {
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

    /// The chain `ahead` places after the front, taken now if need be, while to look costs little
    /// enough.
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
            Err(fault) => {
                self.fault = Some(fault);
                return None;
            }
        };
        let room = taken.len.ok().and_then(|len| len.checked_sub(Header::LEN));
        if room.is_none() {
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

    /// Gives the front to the guest.
    fn give_back(&mut self, chain: Reserved, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if let Err(fault) = self.queue.give_back(chain.head, len) {
            self.fault = Some(fault);
        }
        self.next += 1;
        if self.next == self.tools.reserved.len() {
            self.next = 0;
            self.looked = 0;
            self.tools.reserved.clear();
            self.slices.clear();
        }
    }

    /// Writes the header, whose payload is there already, and gives the front to the guest.
    fn publish(&mut self, chain: Reserved, header: &Header, payload: usize) {
        Cursor::default().copy_from(self.pieces(chain), &header.encode());
        // The guest does not have it yet, so it has not changed it.
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

    /// Where the payload begins in the chain.
    fn payload(&self, chain: Reserved) -> Cursor {
        let mut cursor = Cursor::default();
        cursor.skip(self.pieces(chain), Header::LEN);
        cursor
    }

    /// Bytes that the next buffers can take within the allowance, and where: whole buffers, and no
    /// more of them than for `expected` bytes, or for one read.
    fn ahead_of(&mut self, allowance: Allowance, expected: usize) -> (usize, Slices<'m, M>) {
        let enough = MAX_PAYLOAD.min(expected);
        let (mut room, mut pieces) = (0, Slices::<M>::new());
        for index in 0..allowance.packets {
            let next = if index == 0 {
                self.front()
            } else {
                self.ahead(index)
            };
            let Some(chain) = next else { break };
            let more = chain.room.unwrap_or(0).min(allowance.packet_bytes);
            let more = more.min(allowance.bytes - room);
            pieces.extend(self.payload(chain).pieces(self.pieces(chain), more));
            room += more;
            if more == 0 || room >= enough {
                break;
            }
        }
        (room, pieces)
    }

    /// Gives the next buffers, in which there are this many bytes by now, to the guest.
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

/// Reads once into ordinary memory, and copies.
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
        let first = pieces.first().map_or(0, |piece| piece.len());
        let (got, last) = match direct {
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
        self.publish_ahead(got, allowance.packet_bytes, packet);
        stream_io::together(got, last)
    }
}
