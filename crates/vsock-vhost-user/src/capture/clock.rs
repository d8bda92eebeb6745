// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The time of day in captures.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the nanoseconds since 1970, which fit until 2554.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
