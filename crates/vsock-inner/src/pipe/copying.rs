// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How long pieces are copied into blocks: with ordinary or with streaming stores ([ADR
//! 0018][adr]).
//!
//! An ordinary store first fetches its cache line. If the reader has the line, on a core that does
//! not share a cache with this one, the fetch takes ten times as long as the copy. A streaming
//! store fetches nothing, but leaves the bytes in no cache, so the reader must fetch them from
//! memory. Where the reader runs is unknown and changes, so the writer compares: after every 256
//! long copies it measures one of each kind. It switches to streaming stores if the ordinary copy
//! takes more than eight times as long, and back if it takes less than four times as long.
//!
//! [adr]: ../../../../docs/adr/0018-streaming-stores.md

use std::time::{Duration, Instant};

use crate::sync::Stores;

/// Shorter pieces always use ordinary stores, because streaming stores end with a wait for memory.
const LEAST: usize = 4096;
/// Long copies before the first comparison: one [cycle](super::pool::Pool::CYCLE), after which the
/// reader has had every block.
const FIRST: u32 = 16;
/// Long copies between two comparisons. One copy of each comparison uses the slower kind, so if
/// that takes ten times as long, it costs 4 %. A reader that moves to another core is noticed after
/// 4 MiB.
const PERIOD: u32 = 256;
/// Streaming starts when an ordinary copy takes more than this many times as long. Between cores
/// that share a cache it takes about five times as long, and there the reader would lose more than
/// the writer gains. Between other cores it takes ten to twenty times as long.
const BEGIN: u64 = 8;
/// Streaming stops when an ordinary copy takes less than this many times as long. A single ordinary
/// copy among streaming ones finds lines that the reader has lost, so it is faster than in a
/// series: about three times as long as a streaming copy on cores that share a cache, and six to
/// twenty times on other cores.
const END: u64 = 4;

/// What a writer has learnt about the two kinds of copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copying {
    stores: Stores,
    /// Long copies until the next comparison.
    left: u32,
    /// The cost of a copy of the current kind, once a comparison has begun.
    usual: Option<Cost>,
}

/// A copy that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct LongCopy {
    pub(super) stores: Stores,
    /// When it started, if it is measured.
    since: Option<Instant>,
}

/// The time of a copy, relative to its length.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Cost(u64);

impl Copying {
    pub(super) const fn new() -> Self {
        Self {
            stores: Stores::Cached,
            left: FIRST,
            usual: None,
        }
    }

    /// Whether a piece of `len` bytes uses the kind of store chosen here, rather than always
    /// ordinary ones.
    #[inline]
    pub(super) const fn compares(len: usize) -> bool {
        Stores::HAS_STREAMING && len >= LEAST
    }

    /// Decides how to copy the next long piece.
    pub(super) fn begin(&mut self) -> LongCopy {
        if self.left > 0 {
            self.left -= 1;
            return LongCopy {
                stores: self.stores,
                since: None,
            };
        }
        let stores = match self.usual {
            None => self.stores,
            Some(_) => self.stores.other(),
        };
        let since = Some(Instant::now());
        LongCopy { stores, since }
    }

    /// Completes that copy, of `len` bytes.
    pub(super) fn end(&mut self, copy: LongCopy, len: usize) {
        if let Some(since) = copy.since {
            self.learn(Cost::of(since.elapsed(), len));
        }
    }

    /// Learns the cost of a measured copy: first one of the current kind, then one of the other.
    fn learn(&mut self, cost: Cost) {
        let Some(usual) = self.usual.take() else {
            self.usual = Some(cost);
            return;
        };
        self.stores = match self.stores {
            Stores::Cached if usual > cost.times(BEGIN) => Stores::Streaming,
            Stores::Streaming if cost < usual.times(END) => Stores::Cached,
            stores => stores,
        };
        self.left = PERIOD;
    }
}

impl Cost {
    fn of(time: Duration, len: usize) -> Self {
        // In picoseconds per byte. The value saturates for a copy that takes an hour.
        let picos = time.as_nanos().saturating_mul(1000) / len as u128;
        Self(u64::try_from(picos).unwrap_or(u64::MAX))
    }

    const fn times(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

#[cfg(all(test, target_arch = "x86_64", not(loom)))]
mod tests {
    use super::{Copying, Cost, FIRST, LEAST, PERIOD};
    use crate::sync::Stores;

    /// Makes copies with the given costs: cached, streaming.
    fn run(copying: &mut Copying, copies: u32, (cached, streaming): (u64, u64)) -> [u32; 2] {
        let mut counts = [0; 2];
        for _ in 0..copies {
            let copy = copying.begin();
            let cost = match copy.stores {
                Stores::Cached => cached,
                Stores::Streaming => streaming,
            };
            counts[copy.stores as usize] += 1;
            if copy.since.is_some() {
                copying.learn(Cost(cost));
            }
        }
        counts
    }

    #[test]
    fn the_faster_kind_is_found_and_one_copy_in_a_period_uses_the_other() {
        let mut copying = Copying::new();
        assert_eq!(run(&mut copying, FIRST + 2, (500, 40)), [FIRST + 1, 1]);
        assert_eq!(
            run(&mut copying, 3 * (PERIOD + 2), (500, 40)),
            [3, 3 * (PERIOD + 1)]
        );
        // The reader has moved to this core.
        run(&mut copying, PERIOD + 2, (20, 50));
        assert_eq!(
            run(&mut copying, 3 * (PERIOD + 2), (20, 50)),
            [3 * (PERIOD + 1), 3]
        );
    }

    #[test]
    fn stores_switch_above_eight_times_and_switch_back_below_four() {
        let mut copying = Copying::new();
        assert_eq!(run(&mut copying, FIRST + 2, (320, 40)), [FIRST + 1, 1]);
        assert_eq!(
            run(&mut copying, PERIOD + 2, (320, 40)),
            [PERIOD + 1, 1],
            "eight times as long is not enough"
        );
        assert_eq!(run(&mut copying, PERIOD + 2, (321, 40)), [PERIOD + 1, 1]);
        assert_eq!(
            run(&mut copying, PERIOD + 2, (160, 40)),
            [1, PERIOD + 1],
            "more than eight times is"
        );
        assert_eq!(
            run(&mut copying, PERIOD + 2, (159, 40)),
            [1, PERIOD + 1],
            "four times as long is enough to stay"
        );
        assert_eq!(
            run(&mut copying, PERIOD + 2, (159, 40)),
            [PERIOD + 1, 1],
            "less than four times is not"
        );
    }

    #[test]
    fn short_pieces_are_always_copied_by_ordinary_stores() {
        assert!(Copying::compares(LEAST));
        assert!(!Copying::compares(LEAST - 1));
    }
}
