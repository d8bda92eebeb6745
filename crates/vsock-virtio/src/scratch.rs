// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ordinary memory between guest memory and a stream that only knows such.

/// Bytes of payload that a packet may have: as many as Linux sends and accepts at once.
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;

/// A buffer for one call of a stream. It has no memory before it is used.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// The first `len` bytes, of whatever value, and at most 64 KiB.
    pub(crate) fn first(&mut self, len: usize) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; MAX_PAYLOAD];
        }
        let len = len.min(MAX_PAYLOAD);
        self.0.get_mut(..len).unwrap_or_default()
    }
}
