// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The budget of a task, with which tokio makes busy tasks yield to the others of their thread.

use std::task::{Context, Poll, ready};

use tokio::task::coop::poll_proceed;

/// Takes a step if the task has budget left, and charges the budget if the step made progress.
#[inline]
pub(crate) fn within_budget<T>(
    cx: &mut Context<'_>,
    step: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let budget = ready!(poll_proceed(cx));
    let done = step(cx);
    if done.is_ready() {
        budget.made_progress();
    }
    done
}
