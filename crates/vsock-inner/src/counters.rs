// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Counters of a backend.

use crate::sync::{Arc, AtomicU64, AtomicUsize, Ordering};

/// A snapshot of a backend's counters.
///
/// ```
/// use vsock_inner::VsockInnerBackend;
///
/// let backend = VsockInnerBackend::new()?;
/// let stream = backend.get_connector().connect_stream()?;
/// let counters = backend.counters();
/// assert_eq!((counters.open, counters.pending, counters.refused), (1, 1, 0));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct BackendCounters {
    /// Connections of which at least one end exists, including those that wait to be accepted.
    pub open: usize,
    /// Connections that were refused since the backend was created, in either direction.
    pub refused: u64,
    /// Connections that wait to be accepted, at the backend and at its listeners.
    pub pending: usize,
}

/// The shared counters. They guard no memory, so all accesses are relaxed.
#[derive(Debug)]
pub(crate) struct Counters {
    open: AtomicUsize,
    refused: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        })
    }

    pub(crate) fn count_refused(&self) {
        // ORDER: Relaxed; partner: none, a counter.
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) -> u64 {
        // ORDER: Relaxed; partner: none, a counter.
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn open(&self) -> usize {
        // ORDER: Relaxed; partner: none, a counter.
        self.open.load(Ordering::Relaxed)
    }
}

/// Counts one connection as open while it exists.
#[derive(Debug)]
pub(crate) struct OpenGuard(Arc<Counters>);

impl OpenGuard {
    pub(crate) fn new(counters: &Arc<Counters>) -> Self {
        // ORDER: Relaxed; partner: none, a counter.
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        // ORDER: Relaxed; partner: none, a counter.
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
