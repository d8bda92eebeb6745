// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Handles panics of foreign code: backends, streams, and the payloads of their panics.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

use crate::error::VhostUserError;

/// Makes a call, and turns a panic into an error. Everything that the call has changed must remain
/// usable after a panic.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, VhostUserError> {
    panic::catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        discard(payload);
        VhostUserError::Panicked
    })
}

/// Makes a call for each item, regardless of panics, and resumes the first panic at the end.
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
        #[expect(clippy::mem_forget, reason = "each drop could panic again")]
        mem::forget(again);
    }
}
