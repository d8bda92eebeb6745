// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! To the guest: buffers of the receive queue are filled with packets.

use vm_memory::GuestMemory;
use vsock_backend_api::VsockStream;
use vsock_muxer::{Allowance, GuestBuffers};
use vsock_proto::{Header, Progress};

use crate::attempt;
use crate::chain::{Part, gather};
use crate::direct::{Direct, DirectTypes};
use crate::ring::Ring;
use crate::scatter::{Cursor, Slice, Slices};
use crate::scratch::{MAX_PAYLOAD, Scratch};
use crate::{DeviceCounters, Fault};

/// Pieces that chains which are taken in advance may have together.
const MAX_PIECES: usize = 1024;

/// A chain that was taken and is not used yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    head: u16,
    /// Where its pieces are.
    first: usize,
    end: usize,
    /// Bytes behind a header; `None` if the chain is of no use.
    room: Option<usize>,
    /// What it cost to look at its descriptors.
    cost: usize,
}

/// What a buffer that is given back without a packet costs at least, of the budget of a call.
const REFUSAL_COST: usize = 2048;

/// What the device lends for a call.
pub(crate) struct Tools<'a, M: GuestMemory> {
    pub(crate) direct: &'a DirectTypes<M>,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) reserved: &'a mut Vec<Reserved>,
    pub(crate) counters: &'a mut DeviceCounters,
}

/// The buffers of the receive queue, in order.
///
/// Chains are taken when they are needed. Those that were taken in vain are put back at the end, so
/// that nothing is held between two calls: no reset, no migration can find a chain here.
pub(crate) struct RxBuffers<'a, 'q, 'm, M: GuestMemory> {
    ring: &'a mut Ring<'q, 'm, M>,
    tools: Tools<'a, M>,
    slices: Slices<'m, M>,
    /// The first of `tools.reserved` that is not used.
    next: usize,
    /// What this may cost before no buffer is refused any more.
    budget: usize,
    cost: usize,
    fault: Option<Fault>,
}

impl<'a, 'q, 'm, M: GuestMemory> RxBuffers<'a, 'q, 'm, M> {
    pub(crate) fn new(ring: &'a mut Ring<'q, 'm, M>, tools: Tools<'a, M>, budget: usize) -> Self {
        tools.reserved.clear();
        Self {
            ring,
            tools,
            slices: Slices::<M>::new(),
            next: 0,
            budget,
            cost: 0,
            fault: None,
        }
    }

    /// What this has cost so far, of the budget of a call: the bytes of packets with their headers, or
    /// what their descriptors cost if that is more, and something for each buffer that was refused.
    pub(crate) const fn cost(&self) -> usize {
        self.cost
    }

    /// Gives the next buffer back unused if it has no room for payload, which is all that is left to
    /// send. Returns whether it did.
    pub(crate) fn refuse_roomless(&mut self) -> bool {
        match self.front() {
            Some(chain) if chain.room == Some(0) && self.cost < self.budget => {
                self.refuse(chain);
                true
            }
            _ => false,
        }
    }

