// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls that may block, on a separate thread.

use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libc::c_int;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::poll::{Deadline, wait_until};

/// A call on a separate thread, which can block without blocking the test.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
/// use vsock_compliance::call::Call;
/// use vsock_compliance::poll::Deadline;
///
/// # fn main() -> std::io::Result<()> {
/// let (mut near, mut far) = UnixStream::pair()?;
/// let deadline = Deadline::after(Duration::from_secs(10));
/// let read = Call::start(move || far.read(&mut [0; 8]))?;
/// read.asleep(deadline)?;
/// near.write_all(b"wake")?;
/// assert_eq!(read.finish(deadline)??, 4);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Call<T> {
    result: Receiver<T>,
    state_file: String,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Call<T> {
    /// Starts the call.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(call: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (send_task, task) = channel();
        let (send_result, result) = channel();
        let thread = thread::Builder::new().spawn(move || {
            if send_task.send(fs::read_link("/proc/thread-self")).is_ok() {
                // If the caller has given up the call, the result has no receiver.
                drop(send_result.send(call()));
            }
        })?;
        let task = task.recv().map_err(io::Error::other)??;
        let state_file = format!("/proc/{}/stat", task.display());
        Ok(Self {
            result,
            state_file,
            thread,
        })
    }

    /// Waits until the call sleeps in the kernel, as a call does that waits for its peer.
    ///
    /// # Errors
    ///
    /// `TimedOut` if the call is still running at the deadline, and `NotFound` if it has already
    /// returned.
    pub fn asleep(&self, deadline: Deadline) -> io::Result<()> {
        let mut returned = false;
        wait_until(deadline, || match fs::read_to_string(&self.state_file) {
            // The state follows the name of the thread, which may itself contain parentheses.
            Ok(stat) => {
                returned = self.thread.is_finished();
                returned
                    || stat
                        .rsplit(')')
                        .next()
                        .is_some_and(|rest| rest.starts_with(" S"))
            }
            Err(_) => {
                returned = true;
                true
            }
        })?;
        if returned {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the call returned instead of waiting",
            ));
        }
        Ok(())
    }

    /// Returns whether the call has returned.
    #[must_use]
    pub fn has_returned(&self) -> bool {
        self.thread.is_finished()
    }

    /// Sends a signal to the thread, so that the system call in which it waits returns `EINTR`.
    ///
    /// The first use installs a handler for `SIGRTMIN` in this process, which does nothing.
    ///
    /// # Errors
    ///
    /// The errors of `sigaction` and `pthread_kill`.
    pub fn interrupt(&self) -> io::Result<()> {
        extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        let into_io =
            |error: vmm_sys_util::errno::Error| io::Error::from_raw_os_error(error.errno());
        register_signal_handler(SIGRTMIN(), nothing).map_err(into_io)?;
        self.thread.kill(SIGRTMIN()).map_err(into_io)
    }

    /// Waits for the call to return.
    ///
    /// # Errors
    ///
    /// `TimedOut` if it has not returned by the deadline, in which case its thread continues, and
    /// `Other` if it has panicked.
    pub fn finish(self, deadline: Deadline) -> io::Result<T> {
        self.result
            .recv_timeout(deadline.left())
            .map_err(unfinished)
    }

    /// Waits for the call to return, as long as `moved` changes. A call that makes progress may
    /// take any time.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use vsock_compliance::call::Call;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// const STALL: Duration = Duration::from_millis(1);
    /// let (step, steps) = channel();
    /// let slow = Call::start(move || steps.iter().take(4).count())?;
    /// let moved = Cell::new(0);
    /// let count = slow.finish_moving(STALL, || {
    ///     step.send(()).ok();
    ///     moved.update(|steps| steps + 1);
    ///     moved.get()
    /// })?;
    /// assert_eq!(count, 4);
    ///
    /// let (_kept, never) = channel::<()>();
    /// let halted = Call::start(move || never.recv().is_ok())?;
    /// assert!(halted.finish_moving(STALL, || 0).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `TimedOut` if nothing has moved for `stall_timeout`, in which case the thread continues;
    /// this is noticed after twice that time at the latest. `Other` if the call has panicked.
    pub fn finish_moving(self, stall_timeout: Duration, moved: impl Fn() -> u64) -> io::Result<T> {
        let mut before = moved();
        loop {
            match self.result.recv_timeout(stall_timeout) {
                Err(RecvTimeoutError::Timeout) => {}
                done => return done.map_err(unfinished),
            }
            let now = moved();
            if now == before {
                return Err(unfinished(RecvTimeoutError::Timeout));
            }
            before = now;
        }
    }
}

fn unfinished(why: RecvTimeoutError) -> io::Error {
    match why {
        RecvTimeoutError::Timeout => {
            io::Error::new(io::ErrorKind::TimedOut, "the call did not return in time")
        }
        RecvTimeoutError::Disconnected => io::Error::other("the call panicked"),
    }
}
