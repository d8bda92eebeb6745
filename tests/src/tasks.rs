// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks without a runtime: wakers that count, a thread that runs one task, and streams that use
//! polls, so that every test of streams can test their polls.

use std::any::Any;
use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use vsock_backend_api::{VsockBackendType, VsockStream};
use vsock_compliance::WokenTasks;
use vsock_compliance::poll::Deadline;
use vsock_inner::VsockInnerStream;

/// How long a task may wait to be woken.
const DEADLINE: Duration = Duration::from_secs(60);

/// A waker that counts its wake-ups.
#[derive(Debug, Default)]
pub struct Count(AtomicUsize);

impl Count {
    /// Creates a counter and its waker.
    #[must_use]
    pub fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&count));
        (count, waker)
    }

    /// Returns how often it was woken.
    #[must_use]
    pub fn woken(&self) -> usize {
        // ORDER: Relaxed; partner: `wake`, on this thread or on one that was joined before.
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // ORDER: Relaxed; partner: `woken`.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A thread that sleeps while its task waits.
struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a task on this thread until it is done.
///
/// # Panics
///
/// Panics if the task is not woken for a minute.
pub fn run<T>(mut task: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let waker = Waker::from(Arc::new(Sleeper(thread::current())));
    let deadline = Deadline::after(DEADLINE);
    loop {
        if let Poll::Ready(done) = task(&mut Context::from_waker(&waker)) {
            return done;
        }
        thread::park_timeout(deadline.left());
        assert!(!deadline.passed(), "a task was not woken");
    }
}

/// A stream that tasks use, in non-blocking mode: `Pending` becomes `WouldBlock`. Every third call
/// is an ordinary one, and so are all calls in blocking mode, so that the ways of waiting
/// alternate.
#[derive(Debug)]
pub struct Tasks {
    /// The stream.
    pub stream: VsockInnerStream,
    nonblocking: bool,
    calls: Cell<usize>,
    reading: Left,
    writing: Left,
}

/// The wakers of one direction, one of which may be registered.
#[derive(Debug)]
struct Left {
    wakers: [(Arc<Count>, Waker); 2],
    /// The registered waker, and how often it had been woken when it was registered.
    at: Cell<Option<(usize, usize)>>,
}

impl Left {
    fn new() -> Self {
        Self {
            wakers: [(); 2].map(|()| Count::new()),
            at: Cell::new(None),
        }
    }

    /// Makes a call with one of the wakers.
    fn poll(
        &self,
        by: usize,
        call: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> io::Result<usize> {
        let (count, waker) = &self.wakers[by];
        let before = count.woken();
        match call(&mut Context::from_waker(waker)) {
            Poll::Ready(done) => done,
            Poll::Pending => {
                self.at.set(Some((by, before)));
                Err(ErrorKind::WouldBlock.into())
            }
        }
    }

    /// Returns whether the registered waker was woken, which also unregisters it.
    fn woken(&self) -> Option<bool> {
        let (by, before) = self.at.get()?;
        let woken = self.wakers[by].0.woken() - before;
        assert!(woken <= 1, "a registered waker is woken at most once");
        if woken > 0 {
            self.at.set(None);
        }
        Some(woken > 0)
    }
}

/// How a call is made.
enum Caller {
    Thread,
    Task(usize),
}

impl From<VsockInnerStream> for Tasks {
    fn from(mut stream: VsockInnerStream) -> Self {
        let nonblocking = stream.set_nonblocking(true).is_ok();
        Self {
            stream,
            nonblocking,
            calls: Cell::new(0),
            reading: Left::new(),
            writing: Left::new(),
        }
    }
}

impl Tasks {
    /// Returns what has happened to the tasks of each direction since the last call.
    #[must_use]
    pub fn woken(&self) -> WokenTasks {
        WokenTasks {
            reading: self.reading.woken(),
            writing: self.writing.woken(),
        }
    }

    fn caller(&self) -> Caller {
        // Three and two have no common factor, so both wakers follow and precede ordinary calls.
        let call = self.calls.get();
        self.calls.set(call + 1);
        if !self.nonblocking || call % 3 == 0 {
            Caller::Thread
        } else {
            Caller::Task(call % 2)
        }
    }
}

impl Read for Tasks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let caller = self.caller();
        let (stream, reading) = (&mut self.stream, &self.reading);
        match caller {
            Caller::Thread => stream.read(buf),
            Caller::Task(0) => reading.poll(0, |cx| stream.poll_read(cx, buf)),
            Caller::Task(by) => {
                let (max, mut at) = (buf.len(), 0);
                let take = |piece: &[u8]| {
                    buf[at..at + piece.len()].copy_from_slice(piece);
                    at += piece.len();
                };
                reading.poll(by, |cx| stream.poll_read_with(cx, max, take))
            }
        }
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let caller = self.caller();
        let (stream, reading) = (&mut self.stream, &self.reading);
        match caller {
            Caller::Thread => stream.read_vectored(bufs),
            Caller::Task(by) => reading.poll(by, |cx| stream.poll_read_vectored(cx, bufs)),
        }
    }
}

impl Write for Tasks {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let caller = self.caller();
        let (stream, writing) = (&mut self.stream, &self.writing);
        match caller {
            Caller::Thread => stream.write(buf),
            Caller::Task(by) => writing.poll(by, |cx| stream.poll_write(cx, buf)),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let caller = self.caller();
        let (stream, writing) = (&mut self.stream, &self.writing);
        match caller {
            Caller::Thread => stream.write_vectored(bufs),
            Caller::Task(by) => writing.poll(by, |cx| stream.poll_write_vectored(cx, bufs)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl AsRawFd for Tasks {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl VsockStream for Tasks {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Inner
    }

    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking = nonblocking;
        self.stream.set_nonblocking(nonblocking)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(timeout)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    fn write_ready_fd(&self) -> io::Result<RawFd> {
        self.stream.write_ready_fd()
    }

    fn peer_gone(&self) -> bool {
        self.stream.peer_gone()
    }

    fn abort(self: Box<Self>) {
        self.stream.abort();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
}
