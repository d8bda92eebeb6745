// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The dirty log of a live migration: a bitmap in a file of the front-end, with a bit for each 4
//! KiB page of guest memory that the device has written (vhost-user, "Migration").
//!
//! The device marks a page *after* it has written it. The front-end clears a bit *before* it copies
//! the page:
//!
//! ```text
//! device                                   front-end
//!   1. writes the page                       a. reads and clears the bit, atomically
//!   2. sets the bit, atomically              b. copies the page
//! ```
//!
//! If (a) finds the bit of (2), (b) sees the bytes of (1). If (a) comes before (2), the bit remains
//! in the log, and the page is copied again. If the device set the bit first, both (a) and (b)
//! could happen before its write, and the front-end would miss the write. A plain store in (2)
//! could lose bits of other pages.
//!
//! Within a step, the device may set a bit after the guest has seen the used buffer. That does no
//! harm: the front-end copies the last pages after it has stopped the queues, and `GET_VRING_BASE`
//! takes the worker's lock, so its answer comes after the last page was marked. Likewise, no bit is
//! set in the previous log after the answer to `SET_LOG_BASE`.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;
use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::{MmapRegion, VolatileMemory};

use crate::shared_file::{FileError, Part, SealedMemory};

/// The size of a page in the log in bytes, regardless of the system's page size.
pub(crate) const LOG_PAGE: u64 = 4096;

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    #[error("the log of dirty pages cannot be used")]
    File(#[source] FileError),
    #[error(
        "the log of dirty pages is too small: expected {needed} bytes, one bit for each 4 KiB \
         page of memory up to {end:#x}, found {len}"
    )]
    Small { len: u64, needed: u64, end: u64 },
}

/// Checks that a log of `len` bytes has a bit for each page of memory that ends at `end`.
fn check_covers(len: u64, end: u64) -> Result<(), LogError> {
    let needed = end.div_ceil(LOG_PAGE).div_ceil(8);
    if len < needed {
        return Err(LogError::Small { len, needed, end });
    }
    Ok(())
}

/// A mapped log.
#[derive(Debug)]
pub(crate) struct LogFile(MmapRegion);

impl LogFile {
    /// Maps a log for memory that ends at `end`.
    ///
    /// This may block until the owner of the file responds.
    pub(crate) fn map(
        file: File,
        part: Part,
        end: u64,
        sealed: SealedMemory,
    ) -> Result<Self, LogError> {
        part.check(&file, sealed).map_err(LogError::File)?;
        check_covers(part.len, end)?;
        part.map(file, ()).map(Self).map_err(LogError::File)
    }

    fn len(&self) -> u64 {
        self.0.size() as u64
    }

    /// Sets the bits from page `first` to page `last`. Skips bits beyond the end, which cannot
    /// belong to guest memory: memory without bits was refused.
    fn set(&self, first: u64, last: u64) {
        for byte in first / 8..=last / 8 {
            // All bits of a byte, except before `first` and after `last`.
            let from = if byte == first / 8 { first % 8 } else { 0 };
            let to = if byte == last / 8 { last % 8 } else { 7 };
            let bits = (u8::MAX << from) & (u8::MAX >> (7 - to));
            let place = usize::try_from(byte).ok();
            let place = place.and_then(|at| self.0.get_atomic_ref::<AtomicU8>(at).ok());
            if let Some(place) = place {
                // ORDER: Release; partner: the front-end's exchange that takes the bits. A
                // front-end that sees the bit also sees the write to the page.
                place.fetch_or(bits, Ordering::Release);
            }
        }
    }
}

/// A front-end's log, if it has passed one, and whether pages are marked in it. All memory regions
/// share it.
#[derive(Debug, Default)]
pub(crate) struct DirtyLog {
    /// Whether there is a log in which pages are to be marked.
    is_on: AtomicBool,
    file: RwLock<Option<LogFile>>,
}

impl DirtyLog {
    /// Switches to another log and returns the previous one, in which no page is marked from now
    /// on. Unmapping that one may block.
    #[must_use = "drop it without the worker's lock"]
    pub(crate) fn replace(&self, file: LogFile) -> Option<LogFile> {
        let mut place = self.file.write().unwrap_or_else(PoisonError::into_inner);
        place.replace(file)
    }

    /// Turns marking on or off.
    ///
    /// Call this with the worker locked, so that it takes effect for every later write.
    pub(crate) fn switch(&self, marking: Marking) {
        // One flag for both conditions, so that a write without a migration costs one load.
        let is_on = marking == Marking::On && self.len().is_some();
        // ORDER: Relaxed; partner: the load in `mark`, under the same lock of the worker.
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Checks that the log, if there is one, has a bit for each page of memory that ends at `end`.
    pub(crate) fn check_covers(&self, end: u64) -> Result<(), LogError> {
        self.len().map_or(Ok(()), |len| check_covers(len, end))
    }

    fn len(&self) -> Option<u64> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().map(LogFile::len)
    }

    /// Marks the pages of a write to a guest address.
    #[inline]
    fn mark(&self, start: u64, len: usize) {
        // ORDER: Relaxed; partner: the store in `switch`, under the same lock of the worker.
        if self.is_on.load(Ordering::Relaxed) && len > 0 {
            self.mark_pages(start, len as u64 - 1);
        }
    }

