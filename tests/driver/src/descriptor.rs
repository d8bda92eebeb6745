// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// `struct virtq_desc` (virtio 1.3, 2.7.5).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Descriptor {
    /// The guest address of the buffer.
    pub addr: u64,
    /// The length of the buffer.
    pub len: u32,
    /// The flags.
    pub flags: u16,
    /// The next descriptor, with [`NEXT`](Self::NEXT).
    pub next: u16,
}

impl Descriptor {
    /// `VIRTQ_DESC_F_NEXT`
    pub const NEXT: u16 = 1;
    /// `VIRTQ_DESC_F_WRITE`
    pub const WRITE: u16 = 2;
    /// `VIRTQ_DESC_F_INDIRECT`
    pub const INDIRECT: u16 = 4;
    /// The size of a descriptor in bytes.
    pub const LEN: u64 = 16;

    /// A buffer that the device reads.
    #[must_use]
    pub const fn readable(addr: u64, len: u32) -> Self {
        Self::last(addr, len, 0)
    }

    /// A buffer that the device writes.
    #[must_use]
    pub const fn writable(addr: u64, len: u32) -> Self {
        Self::last(addr, len, Self::WRITE)
    }

    /// An indirect table of `len` bytes.
    #[must_use]
    pub const fn table(addr: u64, len: u32) -> Self {
        Self::last(addr, len, Self::INDIRECT)
    }

    const fn last(addr: u64, len: u32, flags: u16) -> Self {
        let next = 0;
        Self {
            addr,
            len,
            flags,
            next,
        }
    }

    /// The same descriptor with another one after it.
    #[must_use]
    pub const fn then(mut self, next: u16) -> Self {
        self.flags |= Self::NEXT;
        self.next = next;
        self
    }

    /// Encodes the descriptor as guest memory contains it.
    #[must_use]
    pub fn encode(&self) -> [u8; 16] {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&self.addr.to_le_bytes());
        raw[8..12].copy_from_slice(&self.len.to_le_bytes());
        raw[12..14].copy_from_slice(&self.flags.to_le_bytes());
        raw[14..].copy_from_slice(&self.next.to_le_bytes());
        raw
    }
}
