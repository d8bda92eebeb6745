// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest memory of the tests.
pub type Memory = GuestMemoryMmap<()>;

/// Creates memory with these regions, each an address and a size.
#[must_use]
pub fn memory(regions: &[(u64, usize)]) -> Memory {
    let ranges: Vec<_> = regions
        .iter()
        .map(|&(start, len)| (GuestAddress(start), len))
        .collect();
    Memory::from_ranges(&ranges).expect("regions that do not overlap")
}

/// Reads bytes at an address.
#[must_use]
pub fn bytes(memory: &Memory, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory
        .read_slice(&mut bytes, GuestAddress(addr))
        .expect("a range within memory");
    bytes
}

/// Writes bytes at an address.
pub fn filled(memory: &Memory, addr: u64, bytes: &[u8]) {
    memory
        .write_slice(bytes, GuestAddress(addr))
        .expect("a range within memory");
}
