// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An endless byte pattern for each seed. A byte that is lost, duplicated, moved or from another
//! connection does not match its position.

/// The pattern of one seed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pattern(u64);

impl Pattern {
    /// Creates the pattern of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// Writes the bytes that begin at position `at`.
    pub fn fill(self, buffer: &mut [u8], at: u64) {
        self.pieces(buffer.len(), at, |range, bytes| {
            buffer[range].copy_from_slice(bytes);
            true
        });
    }

    /// Returns the first position that does not match, if `bytes` begin at position `at`.
    #[must_use]
    pub fn wrong(self, bytes: &[u8], at: u64) -> Option<u64> {
        let mut wrong = None;
        self.pieces(bytes.len(), at, |range, expected| {
            let start = range.start;
            let got = &bytes[range];
            if got == expected {
                return true;
            }
            let equal = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
            wrong = Some(at + (start + equal) as u64);
            false
        });
        wrong
    }

    /// Visits a range of the pattern in words of eight bytes, or fewer at its ends.
    fn pieces(
        self,
        len: usize,
        at: u64,
        mut visit: impl FnMut(std::ops::Range<usize>, &[u8]) -> bool,
    ) {
        let mut done = 0;
        while done < len {
            let place = at + done as u64;
            let word = self.word(place / 8).to_le_bytes();
            let skip = usize::try_from(place % 8).unwrap_or(0);
            let count = (8 - skip).min(len - done);
            if !visit(done..done + count, &word[skip..skip + count]) {
                return;
            }
            done += count;
        }
    }

    fn word(self, index: u64) -> u64 {
        let mixed = (self.0 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 29)
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_piece_is_the_same_at_every_alignment() {
        let mut whole = [0; 100];
        Pattern::new(7).fill(&mut whole, 0);
        for at in 0..40 {
            let mut piece = [0; 33];
            Pattern::new(7).fill(&mut piece, at as u64);
            assert_eq!(piece, whole[at..at + 33], "{at}");
        }
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        let mut bytes = [0; 64];
        Pattern::new(1).fill(&mut bytes, 5);
        assert_eq!(Pattern::new(1).wrong(&bytes, 5), None);
        bytes[30] ^= 1;
        assert_eq!(Pattern::new(1).wrong(&bytes, 5), Some(35));
    }

    #[test]
    fn another_seed_or_position_does_not_match() {
        let mut bytes = [0; 64];
        Pattern::new(1).fill(&mut bytes, 0);
        assert!(Pattern::new(2).wrong(&bytes, 0).is_some());
        assert!(Pattern::new(1).wrong(&bytes, 8).is_some());
    }
}
