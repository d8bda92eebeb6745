// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The four kinds of pcapng blocks that a capture needs (draft-ietf-opsawg-pcapng), in
//! little-endian order: section header, interface description, enhanced packet, and interface
//! statistics.
//!
//! Devices append blocks to a buffer that they share with the writer thread, under its lock. No
//! pcapng library supports that.

use vsock_virtio::PacketDirection;

/// Packets with the header of Linux's vsockmon: `LINKTYPE_VSOCK` of tcpdump.org's list.
const LINKTYPE_VSOCK: u16 = 271;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Tells a reader the byte order.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Fields of a section header: version 1.0, and "section length not specified".
const VERSION: [u16; 2] = [1, 0];
const UNKNOWN_LENGTH: u64 = u64::MAX;

const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
/// A value of `if_tsresol`: 10^-9 seconds.
const NANOSECONDS: u8 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// The size of the type and length before a block's body, and of the length after it.
const FRAME: usize = 12;
/// The size of an interface statistics block in bytes.
pub(super) const STATISTICS_LEN: usize = FRAME + 12 + 3 * 12 + 4;

/// A packet to be stored in a block.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) interface: u32,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) direction: PacketDirection,
    /// How many packets of this interface are missing before this one.
    pub(super) dropped: u64,
    /// All headers of the packet.
    pub(super) headers: &'a [u8],
    /// The payload, or its beginning.
    pub(super) payload: &'a [u8],
    /// How many bytes of the payload are missing at its end.
    pub(super) cut: u32,
}

impl Packet<'_> {
    /// The size of the packet's block in bytes.
    pub(super) fn block_len(&self) -> usize {
        let captured = self.headers.len() + self.payload.len();
        let dropped = if self.dropped > 0 { 12 } else { 0 };
        FRAME + 20 + captured.next_multiple_of(4) + 8 + dropped + 4
    }

    /// Appends the packet's block.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        block(out, ENHANCED_PACKET, |out| {
            put32(out, self.interface);
            put_time(out, self.time);
            let captured = length(self.headers.len() + self.payload.len());
            put32(out, captured);
            put32(out, captured.saturating_add(self.cut));
            out.extend_from_slice(self.headers);
            out.extend_from_slice(self.payload);
            pad(out);
            // Inbound or outbound, from the host's point of view.
            let flags = match self.direction {
                PacketDirection::FromGuest => 1_u32,
                PacketDirection::ToGuest => 2,
            };
            option(out, EPB_FLAGS, &flags.to_le_bytes());
            if self.dropped > 0 {
                option(out, EPB_DROPCOUNT, &self.dropped.to_le_bytes());
            }
            end_of_options(out);
        });
    }
}

/// Appends the first block of a file.
pub(super) fn section_header(out: &mut Vec<u8>, application: &str) {
    block(out, SECTION_HEADER, |out| {
        put32(out, BYTE_ORDER_MAGIC);
        for number in VERSION {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&UNKNOWN_LENGTH.to_le_bytes());
        option(out, SHB_USERAPPL, application.as_bytes());
        end_of_options(out);
    });
}

/// Appends the description of the next interface. Interfaces are numbered from 0, in this order.
pub(super) fn interface(out: &mut Vec<u8>, name: &str, description: &str, snap_len: u32) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend_from_slice(&LINKTYPE_VSOCK.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        put32(out, snap_len);
        option(out, IF_NAME, name.as_bytes());
        option(out, IF_DESCRIPTION, description.as_bytes());
        option(out, IF_TSRESOL, &[NANOSECONDS]);
        end_of_options(out);
    });
}

/// Appends the counters of an interface at this time: all packets, and those that are not in the
/// file.
pub(super) fn statistics(out: &mut Vec<u8>, interface: u32, time: u64, passed: u64, dropped: u64) {
    block(out, INTERFACE_STATISTICS, |out| {
        put32(out, interface);
        put_time(out, time);
        let mut end = Vec::with_capacity(8);
        put_time(&mut end, time);
        option(out, ISB_ENDTIME, &end);
        option(out, ISB_IFRECV, &passed.to_le_bytes());
        option(out, ISB_IFDROP, &dropped.to_le_bytes());
        end_of_options(out);
    });
}

/// The properties of a block that the writer needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Block {
    pub(super) len: usize,
    pub(super) kind: Kind,
}

/// The kind of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A packet of this interface.
    Packet(u32),
    /// The description of an interface.
    Interface,
    Other,
}

/// Returns the properties of the first block, if there is one.
pub(super) fn first(blocks: &[u8]) -> Option<Block> {
    let number = |at: usize| {
        let bytes = blocks.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let len = usize::try_from(number(4)?).ok()?;
    let kind = match (number(0)?, number(8)) {
        (ENHANCED_PACKET, Some(interface)) => Kind::Packet(interface),
        (INTERFACE_DESCRIPTION, _) => Kind::Interface,
        _ => Kind::Other,
    };
    // All blocks are our own and valid. The minimum only ensures that iterating over them ends.
    let len = len.max(FRAME);
    Some(Block { len, kind })
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    put32(out, kind);
    put32(out, 0);
    body(out);
    let len = length(out.len() - begin + 4);
    put32(out, len);
    if let Some(place) = out.get_mut(begin + 4..begin + 8) {
        place.copy_from_slice(&len.to_le_bytes());
    }
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(value.get(..len.into()).unwrap_or_default());
    pad(out);
}

fn end_of_options(out: &mut Vec<u8>) {
    put32(out, 0);
}

/// Pads to a multiple of four bytes. Blocks have such lengths, so each also begins at a multiple.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends a time: first its upper half, then its lower half.
fn put_time(out: &mut Vec<u8>, time: u64) {
    let bytes = time.to_le_bytes();
    let (lower, upper) = bytes.split_at(4);
    out.extend_from_slice(upper);
    out.extend_from_slice(lower);
}

fn put32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