    /// Puts back what was not used.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        let unused = self.tools.reserved.len().saturating_sub(self.next);
        self.ring
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
            if self.cost >= self.budget {
                return None;
            }
            self.refuse(chain);
        }
        None
    }

    /// The chain at `ahead` behind the front, taken now if need be, while there is place for it.
    fn ahead(&mut self, ahead: usize) -> Option<Reserved> {
        match self.tools.reserved.get(self.next + ahead) {
            Some(chain) => Some(*chain),
            None if self.slices.len() < MAX_PIECES => self.reserve(),
            None => None,
        }
    }

    /// Takes one more chain.
    fn reserve(&mut self) -> Option<Reserved> {
        let chain = match self.ring.pop() {
            Ok(chain) => chain?,
            Err(fault) => {
                self.fault = Some(fault);
                return None;
            }
        };
        let head = chain.head_index();
        let first = self.slices.len();
        let what = (Part::Writable, self.ring.size());
        let mut cost = 0;
        let room = gather(self.ring.mem, chain, what, &mut self.slices, &mut cost)
            .ok()
            .and_then(|len| len.checked_sub(Header::LEN));
        if room.is_none() {
            self.slices.truncate(first);
        }
        let chain = Reserved {
            head,
            first,
            end: self.slices.len(),
            room,
            cost,
        };
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
        if let Err(fault) = self.ring.give_back(chain.head, len) {
            self.fault = Some(fault);
        }
        self.next += 1;
        if self.next == self.tools.reserved.len() {
            self.next = 0;
            self.tools.reserved.clear();
            self.slices.clear();
        }
    }

    /// Writes the header, whose payload is there already, and gives the front to the guest.
    fn publish(&mut self, chain: Reserved, header: &Header, payload: usize) {
        Cursor::default().copy_from(self.pieces(chain), &header.encode());
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

    /// Reads into buffer after buffer, without anything in between.
    fn fill_directly(
        &mut self,
        stream: &mut dyn VsockStream,
        direct: &Direct<M>,
        allowance: Allowance,
        packet: &mut dyn FnMut(usize) -> Header,
    ) -> Progress {
        let mut carried = 0;
        for _ in 0..allowance.packets {
            let limit = allowance.packet_bytes.min(allowance.bytes - carried);
            let Some(chain) = self.front() else {
                break;
            };
            let limit = limit.min(chain.room.unwrap_or(0));
            if limit == 0 {
                break;
            }
            let (len, last) = self.read_chain(stream, direct, chain, limit);
            if len == 0 {
                return attempt::together(carried, last);
            }
            self.publish(chain, &packet(len), len);
            carried += len;
            if last == Progress::Failed {
                return last;
            }
            if len < limit {
                break;
            }
        }
        Progress::Done(carried)
    }

    /// Reads at most `limit` bytes into one chain; returns how many, and what the last call came to.
    fn read_chain(
        &self,
        stream: &mut dyn VsockStream,
        direct: &Direct<M>,
        chain: Reserved,
        limit: usize,
    ) -> (usize, Progress) {
        let pieces = self.pieces(chain);
        let mut cursor = self.payload(chain);
        let mut got = 0;
        let mut last = Progress::Pending;
        while let Some(mut piece) = cursor.piece(pieces, limit - got) {
            last = attempt::read(|| (direct.read)(stream, &mut piece));
            let Progress::Done(len) = last else {
                break;
            };
            got += len;
            if len < piece.len() {
                break;
            }
            cursor.skip(pieces, len);
        }
        (got, last)
    }

    /// Reads once for several buffers, and copies.
    fn fill_by_copy(
        &mut self,
        stream: &mut dyn VsockStream,
        allowance: Allowance,
        packet: &mut dyn FnMut(usize) -> Header,
    ) -> Progress {
        let wanted = self.room_ahead(allowance);
        if wanted == 0 {
            return Progress::Done(0);
        }
        let scratch = std::mem::take(self.tools.scratch);
        let (progress, scratch) = self.read_and_copy(stream, wanted, scratch, (allowance, packet));
        *self.tools.scratch = scratch;
        progress
    }

    fn read_and_copy(
        &mut self,
        stream: &mut dyn VsockStream,
        wanted: usize,
        mut scratch: Scratch,
        (allowance, packet): (Allowance, &mut dyn FnMut(usize) -> Header),
    ) -> (Progress, Scratch) {
        let buffer = scratch.first(wanted);
        let progress = attempt::read(|| stream.read(buffer));
        if let Progress::Done(got) = progress {
            let mut rest = buffer.get(..got).unwrap_or_default();
            while !rest.is_empty() {
                let Some(chain) = self.front() else {
                    break;
                };
                let limit = chain.room.unwrap_or(0).min(allowance.packet_bytes);
                let (now, later) = rest.split_at(limit.min(rest.len()));
                self.payload(chain).copy_from(self.pieces(chain), now);
                self.publish(chain, &packet(now.len()), now.len());
                rest = later;
            }
        }
        (progress, scratch)
    }

    /// Bytes that the next buffers can take within the allowance, and within one read.
    fn room_ahead(&mut self, allowance: Allowance) -> usize {
        let most = allowance.bytes.min(MAX_PAYLOAD);
        let mut room = 0;
        for index in 0..allowance.packets {
            let next = if index == 0 {
                self.front()
            } else {
                self.ahead(index)
            };
            let more = next.and_then(|chain| chain.room).unwrap_or(0);
            room += more.min(allowance.packet_bytes);
            if more == 0 || room >= most {
                break;
            }
        }
        room.min(most)
    }
}

impl<M: GuestMemory> GuestBuffers for RxBuffers<'_, '_, '_, M> {
    fn room(&mut self) -> Option<usize> {
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
        let direct = self.tools.direct;
        let first = self.front().and_then(|chain| {
            let piece = self.payload(chain).piece(self.pieces(chain), usize::MAX);
            piece.map(|piece| piece.len())
        });
        match direct.of(stream) {
            Some(direct) if first.is_some_and(|len| len >= direct.least) => {
                self.fill_directly(stream, direct, allowance, packet)
            }
            _ => self.fill_by_copy(stream, allowance, packet),
        }
    }
}
