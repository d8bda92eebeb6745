// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Panics of code that is not ours: a backend, a stream, or what they panicked with.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

use crate::error::VhostUserError;

/// Calls, and turns a panic into an error. What was changed by then must be fit for use after it.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, VhostUserError> {
    panic::catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        discard(payload);
        VhostUserError::Panicked
    })
}

/// Does this with each, however many of them panic, and passes the first panic on then.
pub(crate) fn for_each<T>(items: impl Iterator<Item = T>, mut call: impl FnMut(T)) {
    let mut first = None;
    for item in items {
        match panic::catch_unwind(AssertUnwindSafe(|| call(item))) {
            Ok(()) => {}
            Err(payload) if first.is_none() => first = Some(payload),
            Err(payload) => discard(payload),
        }
    }
    if let Some(payload) = first {
        panic::resume_unwind(payload);
    }
}

/// Drops the payload of a panic, which may panic as well.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        #[expect(clippy::mem_forget, reason = "to drop it might go on for ever")]
        mem::forget(again);
    }
}
