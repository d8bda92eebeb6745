// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Data in which each byte shows its position in the stream.

use std::sync::OnceLock;

/// A prime, so that no power of two that a transport uses is a multiple of it.
const PERIOD: usize = 65_521;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64; // any seed but zero: xorshift
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(PERIOD)
        .collect()
    })
}

/// A position in an endless stream of known bytes: one side writes them, the other compares them.
///
/// A byte that is lost, duplicated, changed or out of order causes a mismatch. The comparison is as
/// fast as one of memory.
///
/// ```
/// use vsock_compliance::pattern::Pattern;
///
/// let mut sent = Pattern::default();
/// let mut received = Pattern::default();
/// let bytes = sent.take(1000);
/// received.verify(&bytes[..10]).unwrap();
/// assert_eq!(received.verify(&bytes[11..]), Err(10));
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pattern {
    position: u64,
}

impl Pattern {
    /// Creates a pattern that begins at another position, so that two streams can be distinguished.
    #[must_use]
    pub fn starting_at(position: u64) -> Self {
        Self { position }
    }

    /// Returns the current position, which starts at zero.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the next `len` bytes without advancing.
    #[must_use]
    pub fn peek(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// Fills `buf` with the next bytes without advancing. When the caller knows how many of them
    /// were written, it calls [`advance`](Self::advance).
    pub fn fill(&self, buf: &mut [u8]) {
        let table = table();
        let mut at = self.offset();
        let mut rest = buf;
        while !rest.is_empty() {
            let len = rest.len().min(PERIOD - at);
            let (head, tail) = rest.split_at_mut(len);
            head.copy_from_slice(&table[at..at + len]);
            rest = tail;
            at = 0;
        }
    }

    /// Advances by `len` bytes.
    pub fn advance(&mut self, len: usize) {
        self.position += len as u64;
    }

    /// Returns the next `len` bytes and advances.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.peek(len);
        self.advance(len);
        bytes
    }

    /// Compares `bytes` with the next bytes and advances.
    ///
    /// # Errors
    ///
    /// The position of the first byte that differs, in which case the pattern does not advance.
    pub fn verify(&mut self, bytes: &[u8]) -> Result<(), u64> {
        let table = table();
        let mut at = self.offset();
        let mut done = 0;
        while done < bytes.len() {
            let len = (bytes.len() - done).min(PERIOD - at);
            let (want, got) = (&table[at..at + len], &bytes[done..done + len]);
            if want != got {
                let same = want
                    .iter()
                    .zip(got)
                    .take_while(|(want, got)| want == got)
                    .count();
                return Err(self.position + (done + same) as u64);
            }
            done += len;
            at = 0;
        }
        self.advance(bytes.len());
        Ok(())
    }

    fn offset(&self) -> usize {
        usize::try_from(self.position % PERIOD as u64).unwrap_or(0) // the remainder always fits
    }
}
