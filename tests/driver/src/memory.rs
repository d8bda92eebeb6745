// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest memory as the tests have it.
pub type Memory = GuestMemoryMmap<()>;

/// Memory of these regions: where each begins, and its bytes.
#[must_use]
pub fn memory(regions: &[(u64, usize)]) -> Memory {
    let ranges: Vec<_> = regions
        .iter()
        .map(|&(start, len)| (GuestAddress(start), len))
        .collect();
    Memory::from_ranges(&ranges).expect("regions that do not overlap")
}

/// What lies at an address.
#[must_use]
pub fn bytes(memory: &Memory, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory
        .read_slice(&mut bytes, GuestAddress(addr))
        .expect("a range within memory");
    bytes
}

/// Puts bytes to an address.
pub fn filled(memory: &Memory, addr: u64, bytes: &[u8]) {
    memory
        .write_slice(bytes, GuestAddress(addr))
        .expect("a range within memory");
}
