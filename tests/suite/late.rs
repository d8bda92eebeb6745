// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Rules of the compliance suite on a machine where threads come late.
//!
//! A rule that relies on how far another thread has got judges the machine, not the transport. What
//! load does once in a thousand runs these streams do in every call.

use std::any::Any;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::Duration;

use vsock_backend_api::{VsockBackendType, VsockStream};
use vsock_compliance::poll::{Deadline, pace};
use vsock_compliance::{
    BoxedStream, CapacityPromise, ConnectionEnd, Mode, PairSource, Scene, stream_rules,
};
use vsock_tests::inner::Inner;

use crate::PATIENCE;

/// What of a call is late.
#[derive(Clone, Copy, Debug)]
enum Late {
    /// A write sleeps on its way to the first byte, as for a lock or for memory.
    Write,
    /// A read begins when any timeout of the peer is over.
    Read,
    /// Whoever looks whether a write sleeps: it is never found asleep.
    Observer,
}

/// Longer than it takes to see that a thread sleeps.
const MOMENT: Duration = Duration::from_millis(20);
/// Longer than the timeouts of the rules.
const AGES: Duration = Duration::from_millis(300);

/// Makes pairs of so few bytes whose ends are late.
struct Source(Inner, Late);

impl Source {
    const CAPACITY: usize = 5;

    fn new(late: Late) -> Self {
        Self(Inner::holding(Self::CAPACITY), late)
    }
}

impl PairSource for Source {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let end = |stream| -> BoxedStream {
            Box::new(End {
                stream,
                late: self.1,
                nonblocking: false,
                timeout: None,
            })
        };
        let (application, device) = self.0.pair()?;
        Ok((end(application), end(device)))
    }

    fn capacity(&self, writer: ConnectionEnd) -> CapacityPromise {
        self.0.capacity(writer)
    }

    fn initial_mode(&self, end: ConnectionEnd) -> Mode {
        self.0.initial_mode(end)
    }
}

struct End {
    stream: BoxedStream,
    late: Late,
    nonblocking: bool,
    timeout: Option<Duration>,
}

impl End {
    /// A blocking write that stays on its processor.
    fn write_awake(&mut self, buf: &[u8]) -> io::Result<usize> {
        let deadline = Deadline::after(self.timeout.unwrap_or(Duration::MAX));
        self.stream.set_nonblocking(true)?;
        let mut done = 0;
        let end = loop {
            match self.stream.write(&buf[done..]) {
                Ok(len) if done + len < buf.len() => done += len,
                Ok(len) => break Ok(done + len),
                Err(error) if error.kind() != ErrorKind::WouldBlock => break Err(error),
                Err(_) if deadline.passed() => break Err(ErrorKind::TimedOut.into()),
                Err(_) => thread::yield_now(),
            }
        };
        self.stream.set_nonblocking(false)?;
        if done > 0 {
            Ok(end.unwrap_or(done))
        } else {
            end
        }
    }
}

impl Read for End {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if matches!(self.late, Late::Read) {
            pace(AGES)?;
        }
        self.stream.read(buf)
    }
}

impl Write for End {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.late {
            Late::Observer if !self.nonblocking => return self.write_awake(buf),
            Late::Write if !self.nonblocking => pace(MOMENT)?,
            _ => {}
        }
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl AsRawFd for End {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl VsockStream for End {
    fn backend_type(&self) -> VsockBackendType {
        self.stream.backend_type()
    }
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking = nonblocking;
        self.stream.set_nonblocking(nonblocking)
    }
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }
    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout = timeout;
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
        self.stream.as_any()
    }
}

/// The rule `name` must hold from either end.
#[track_caller]
fn assert_holds(name: &str, late: Late) {
    let source = Source::new(late);
    let mut rules = stream_rules().into_iter();
    let rule = rules.find(|rule| rule.as_ref().name == name);
    let rule = rule.expect("there is such a rule");
    for near in ConnectionEnd::BOTH {
        let scene = Scene::new(&source, near, PATIENCE);
        if let Err(why) = rule.check(&scene) {
            panic!("{rule:?}, from {scene:?}: {why}");
        }
    }
}

#[test]
fn a_timeout_that_is_over_before_one_looks_has_cut_the_write_short() {
    assert_holds("a_timeout_cuts_a_write_short", Late::Observer);
}

#[test]
fn an_end_that_cuts_a_write_short_comes_after_its_first_bytes() {
    assert_holds("a_shutdown_cuts_a_write_short", Late::Write);
    assert_holds("a_drop_cuts_a_write_short", Late::Write);
}

#[test]
fn a_reader_that_is_late_by_the_whole_timeout_does_not_prolong_a_write() {
    assert_holds("a_slow_reader_does_not_prolong_a_write", Late::Read);
}
