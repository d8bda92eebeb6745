// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that closes files whose close may block.
//!
//! Closing a file can block for as long as something else likes: a TCP socket with `SO_LINGER`
//! waits for its peer, a file of a network or user-space file system for its server. Files that
//! host processes have passed are therefore closed on this thread, one after another, and no
//! other thread blocks.
//!
//! The process has one such thread. It starts with the first file, or on request, and keeps
//! running. The queue is bounded in two steps. While [`MANY`] files wait, no more files are
//! received ([`is_busy`]), but sockets with files in their queues can still be added. While
//! [`MOST`] files and sockets wait, no connections are opened or accepted ([`check_room`]), because
//! each could add one more socket. If the thread cannot be started, the queue waits for the next
//! file, which tries again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::thread;

use rustix::io::Errno;

/// The number of waiting files at which no more are received. The last message received can exceed
/// it by the 253 files that a message can carry.
pub(super) const MANY: usize = 256;

/// The number of waiting files and sockets at which no more connections are made. Sockets of
/// existing connections can still be added.
pub(super) const MOST: usize = 1024;

/// Returns the closer of this process.
#[cfg(not(test))]
fn closer() -> &'static Closer {
    static CLOSER: Closer = Closer::new();
    &CLOSER
}

/// Returns the closer of this thread: a test can fill its queue without an effect on other tests.
#[cfg(test)]
fn closer() -> &'static Closer {
    tests::closer()
}

/// Closes a file on the closer thread, after the files that already wait.
pub(crate) fn close(file: OwnedFd) {
    let closer = closer();
    if let Some(error) = closer.close(file, || start(closer)) {
        log::debug!("cannot start the thread that closes files, so they stay open: {error}");
    }
}

/// Returns whether too many files wait to receive another one.
pub(crate) fn is_busy() -> bool {
    closer().state().waiting.len() >= MANY
}

/// Returns `NOBUFS` if too many files and sockets wait for another connection to be made.
pub(super) fn check_room() -> Result<(), Errno> {
    if closer().state().waiting.len() >= MOST {
        return Err(Errno::NOBUFS);
    }
    Ok(())
}

fn start(closer: &'static Closer) -> io::Result<()> {
    thread().spawn(|| closer.run()).map(|_detached| ())
}

fn thread() -> thread::Builder {
    thread::Builder::new().name("vsock-closer".to_owned())
}

/// Starts the thread that closes passed descriptors now, instead of with the first descriptor. The
/// thread runs `begin` first.
///
/// This is for programs that confine their threads. Otherwise the device thread starts this thread
/// when the first descriptor arrives, and would need the right to start threads for it.
///
/// ```
/// vsock_sockets::start_closer(|| Ok(()))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// - `AlreadyExists`: the thread is already running.
/// - The error of `begin`; the thread does not run then.
/// - Any other error comes from the operating system.
pub fn start_closer(begin: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    closer().start(begin, |run| thread().spawn(run).map(|_detached| ()))
}

struct Closer {
    state: Mutex<State>,
    changed: Condvar,
    /// Used up by the first report that the thread cannot be started. A host process decides how
    /// often files arrive, so there is only one report.
    reported: Once,
}

struct State {
    waiting: VecDeque<OwnedFd>,
    /// Whether the thread is running. Once started, it never ends.
    runs: bool,
}

impl Closer {
    const fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            runs: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            reported: Once::new(),
        }
    }

    /// Adds a file to the queue, and starts the thread if it is not running. If that fails, returns
    /// the error, the first time only; the file stays in the queue.
    fn close(&self, file: OwnedFd, start: impl FnOnce() -> io::Result<()>) -> Option<io::Error> {
        let mut state = self.state();
        state.waiting.push_back(file);
        let started = if state.runs { Ok(()) } else { start() };
        state.runs = started.is_ok();
        drop(state);
        self.changed.notify_one();
        let mut first_error = None;
        if let Err(error) = started {
            self.reported.call_once(|| first_error = Some(error));
        }
        first_error
    }

    /// Starts the thread with `spawn`, and waits until `begin` has returned on it.
    ///
    /// The lock is held throughout, so a concurrent [`close`](Self::close) waits for the outcome
    /// instead of starting a second thread.
    fn start(
        &'static self,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state();
        if state.runs {
            let message = "the thread that closes passed descriptors is already running";
            return Err(io::Error::new(ErrorKind::AlreadyExists, message));
        }
        let (report, begun) = mpsc::sync_channel(1);
        spawn(Box::new(move || {
            let result = begin();
            let may_run = result.is_ok();
            if report.send(result).is_ok() && may_run {
                self.run();
            }
        }))?;
        let panicked = || io::Error::other("the thread that closes passed descriptors panicked");
        begun.recv().unwrap_or_else(|_| Err(panicked()))?;
        state.runs = true;
        Ok(())
    }

    fn run(&self) {
        loop {
            let waited = self
                .changed
                .wait_while(self.state(), |state| state.waiting.is_empty());
            let next = waited
                .unwrap_or_else(PoisonError::into_inner)
                .waiting
                .pop_front();
            // The guard was dropped at the end of the statement above, so the lock is free while
            // this close blocks.
            drop(next);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The queue and the flag are consistent even after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    pub(super) fn closer() -> &'static Closer {
        thread_local! {
            static CLOSER: &'static Closer = Box::leak(Box::new(Closer::new()));
        }
        CLOSER.with(|closer| *closer)
    }

    #[test]
    fn a_file_is_closed_soon() {
        let (mut near, far) = UnixStream::pair().unwrap();
        close(far.into());
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn the_thread_runs_only_if_its_first_step_succeeds() {
        static ALONE: Closer = Closer::new();
        let spawn = |run| thread::Builder::new().spawn(run).map(|_detached| ());
        let refused = ALONE.start(|| Err(ErrorKind::PermissionDenied.into()), spawn);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
        let (tell, begun) = mpsc::channel();
        let begin = move || {
            tell.send(()).unwrap();
            Ok(())
        };
        ALONE.start(begin, spawn).unwrap();
        begun.try_recv().unwrap();
        let again = ALONE.start(|| Ok(()), spawn).unwrap_err().kind();
        assert_eq!(again, ErrorKind::AlreadyExists);
        let (mut near, far) = UnixStream::pair().unwrap();
        let error = ALONE.close(far.into(), || Err(ErrorKind::WouldBlock.into()));
        assert!(error.is_none(), "it is already running: {error:?}");
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn t131_without_a_thread_files_wait_and_that_is_reported_once() {
        static ALONE: Closer = Closer::new();
        let [(mut first, one), (mut second, two)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let errors = [one.try_clone().unwrap(), one]
            .map(|file| ALONE.close(file.into(), || Err(ErrorKind::WouldBlock.into())));
        assert!(matches!(errors, [Some(_), None]), "{errors:?}");
        first.set_nonblocking(true).unwrap();
        let open = first.read(&mut [0]).unwrap_err();
        assert_eq!(open.kind(), ErrorKind::WouldBlock);
        let error = ALONE.close(two.into(), || {
            thread::spawn(|| ALONE.run());
            Ok(())
        });
        assert!(error.is_none(), "{error:?}");
        for near in [&mut first, &mut second] {
            near.set_nonblocking(false).unwrap();
            assert_eq!(near.read(&mut [0]).unwrap(), 0);
        }
    }
}
