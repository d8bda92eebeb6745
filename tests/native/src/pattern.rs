// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes that identify their position in a stream. They are generated and checked at memory speed.

use anyhow::{Result, ensure};

/// A prime, so that a lost or duplicated power of two is noticed.
const PERIOD: usize = 65_521;
/// The longest range.
pub(crate) const MAX: usize = 64 * 1024;

/// A byte stream with a period of [`PERIOD`].
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new() -> Self {
        let mut state = 1_u32;
        let mut period = Vec::with_capacity(PERIOD);
        for _ in 0..PERIOD {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            period.push(state.to_be_bytes()[0]);
        }
        Self(period.iter().copied().cycle().take(PERIOD + MAX).collect())
    }

    /// Returns `len` bytes from `position` on. `len` is at most [`MAX`].
    pub(crate) fn at(&self, position: u64, len: usize) -> &[u8] {
        let from = usize::try_from(position % PERIOD as u64).unwrap_or(0);
        &self.0[from..][..len]
    }

    /// Checks that `bytes` are the stream's from `position` on.
    pub(crate) fn check(&self, position: u64, bytes: &[u8]) -> Result<()> {
        ensure!(
            self.at(position, bytes.len()) == bytes,
            "received bytes that were not sent, in the piece at byte {position}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX, Pattern};

    #[test]
    fn bytes_identify_their_position() {
        let pattern = Pattern::new();
        let far = (1 << 40) + 3;
        let bytes = pattern.at(far, MAX).to_vec();
        pattern.check(far, &bytes).unwrap();
        for other in [far + 1, far - 1, far + 4096, far + MAX as u64, far + 3732] {
            assert!(pattern.check(other, &bytes).is_err(), "{other}");
        }
        let half = MAX / 2;
        pattern.check(far + half as u64, &bytes[half..]).unwrap();
    }
}
