// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two ways to copy bytes into memory that another core reads.

#![cfg_attr(
    not(all(test, loom)),
    expect(
        unsafe_code,
        reason = "stores that bypass the caches are processor instructions"
    )
)]

/// How bytes are stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stores {
    /// Through the caches.
    Cached,
    /// Directly to memory, without fetching the cache lines first.
    Streaming,
}

impl Stores {
    /// Whether this target has both kinds.
    pub(crate) const HAS_STREAMING: bool =
        cfg!(all(target_arch = "x86_64", not(all(test, loom)), not(miri)));

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Cached => Self::Streaming,
            Self::Streaming => Self::Cached,
        }
    }

    /// Copies `len` bytes. A thread that synchronizes with a later release of this thread sees
    /// them.
    ///
    /// # Safety
    ///
    /// As for [`std::ptr::copy_nonoverlapping`].
    #[inline]
    #[cfg(not(all(test, loom)))]
    pub(crate) unsafe fn copy(self, from: *const u8, to: *mut u8, len: usize) {
        match self {
            // SAFETY: by the caller's promise.
            Self::Cached => unsafe { std::ptr::copy_nonoverlapping(from, to, len) },
            // SAFETY: by the caller's promise.
            Self::Streaming => unsafe { streaming::copy(from, to, len) },
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(all(test, loom)), not(miri)))]
mod streaming {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    use std::ptr;

    const LINE: usize = 64;
    const WORD: usize = size_of::<__m128i>();

    /// # Safety
    ///
    /// As for [`ptr::copy_nonoverlapping`].
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
        // Stream only whole lines: memory would have to merge a partial one.
        let head = to.align_offset(LINE).min(len);
        let tail = head + (len - head) / LINE * LINE;
        // SAFETY: a part of the range that the caller has promised.
        unsafe { copy_part(from, to, 0, head) };
        for at in (head..tail).step_by(WORD) {
            // SAFETY: `at` is less than `len`.
            let source = unsafe { from.add(at) };
            // SAFETY: as above.
            let place = unsafe { to.add(at) };
            // SAFETY: `WORD` bytes are readable, and need not be aligned.
            let word = unsafe { _mm_loadu_si128(source.cast()) };
            // SAFETY: the place is in a whole line, at a multiple of `WORD`.
            unsafe { _mm_stream_si128(place.cast(), word) };
        }
        // SAFETY: as above.
        unsafe { copy_part(from, to, tail, len) };
        // SAFETY: every x86-64 processor has this instruction. Without it, a release would not
        // cover the streaming stores.
        unsafe { _mm_sfence() };
    }

    /// # Safety
    ///
    /// As for [`ptr::copy_nonoverlapping`], for the bytes from `begin` to `end`.
    unsafe fn copy_part(from: *const u8, to: *mut u8, begin: usize, end: usize) {
        // SAFETY: by the caller's promise.
        let from = unsafe { from.add(begin) };
        // SAFETY: by the caller's promise.
        let to = unsafe { to.add(begin) };
        // SAFETY: by the caller's promise.
        unsafe { ptr::copy_nonoverlapping(from, to, end - begin) };
    }
}

#[cfg(all(any(not(target_arch = "x86_64"), miri), not(all(test, loom))))]
mod streaming {
    /// # Safety
    ///
    /// As for [`std::ptr::copy_nonoverlapping`].
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Stores;

    #[test]
    fn both_kinds_of_store_copy_exactly_the_given_bytes() {
        let from: Vec<u8> = (0..=255).cycle().take(1024).collect();
        for stores in [Stores::Cached, Stores::Streaming] {
            for (at, begin, len) in (0..70)
                .flat_map(|at| [0, 1, 8, 16].map(|begin| (at, begin)))
                .flat_map(|(at, begin)| {
                    [0, 1, 15, 63, 64, 65, 128, 200, 513].map(|len| (at, begin, len))
                })
            {
                let mut to = vec![7; 1024];
                let mut expected = to.clone();
                expected[at..at + len].copy_from_slice(&from[begin..begin + len]);
                let (source, place) = (from[begin..].as_ptr(), to[at..].as_mut_ptr());
                // SAFETY: both buffers are separate, and have at least `len` more bytes.
                unsafe { stores.copy(source, place, len) };
                assert!(
                    to == expected,
                    "{stores:?}: {len} bytes from {begin} to {at}"
                );
            }
        }
    }
}
