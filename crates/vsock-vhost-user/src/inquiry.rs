// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A pending question to a device thread, whose answer a thread can wait for or a task can await.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Why an [`Inquiry`] has no answer.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum InspectError {
    /// The device thread did not answer in time. The request is cancelled, unless the thread was
    /// already carrying it out.
    #[error("the device did not answer in time: its thread is busy or blocked by a backend")]
    TimedOut,
    /// 64 questions already wait for the device thread.
    #[error("64 questions already wait for the device thread: ask again later")]
    Busy,
    /// The device has ended.
    #[error("the device has ended")]
    Ended,
}

/// A question that a device thread answers: see [`Inspector`](crate::Inspector).
///
/// A thread [waits](Self::wait) for the answer. A task awaits it, on any runtime, and needs a
/// timeout of its own. The device thread wakes the task, so a waker must not block. Dropping an
/// `Inquiry` cancels the question.
#[must_use = "dropping it cancels the question"]
pub struct Inquiry<T>(Arc<Slot<T>>);

/// The device's side of an [`Inquiry`]. Dropping it without an answer reports that the device has
/// ended.
pub(crate) struct Reply<T>(Arc<Slot<T>>);

struct Slot<T> {
    state: Mutex<State<T>>,
    answered: Condvar,
}

enum State<T> {
    /// There is no answer yet. The waker is that of the task that awaits it, if any.
    Asked(Option<Waker>),
    /// The answer; `None` after it was taken.
    Answered(Option<Result<T, InspectError>>),
}

/// Creates both sides of a question.
pub(crate) fn inquiry<T>() -> (Reply<T>, Inquiry<T>) {
    let slot = Arc::new(Slot {
        state: Mutex::new(State::Asked(None)),
        answered: Condvar::new(),
    });
    (Reply(Arc::clone(&slot)), Inquiry(slot))
}

impl<T> Inquiry<T> {
    /// Creates an inquiry that has already failed.
    pub(crate) fn refused(error: InspectError) -> Self {
        let (reply, inquiry) = inquiry();
        reply.0.answer(Err(error));
        inquiry
    }

    /// Waits for the answer, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// Returns an [`InspectError`] if there is no answer.
    pub fn wait(self, timeout: Duration) -> Result<T, InspectError> {
        let begun = Instant::now();
        let mut state = self.0.state();
        loop {
            if let Some(answer) = state.take() {
                return answer;
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(InspectError::TimedOut);
            }
            let waited = self.0.answered.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T> Future for Inquiry<T> {
    type Output = Result<T, InspectError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state();
        match state.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                *state = State::Asked(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> Reply<T> {
    /// Gives the answer.
    pub(crate) fn answer(self, answer: T) {
        self.0.answer(Ok(answer));
    }

    /// Whether the question was cancelled.
    pub(crate) fn is_given_up(&self) -> bool {
        // The other reference is the `Inquiry`'s.
        Arc::strong_count(&self.0) == 1
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.answer(Err(InspectError::Ended));
    }
}

impl<T> State<T> {
    /// Takes the answer, if there is one. A task that polls again after it gets an error.
    fn take(&mut self) -> Option<Result<T, InspectError>> {
        match self {
            Self::Asked(_) => None,
            Self::Answered(answer) => Some(answer.take().unwrap_or(Err(InspectError::Ended))),
        }
    }
}

impl<T> Slot<T> {
    /// Stores the first answer and wakes the waiting thread or task; ignores later answers.
    fn answer(&self, answer: Result<T, InspectError>) {
        // `Reply::answer` is followed by its drop, which answers again: that is ignored.
        let mut state = self.state();
        if let State::Asked(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Answered(Some(answer));
            // Wake without the lock, which the waiting side needs to take the answer.
            drop(state);
            self.answered.notify_all();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // A panic cannot leave this inconsistent: it is always replaced as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Inquiry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::thread;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(20);

    #[test]
    fn a_thread_gets_an_answer_that_comes_before_or_during_its_wait() {
        let (reply, asked) = inquiry();
        reply.answer(5);
        assert_eq!(asked.wait(Duration::ZERO), Ok(5));
        let (reply, asked) = inquiry();
        let waiter = thread::spawn(move || asked.wait(GENEROUS));
        reply.answer(6);
        assert_eq!(waiter.join().unwrap(), Ok(6));
    }

    #[test]
    fn a_wait_without_an_answer_ends_and_cancels_the_question() {
        let (reply, asked) = inquiry::<()>();
        assert!(!reply.is_given_up());
        assert_eq!(asked.wait(Duration::ZERO), Err(InspectError::TimedOut));
        assert!(reply.is_given_up());
        let (reply, asked) = inquiry::<()>();
        drop(reply);
        assert_eq!(asked.wait(GENEROUS), Err(InspectError::Ended));
        let refused = Inquiry::<()>::refused(InspectError::Busy);
        assert_eq!(refused.wait(GENEROUS), Err(InspectError::Busy));
    }

    #[test]
    fn a_task_is_woken_once_by_the_answer() {
        struct Counting(AtomicUsize);
        impl Wake for Counting {
            fn wake(self: Arc<Self>) {
                // ORDER: Relaxed; partner: the load below, on the same thread.
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let wakes = Arc::new(Counting(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let (reply, asked) = inquiry();
        let mut asked = pin!(asked);
        assert!(asked.as_mut().poll(&mut context).is_pending());
        reply.answer(7);
        // ORDER: Relaxed; partner: the addition above, on the same thread.
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(asked.as_mut().poll(&mut context), Poll::Ready(Ok(7)));
        let again = asked.poll(&mut context);
        assert_eq!(again, Poll::Ready(Err(InspectError::Ended)));
    }
}
