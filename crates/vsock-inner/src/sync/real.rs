// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The primitives that ship.

#![expect(unsafe_code, reason = "raw cells: the pipe's files argue every use")]

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use rustix::event::{EventfdFlags, eventfd};

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

/// How many bytes a block holds. With its header it is 16 KiB.
pub(crate) const BLOCK_BYTES: usize = 16 * 1024 - 64;

/// Runs a caller's code, which must not harm the thread that happens to run it: the panic hook
/// reports a panic, and it is caught here.
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

/// An eventfd that never blocks.
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

    /// Takes the counter to zero.
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

/// A value that two threads reach, under a protocol that its user argues.
#[derive(Debug)]
pub(crate) struct Shared<T>(UnsafeCell<T>);

impl<T> Shared<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// No other access may be going on, and all earlier ones must have happened before.
    #[inline]
    pub(crate) unsafe fn replace(&self, value: T) -> T {
        // SAFETY: by the caller's promise this is the only access.
        unsafe { self.0.get().replace(value) }
    }
}

impl<T: Copy> Shared<T> {
    /// # Safety
    ///
    /// No write may be going on, and all earlier ones must have happened before.
    #[inline]
    pub(crate) unsafe fn get(&self) -> T {
        // SAFETY: by the caller's promise no thread writes.
        unsafe { *self.0.get() }
    }

    /// # Safety
    ///
    /// No other access may be going on, and all earlier ones must have happened before.
    #[inline]
    pub(crate) unsafe fn set(&self, value: T) {
        // SAFETY: by the caller's promise this is the only access.
        unsafe { *self.0.get() = value }
    }
}

/// The bytes of a block, each of them owned by the writer until published and by the reader after.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Bytes(UnsafeCell<[MaybeUninit<u8>; BLOCK_BYTES]>);

impl Bytes {
    /// Copies `bytes` to `at`.
    ///
    /// # Safety
    ///
    /// The range must lie in the block, and belong to the caller alone.
    #[inline]
    pub(crate) unsafe fn fill(&self, at: usize, bytes: &[u8]) {
        debug_assert!(at + bytes.len() <= BLOCK_BYTES);
        let start = self.0.get().cast::<u8>();
        // SAFETY: `at` lies in the block, by the caller's promise.
        let to = unsafe { start.add(at) };
        // SAFETY: the range lies in the block and is the caller's; `bytes` is elsewhere, because no
        // safe reference to a range of a block outlives the closure of `view`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Where the byte `at` lies.
    ///
    /// # Safety
    ///
    /// `at` must lie in the block.
    #[cfg(feature = "vm-memory")]
    pub(crate) unsafe fn at(&self, at: usize) -> *mut u8 {
        debug_assert!(at < BLOCK_BYTES);
        // SAFETY: by the caller's promise.
        unsafe { self.0.get().cast::<u8>().add(at) }
    }

    /// Shows the `len` bytes from `at` on.
    ///
    /// # Safety
    ///
    /// The range must lie in the block, be filled, and belong to the caller alone.
    #[inline]
    pub(crate) unsafe fn view<R>(&self, at: usize, len: usize, f: impl FnOnce(&[u8]) -> R) -> R {
        debug_assert!(at + len <= BLOCK_BYTES);
        let start = self.0.get().cast::<u8>();
        // SAFETY: `at` lies in the block, by the caller's promise.
        let from = unsafe { start.add(at) };
        // SAFETY: the range was filled and no thread writes to it while it is the caller's.
        f(unsafe { std::slice::from_raw_parts(from, len) })
    }
}
