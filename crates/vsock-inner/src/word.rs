// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A position and its flags in one word.
//!
//! Each side of a pipe publishes its position in a word, and the other side arms the same word to
//! be woken. One location has one order of changes, which every thread agrees on: the side that
//! publishes sees the flag that was set before, and the side that arms sees the position that came
//! before. No fence is needed to make two locations agree.

/// How many low bits are flags.
const FLAG_BITS: u32 = 8;

/// The side that waits for this word sleeps in a blocking call.
pub(crate) const PARKED: u64 = 1 << 0;
/// The side that waits for this word has its descriptor in the state "not ready".
pub(crate) const FD: u64 = 1 << 1;
/// The writer has shut down, or was dropped: the end of the bytes.
pub(crate) const FIN: u64 = 1 << 2;
/// The writer was dropped, and the bytes end in a reset. Ignored if [`FIN`] is set as well.
pub(crate) const WRITER_RESET: u64 = 1 << 3;
/// The reader has shut down, or was dropped.
pub(crate) const READ_SHUT: u64 = 1 << 4;
/// The reader was dropped, and writes fail with a reset. Ignored if [`READ_SHUT`] is set as well.
pub(crate) const READER_RESET: u64 = 1 << 5;
/// The side that waits for this word is not connected yet. No position counts as reached, only an
/// end.
pub(crate) const CONNECTING: u64 = 1 << 6;

/// A task of the side that waits for this word is asleep.
pub(crate) const TASK: u64 = 1 << 7;

/// The word is armed: the waiting side wants to be woken.
pub(crate) const ARMED: u64 = PARKED | FD | TASK;
/// The flags that end a direction for its writer.
pub(crate) const WRITE_ENDED: u64 = FIN | READ_SHUT | READER_RESET;
/// The flags that end a direction. No side waits for a position any more.
pub(crate) const ENDED: u64 = FIN | WRITER_RESET | READ_SHUT | READER_RESET;

/// A position in the stream of bytes, modulo 2^56.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Position(u64);

impl Position {
    pub(crate) const START: Self = Self(0);

    /// Number of bits in a position.
    const BITS: u32 = u64::BITS - FLAG_BITS;

    #[inline]
    pub(crate) const fn advanced_by(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes) & (u64::MAX >> FLAG_BITS))
    }

    #[inline]
    pub(crate) const fn back_by(self, bytes: u64) -> Self {
        Self(self.0.wrapping_sub(bytes) & (u64::MAX >> FLAG_BITS))
    }

    /// How far this position is ahead of `earlier`.
    #[inline]
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0) & (u64::MAX >> FLAG_BITS)
    }

    /// Whether this position is equal to `other` or ahead of it, by less than half of the range.
    #[inline]
    pub(crate) const fn reached(self, other: Self) -> bool {
        self.since(other) >> (Self::BITS - 1) == 0
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// A position with flags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    /// The amount to add to a word to advance its position. Leaves the flags unchanged.
    #[inline]
    pub(crate) const fn step(bytes: u64) -> u64 {
        bytes << FLAG_BITS
    }

    #[inline]
    pub(crate) const fn position(self) -> Position {
        Position(self.0 >> FLAG_BITS)
    }

    #[inline]
    pub(crate) const fn has(self, flags: u64) -> bool {
        self.0 & flags != 0
    }

    /// Whether a side that waits for `want` can continue.
    #[inline]
    pub(crate) const fn is_ready(self, want: Position) -> bool {
        self.has(ENDED) || (!self.has(CONNECTING) && self.position().reached(want))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{CONNECTING, ENDED, FIN, Position, Word};

    proptest! {
        #[test]
        fn a_step_moves_the_position_and_keeps_the_flags(
            start in any::<u64>(),
            bytes in 0..1u64 << 40,
        ) {
            let word = Word(start);
            let next = Word(start.wrapping_add(Word::step(bytes)));
            assert_eq!(next.position(), word.position().advanced_by(bytes));
            assert_eq!(next.position().since(word.position()), bytes);
            assert_eq!(next.0 & 0xff, word.0 & 0xff);
        }

        #[test]
        fn positions_compare_across_the_wrap(start in 0..1u64 << 56, bytes in 1..1u64 << 54) {
            let here = Position::from_bits(start);
            let ahead = here.advanced_by(bytes);
            assert!(ahead.reached(here) && here.reached(here) && !here.reached(ahead));
            assert_eq!(ahead.back_by(bytes), here);
        }
    }

    #[test]
    fn a_side_that_is_not_connected_waits_only_for_an_end() {
        assert!(Word(0).is_ready(Position::START));
        assert!(!Word(CONNECTING).is_ready(Position::START));
        assert!(Word(CONNECTING | FIN).is_ready(Position::START));
    }

    #[test]
    fn an_end_makes_any_wait_ready() {
        let far = Position::START.advanced_by(1 << 30);
        assert!(!Word(0).is_ready(far));
        for flag in (0..8).map(|bit| 1 << bit).filter(|flag| flag & ENDED != 0) {
            assert!(Word(flag).is_ready(far));
        }
    }
}
