// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The primitives for the model checker: loom's atomics, locks and cells, an eventfd built from
//! them, and tiny blocks.

#![expect(
    unsafe_code,
    reason = "the same cells as in the shipping primitives, checked by loom"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::LazyLock;

use loom::cell::UnsafeCell;

use super::Stores;

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Small, so that a few bytes reach the boundary between two blocks.
pub(crate) const BLOCK_BYTES: usize = 2;

/// Loom has no `Weak`. This one keeps its target alive.
pub(crate) struct Weak<T>(Arc<T>);

impl<T> Weak<T> {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "as the shipping one, which may fail"
    )]
    pub(crate) fn upgrade(&self) -> Option<Arc<T>> {
        Some(Arc::clone(&self.0))
    }
}

impl<T> Clone for Weak<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(crate) fn downgrade<T>(shared: &Arc<T>) -> Weak<T> {
    Weak(Arc::clone(shared))
}

/// Does not catch panics, because the checker reports errors as panics.
pub(crate) fn contain(foreign: impl FnOnce()) {
    foreign();
}

#[derive(Debug)]
pub(crate) struct Shared<T>(UnsafeCell<T>);

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// As in the shipping primitive.
    pub(crate) unsafe fn replace(&self, value: T) -> T {
        // SAFETY: as in the shipping primitive; loom reports a race.
        self.0.with_mut(|place| unsafe { place.replace(value) })
    }
}

impl<T: Copy> Shared<T> {
    /// # Safety
    ///
    /// As in the shipping primitive.
    pub(crate) unsafe fn get(&self) -> T {
        // SAFETY: as in the shipping primitive; loom reports a race.
        self.0.with(|value| unsafe { *value })
    }

    /// # Safety
    ///
    /// As in the shipping primitive.
    pub(crate) unsafe fn set(&self, value: T) {
        // SAFETY: as in the shipping primitive; loom reports a race.
        self.0.with_mut(|place| unsafe { *place = value });
    }
}

/// One cell for each byte, so that loom can tell which side owns it.
#[derive(Debug)]
pub(crate) struct Bytes([UnsafeCell<u8>; BLOCK_BYTES]);

impl Bytes {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| UnsafeCell::new(0)))
    }

    /// # Safety
    ///
    /// As in the shipping primitive.
    pub(crate) unsafe fn fill(&self, at: usize, from: *const u8, len: usize, _: Stores) {
        // SAFETY: as in the shipping primitive.
        let bytes = unsafe { std::slice::from_raw_parts(from, len) };
        for (cell, byte) in self.0[at..].iter().zip(bytes) {
            // SAFETY: as in the shipping primitive; loom reports a race.
            cell.with_mut(|place| unsafe { *place = *byte });
        }
    }

    /// # Safety
    ///
    /// As in the shipping primitive.
    pub(crate) unsafe fn view<R>(&self, at: usize, len: usize, f: impl FnOnce(&[u8]) -> R) -> R {
        let bytes: Vec<u8> = self.0[at..at + len]
            .iter()
            // SAFETY: as in the shipping primitive; loom reports a race.
            .map(|cell| cell.with(|byte| unsafe { *byte }))
            .collect();
        f(&bytes)
    }
}

/// The counter of an eventfd, without the descriptor.
#[derive(Debug)]
pub(crate) struct EventFd(Mutex<Counter>);

#[derive(Debug, Default)]
struct Counter {
    count: u64,
    /// For `EPOLLIN`.
    edges: usize,
    /// For `EPOLLOUT`.
    edges_out: usize,
}

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Mutex::new(Counter::default())))
    }

    pub(crate) fn write(&self, value: u64) -> io::Result<()> {
        let mut counter = self.0.lock().unwrap();
        match counter.count.checked_add(value) {
            Some(sum) if sum < u64::MAX => counter.count = sum,
            _ => return Err(io::ErrorKind::WouldBlock.into()),
        }
        counter.edges += 1;
        Ok(())
    }

    pub(crate) fn read(&self) -> io::Result<()> {
        let mut counter = self.0.lock().unwrap();
        if std::mem::take(&mut counter.count) == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        counter.edges_out += 1;
        Ok(())
    }

    /// What a poll for `EPOLLIN` would report.
    pub(crate) fn is_readable(&self) -> bool {
        self.0.lock().unwrap().count > 0
    }

    /// What a poll for `EPOLLOUT` would report.
    pub(crate) fn is_writable(&self) -> bool {
        self.0.lock().unwrap().count < u64::MAX - 1
    }

    /// How often an edge-triggered poll for `EPOLLIN` was woken.
    pub(crate) fn edges(&self) -> usize {
        self.0.lock().unwrap().edges
    }

    /// How often an edge-triggered poll for `EPOLLOUT` was woken.
    pub(crate) fn edges_out(&self) -> usize {
        self.0.lock().unwrap().edges_out
    }
}

/// Lent in place of descriptors. Nothing in a model polls it.
static LENT: LazyLock<File> = LazyLock::new(|| File::open("/dev/null").unwrap());

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        LENT.as_raw_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        LENT.as_fd()
    }
}