    #[cold]
    fn mark_pages(&self, start: u64, more: u64) {
        let last = start.saturating_add(more);
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            file.set(start / LOG_PAGE, last / LOG_PAGE);
        }
    }

    fn is_marked(&self, address: u64) -> bool {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let page = address / LOG_PAGE;
        let place = usize::try_from(page / 8).ok();
        let place = place.zip(file.as_ref());
        let place = place.and_then(|(at, file)| file.0.get_atomic_ref::<AtomicU8>(at).ok());
        // ORDER: Relaxed; partner: none, the answer orders nothing.
        place.is_some_and(|bits| bits.load(Ordering::Relaxed) & (1 << (page % 8)) != 0)
    }
}

/// Whether the front-end wants the device to mark written pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Marking {
    On,
    Off,
}

/// A memory region's view of the log.
#[derive(Debug)]
pub(crate) struct RegionLog {
    log: Arc<DirtyLog>,
    /// The region's guest address.
    start: u64,
}

impl RegionLog {
    pub(crate) const fn new(log: Arc<DirtyLog>, start: u64) -> Self {
        Self { log, start }
    }
}

/// A view of the log from a guest address on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogSlice<'a> {
    log: &'a DirtyLog,
    start: u64,
}

impl LogSlice<'_> {
    const fn at(&self, offset: usize) -> u64 {
        self.start.wrapping_add(offset as u64)
    }
}

impl<'a> WithBitmapSlice<'a> for RegionLog {
    type S = LogSlice<'a>;
}

impl Bitmap for RegionLog {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.slice_at(0).mark_dirty(offset, len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.slice_at(0).dirty_at(offset)
    }

    fn slice_at(&self, offset: usize) -> LogSlice<'_> {
        let (log, start) = (&*self.log, self.start);
        let start = LogSlice { log, start }.at(offset);
        LogSlice { log, start }
    }
}

impl WithBitmapSlice<'_> for LogSlice<'_> {
    type S = Self;
}

impl BitmapSlice for LogSlice<'_> {}

impl Bitmap for LogSlice<'_> {
    #[inline]
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.log.mark(self.at(offset), len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.log.is_marked(self.at(offset))
    }

    #[inline]
    fn slice_at(&self, offset: usize) -> Self {
        let start = self.at(offset);
        Self { start, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::{prop_assert_eq, proptest};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    /// The size of a page, as a `usize`.
    const PAGE: usize = 4096;

    /// Creates a log of this many bytes.
    fn file(len: u64) -> LogFile {
        let file = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, len).unwrap();
        let part = Part { offset: 0, len };
        LogFile::map(file.into(), part, 0, SealedMemory::NotRequired).unwrap()
    }

    /// Creates a log of this many bytes, with marking turned on.
    fn log(len: u64) -> Arc<DirtyLog> {
        let log = DirtyLog::default();
        assert!(log.replace(file(len)).is_none());
        log.switch(Marking::On);
        Arc::new(log)
    }

    fn marked(log: &DirtyLog, pages: u64) -> BTreeSet<u64> {
        (0..pages)
            .filter(|page| log.is_marked(page * LOG_PAGE))
            .collect()
    }

    #[test]
    fn t123_each_bit_is_a_page_of_4_kib_lowest_first() {
        let log = log(2);
        let region = RegionLog::new(Arc::clone(&log), 8 * LOG_PAGE);
        region.slice_at(PAGE - 1).mark_dirty(0, 2);
        let file = log.file.read().unwrap();
        let mut bytes = [0_u8; 2];
        let bits = file.as_ref().unwrap().0.as_volatile_slice();
        bits.copy_to(&mut bytes[..]);
        assert_eq!(bytes, [0, 0b11]);
        assert!(region.dirty_at(0) && !region.dirty_at(2 * PAGE));
    }

    #[test]
    fn t123_an_empty_write_and_a_disabled_log_mark_no_page() {
        let log = log(1);
        log.mark(0, 0);
        log.switch(Marking::Off);
        log.mark(0, 1);
        assert_eq!(marked(&log, 8), BTreeSet::new());
        let without = DirtyLog::default();
        without.switch(Marking::On);
        without.mark(0, 1);
        assert_eq!(marked(&without, 8), BTreeSet::new());
    }

    #[test]
    fn t123_pages_beyond_the_log_are_ignored() {
        let log = log(1);
        log.mark(7 * LOG_PAGE, 2 * PAGE);
        log.mark(u64::MAX, 9);
        assert_eq!(marked(&log, 16), BTreeSet::from([7]));
    }

    #[test]
    fn t123_a_log_needs_a_bit_for_each_page_of_memory() {
        for (len, end, is_enough) in [
            (1, 8 * LOG_PAGE, true),
            (1, 8 * LOG_PAGE + 1, false),
            (2, 8 * LOG_PAGE + 1, true),
            (1, 0, true),
            (1 << 40, u64::MAX, false),
        ] {
            assert_eq!(check_covers(len, end).is_ok(), is_enough, "{len} {end}");
        }
    }

    proptest! {
        #[test]
        fn t123_the_pages_of_each_write_are_marked_and_no_others(
            writes in vec((0..60 * LOG_PAGE, 0..5 * LOG_PAGE), 0..20)
        ) {
            let log = log(9);
            let mut expected = BTreeSet::new();
            for (start, len) in writes {
                log.mark(start, usize::try_from(len).unwrap());
                expected.extend((start..start + len).map(|at| at / LOG_PAGE));
            }
            prop_assert_eq!(marked(&log, 72), expected);
        }
    }
}
