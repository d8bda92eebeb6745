// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The primitives that ship.

#![expect(
    unsafe_code,
    reason = "raw cells: the files of the pipe justify every use"
)]

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::event::{EventfdFlags, eventfd};

use super::Stores;

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

/// The number of bytes in a block. With its header it occupies 16 KiB.
pub(crate) const BLOCK_BYTES: usize = 16 * 1024 - 64;

/// Runs a caller's code without letting a panic reach the thread that happens to run it. The panic
/// hook reports the panic, which is then discarded.
pub(crate) fn contain(foreign: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(foreign)) {
        if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            let _kept: &mut _ = Box::leak(worse); // its drop may panic in turn
        }
    }
}

pub(crate) fn downgrade<T>(shared: &Arc<T>) -> Weak<T> {
    Arc::downgrade(shared)
}

/// A non-blocking eventfd.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Adds to the counter.
    pub(crate) fn write(&self, value: u64) -> io::Result<()> {
        rustix::io::write(&self.0, &value.to_ne_bytes())?;
        Ok(())
    }

    /// Resets the counter to zero.
    pub(crate) fn read(&self) -> io::Result<()> {
        rustix::io::read(&self.0, &mut [0; size_of::<u64>()])?;
        Ok(())
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A value that two threads access, under a protocol that each user justifies.
#[derive(Debug)]
pub(crate) struct Shared<T>(UnsafeCell<T>);

impl<T> Shared<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// There must be no concurrent access, and all earlier ones must have happened before.
    #[inline]
    pub(crate) unsafe fn replace(&self, value: T) -> T {
        // SAFETY: by the caller's promise this is the only access.
        unsafe { self.0.get().replace(value) }
    }
}

impl<T: Copy> Shared<T> {
    /// # Safety
    ///
    /// There must be no concurrent write, and all earlier ones must have happened before.
    #[inline]
    pub(crate) unsafe fn get(&self) -> T {
        // SAFETY: by the caller's promise no thread writes.
        unsafe { *self.0.get() }
    }

    /// # Safety
    ///
    /// There must be no concurrent access, and all earlier ones must have happened before.
    #[inline]
    pub(crate) unsafe fn set(&self, value: T) {
        // SAFETY: by the caller's promise this is the only access.
        unsafe { *self.0.get() = value }
    }
}

/// The bytes of a block. Each belongs to the writer until it is published, and then to the reader.
///
/// They start at a cache line, so that short messages occupy as few lines as possible. In addition,
/// on some processors `memcpy` with `rep movsb` is up to 30 times slower if the destination is 1 to
/// 15 bytes further into its page than the source.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Bytes(UnsafeCell<[MaybeUninit<u8>; BLOCK_BYTES]>);

impl Bytes {
    /// Copies `len` bytes from `from` to `at`.
    ///
    /// # Safety
    ///
    /// The range must be within the block and belong to the caller; `from` must be readable for
    /// `len` bytes.
    #[inline]
    pub(crate) unsafe fn fill(&self, at: usize, from: *const u8, len: usize, stores: Stores) {
        debug_assert!(at + len <= BLOCK_BYTES);
        let start = self.0.get().cast::<u8>();
        // SAFETY: `at` is within the block, by the caller's promise.
        let to = unsafe { start.add(at) };
        // SAFETY: the range is within the block and belongs to the caller. The source is elsewhere,
        // because no safe reference to a range of a block outlives the closure of `view`.
        unsafe { stores.copy(from, to, len) }
    }

    /// Passes the `len` bytes from `at` on to `f`.
    ///
    /// # Safety
    ///
    /// The range must be within the block, be filled, and belong to the caller.
    #[inline]
    pub(crate) unsafe fn view<R>(&self, at: usize, len: usize, f: impl FnOnce(&[u8]) -> R) -> R {
        debug_assert!(at + len <= BLOCK_BYTES);
        let start = self.0.get().cast::<u8>();
        // SAFETY: `at` is within the block, by the caller's promise.
        let from = unsafe { start.add(at) };
        // SAFETY: the range has been filled, and no thread writes to it while it belongs to the
        // caller.
        f(unsafe { std::slice::from_raw_parts(from, len) })
    }
}
