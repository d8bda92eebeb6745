// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A thread that closes what may take its time to close.
//!
//! A close waits for as long as the file likes: a TCP socket with `SO_LINGER` for its peer, a file
//! of a network or user-space file system for its server. What a host process has passed is closed
//! here, one file after the other, and no other thread waits.
//!
//! There is one thread for the process. It starts with the first file, or on request, and stays.
//! While [`MANY`] files wait, no other is received ([`is_busy`]). Sockets may still come to wait,
//! until [`MOST`] do: then there are no other connections ([`check_room`]), each of which could
//! leave one more. If the thread cannot be started, files wait for the next one that comes, which
//! tries again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::thread;

use rustix::io::Errno;

/// Files that may wait, and those of one message more (253).
pub(super) const MANY: usize = 256;

/// Files and sockets that may wait before no other socket is taken in. Those that are there may
/// still come to wait.
pub(super) const MOST: usize = 1024;

static CLOSER: Closer = Closer::new();

/// Closes a file on the thread for it, in its turn.
pub(crate) fn close(file: OwnedFd) {
    if let Some(error) = CLOSER.close(file, start) {
        log::debug!("cannot start the thread that closes files, they wait: {error}");
    }
}

/// Whether too many files wait for another to be received.
pub(crate) fn is_busy() -> bool {
    CLOSER.state().waiting.len() >= MANY
}

/// Whether another socket may come to wait: `NOBUFS` if too many do.
pub(super) fn check_room() -> Result<(), Errno> {
    if CLOSER.state().waiting.len() >= MOST {
        return Err(Errno::NOBUFS);
    }
    Ok(())
}

fn start() -> io::Result<()> {
    thread().spawn(|| CLOSER.run()).map(|_detached| ())
}

fn thread() -> thread::Builder {
    thread::Builder::new().name("vsock-closer".to_owned())
}

/// Starts the thread that closes what host processes have passed now, instead of with the first
/// descriptor, and lets it do this first.
///
/// For a program that confines its threads: one that has the right to start threads and to confine
/// itself can do that, and the device's own thread, which would start it otherwise, has to do
/// neither.
///
/// ```
/// vsock_sockets::start_closer(|| Ok(()))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// - `AlreadyExists`: it runs already.
/// - The error of `begin`, after which the thread does not run, or of the operating system.
pub fn start_closer(begin: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    CLOSER.start(begin, |run| thread().spawn(run).map(|_detached| ()))
}

struct Closer {
    state: Mutex<State>,
    changed: Condvar,
    /// That the thread cannot be started was told: once is enough, files may come at any rate.
    told: Once,
}

struct State {
    waiting: VecDeque<OwnedFd>,
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
            told: Once::new(),
        }
    }

    /// Returns why the thread does not start, the first time that it does not.
    fn close(&self, file: OwnedFd, start: impl FnOnce() -> io::Result<()>) -> Option<io::Error> {
        let mut state = self.state();
        state.waiting.push_back(file);
        let started = if state.runs { Ok(()) } else { start() };
        state.runs = started.is_ok();
        drop(state);
        self.changed.notify_one();
        let mut news = None;
        if let Err(error) = started {
            self.told.call_once(|| news = Some(error));
        }
        news
    }

    /// Starts the thread by `spawn`, if it does not run, and waits until `begin` is done there.
    fn start(
        &'static self,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state();
        if state.runs {
            let message = "the thread that closes passed descriptors runs already";
            return Err(io::Error::new(ErrorKind::AlreadyExists, message));
        }
        let (tell, begun) = mpsc::sync_channel(1);
        spawn(Box::new(move || {
            let result = begin();
            let is_fit = result.is_ok();
            let told = tell.send(result);
            if told.is_ok() && is_fit {
                self.run();
            }
        }))?;
        let panicked =
            || io::Error::other("the thread that closes passed descriptors has panicked");
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
            // The lock is free by now, whatever the close waits for.
            drop(next);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A queue and a flag are whole after a panic, too.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_file_is_closed_soon() {
        let (mut near, far) = UnixStream::pair().unwrap();
        close(far.into());
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_thread_that_is_to_begin_with_something_runs_only_after_it() {
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
        let told = ALONE.close(far.into(), || Err(ErrorKind::WouldBlock.into()));
        assert!(told.is_none(), "it runs already: {told:?}");
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn t131_without_a_thread_a_file_waits_for_the_next_one_and_that_is_told_once() {
        static ALONE: Closer = Closer::new();
        let [(mut first, one), (mut second, two)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let told = [one.try_clone().unwrap(), one]
            .map(|file| ALONE.close(file.into(), || Err(ErrorKind::WouldBlock.into())));
        assert!(matches!(told, [Some(_), None]), "{told:?}");
        first.set_nonblocking(true).unwrap();
        let open = first.read(&mut [0]).unwrap_err();
        assert_eq!(open.kind(), ErrorKind::WouldBlock);
        let told = ALONE.close(two.into(), || {
            thread::spawn(|| ALONE.run());
            Ok(())
        });
        assert!(told.is_none(), "{told:?}");
        for near in [&mut first, &mut second] {
            near.set_nonblocking(false).unwrap();
            assert_eq!(near.read(&mut [0]).unwrap(), 0);
        }
    }
}
