// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The four blocks of a pcapng file that a capture has (draft-ietf-opsawg-pcapng), in little-endian
//! order: section header, interface description, enhanced packet, interface statistics.
//!
//! They are appended to memory that threads share, under its lock, which no library's writer does.

use vsock_virtio::PacketDirection;

/// Packets with the header of Linux's vsockmon: `LINKTYPE_VSOCK` of tcpdump.org's list.
const LINKTYPE_VSOCK: u16 = 271;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// By which a reader knows the order of bytes.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Of a section header: 1.0, and "the length of the section is not given".
const VERSION: [u16; 2] = [1, 0];
const UNKNOWN_LENGTH: u64 = u64::MAX;

const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
/// Of `if_tsresol`: 10^-9 seconds.
const NANOSECONDS: u8 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Type and length before each block's body, and the length again after it.
const FRAME: usize = 12;
/// Bytes of an interface statistics block.
pub(super) const STATISTICS_LEN: usize = FRAME + 12 + 3 * 12 + 4;

/// A packet, as it goes into a block.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) interface: u32,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) direction: PacketDirection,
    /// Packets of this interface that are missing between the packet before and this one.
    pub(super) dropped: u64,
    /// Its headers, all of them.
    pub(super) headers: &'a [u8],
    /// Its payload, or the begin of it.
    pub(super) payload: &'a [u8],
    /// How much longer the payload was.
    pub(super) cut: u32,
}

impl Packet<'_> {
    /// Bytes of its block.
    pub(super) fn block_len(&self) -> usize {
        let captured = self.headers.len() + self.payload.len();
        let dropped = if self.dropped > 0 { 12 } else { 0 };
        FRAME + 20 + captured.next_multiple_of(4) + 8 + dropped + 4
    }

    /// Appends its block.
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
            // Inbound and outbound, as the host sees it.
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

/// Appends the block that a file begins with.
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

/// Appends the description of the next interface. Its number is how many there were before.
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

/// Appends what an interface has counted by this time: packets that passed, and those of them that
/// are not in the file.
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

/// A block among others, as a writer must know it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Block {
    pub(super) len: usize,
    pub(super) kind: Kind,
}

/// What is in a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A packet of this interface.
    Packet(u32),
    /// The description of an interface.
    Interface,
    Other,
}

/// The first of the blocks; `None` where there is none.
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
    // All blocks here are our own; at least this ends whoever goes through them.
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

/// Fills up to a multiple of four: each block begins at one, as blocks have such lengths.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A time stands as its upper half and its lower half.
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
