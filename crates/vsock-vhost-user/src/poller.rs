// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device waits with: for kicks, host streams, deadlines and its own wake-ups.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;
use vsock_muxer::{Action, Readiness, Token};
use vsock_proto::Tick;

use crate::journal::{Journal, say};

/// Events that are taken from the kernel at once.
const BATCH: usize = 128;

/// The data of the timer, of a [`Waker`] and of kicks. Tokens bear a generation that does not get
/// there. A kick means that the queues are to be looked at, whichever it was: so one that was taken
/// from the kernel before it was replaced does no harm.
const TIMER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
const KICK: u64 = u64::MAX - 2;

/// What the kernel says that is short of watches, or of memory for one.
const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
const ENOMEM: i32 = Errno::NOMEM.raw_os_error();

/// How long until a descriptor is offered to the kernel again that it could not take.
const RETRY: Duration = Duration::from_millis(100);

/// A descriptor that shall be watched.
#[derive(Clone, Copy, Debug)]
struct Watch {
    token: Token,
    fd: RawFd,
    events: EventSet,
}

/// Wakes the thread that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<EventFd>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?)))
    }

    /// Makes an event for the one who waits, or the next who does.
    pub(crate) fn wake(&self) {
        // It fails if the counter is full, which would take as many calls as it can count.
        let _written = self.0.write(1);
    }

    /// How often it was called since this was asked last.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> u64 {
        self.0.read().unwrap_or(0)
    }
}

/// What has happened, for one thread to wait for.
pub(crate) struct Events {
    epoll: Arc<Epoll>,
    batch: Vec<EpollEvent>,
}

impl Events {
    /// Waits for the next events, at most one batch of them; so long, if that is said, rounded up to
    /// milliseconds.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<&[EpollEvent]> {
        let timeout = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let count = match self.epoll.wait(timeout, &mut self.batch) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            count => count?,
        };
        Ok(self.batch.get(..count).unwrap_or_default())
    }
}

/// The descriptors of one device's kicks and streams, its clock and its timer.
///
/// Everything is edge-triggered: what the device leaves alone costs no further wake-up.
pub(crate) struct Poller {
    journal: Arc<Journal>,
    epoll: Arc<Epoll>,
    timer: TimerFd,
    waker: Waker,
    watched: HashSet<RawFd>,
    /// When the timer fires.
    armed: Option<Tick>,
    start: Instant,
    /// What the kernel had no memory for.
    refused: Vec<Watch>,
    /// When it is asked again, if anything was refused.
    retry_at: Tick,
}

impl Poller {
    pub(crate) fn new(waker: Waker, journal: Arc<Journal>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let timer = TimerFd::new()?;
        // Each firing and each write is an edge, so neither is ever read.
        for (fd, datum) in [(timer.as_raw_fd(), TIMER), (waker.0.as_raw_fd(), WAKE)] {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(edge(), datum))?;
        }
        Ok(Self {
            journal,
            epoll: Arc::new(epoll),
            timer,
            waker,
            watched: HashSet::new(),
            armed: None,
            start: Instant::now(),
            refused: Vec::new(),
            retry_at: Tick::ZERO,
        })
    }

    /// For the thread that waits.
    pub(crate) fn events(&self) -> Events {
        Events {
            epoll: Arc::clone(&self.epoll),
            batch: vec![EpollEvent::default(); BATCH],
        }
    }

    /// The time, as the device counts it.
    pub(crate) fn now(&self) -> Tick {
        Tick::ZERO.saturating_add(self.start.elapsed())
    }

    /// Takes events, and tells each that belongs to a token. Returns whether there was any but the
    /// timer's.
    pub(crate) fn take(
        &mut self,
        events: &[EpollEvent],
        mut event: impl FnMut(Token, Readiness),
    ) -> bool {
        let mut any = false;
        for ready in events {
            any |= ready.data() != TIMER;
            match ready.data() {
                TIMER => self.armed = None,
                WAKE | KICK => {}
                token => event(Token::from(token), readiness(ready.event_set())),
            }
        }
        any
    }

    /// Begins to tell of each write to a kick, and of what is in it or its queue by now.
    pub(crate) fn watch_kick(&mut self, fd: RawFd) -> io::Result<()> {
        self.epoll
            .ctl(ControlOperation::Add, fd, EpollEvent::new(edge(), KICK))?;
        self.wake();
        Ok(())
    }

    /// Tells of a kick no more, whoever else has it.
    pub(crate) fn unwatch_kick(&mut self, fd: RawFd) {
        if let Err(error) = self
            .epoll
            .ctl(ControlOperation::Delete, fd, EpollEvent::default())
        {
            say!(self.journal, Warn, "cannot unwatch a kick: {error}");
        }
    }

    /// Makes an event of its own.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Does what the muxer wants done.
    pub(crate) fn apply(&mut self, action: Action) {
        match action {
            Action::Watch {
                token,
                fd,
                interest,
            } => self.watch(Watch {
                token,
                fd,
                events: events(interest.read, interest.write),
            }),
            Action::Unwatch { fd, .. } => self.unwatch(fd),
            Action::Close { fds, stream, .. } => {
                for fd in fds.into_iter().flatten() {
                    self.unwatch(fd);
                }
                drop(stream);
            }
        }
    }

    /// Lets the timer fire at the deadline, if it would not fire before anyway.
    pub(crate) fn arm(&mut self, now: Tick, deadline: Option<Tick>) -> io::Result<()> {
        let retry = (!self.refused.is_empty()).then_some(self.retry_at);
        let Some(deadline) = deadline.into_iter().chain(retry).min() else {
            return Ok(());
        };
        if deadline == Tick::MAX || self.armed.is_some_and(|armed| armed <= deadline) {
            return Ok(());
        }
        // A duration of zero would disarm it.
        let wait = deadline.since(now).max(Duration::from_nanos(1));
        self.timer.reset(wait, None)?;
        self.armed = Some(deadline);
        Ok(())
    }

    /// Offers to the kernel again what it could not take, once it has had time to find room: not with
    /// each event of those that it watches.
    pub(crate) fn retry(&mut self, now: Tick) {
        if now < self.retry_at {
            return;
        }
        for watch in std::mem::take(&mut self.refused) {
            self.watch(watch);
        }
    }

    fn watch(&mut self, watch: Watch) {
        let Watch { token, fd, events } = watch;
        let operation = if self.watched.contains(&fd) {
            ControlOperation::Modify
        } else {
            ControlOperation::Add
        };
        self.refused.retain(|refused| refused.fd != fd);
        match self
            .epoll
            .ctl(operation, fd, EpollEvent::new(events, token.into()))
        {
            Ok(()) => {
                self.watched.insert(fd);
            }
            Err(error) => {
                say!(self.journal, Warn, "cannot watch descriptor {fd}: {error}");
                // The kernel may have room again; what cannot be watched at all stays so.
                if [Some(ENOSPC), Some(ENOMEM)].contains(&error.raw_os_error()) {
                    self.put_off(watch);
                }
            }
        }
    }

    /// Keeps what the kernel has no room for, to try it again.
    fn put_off(&mut self, watch: Watch) {
        if self.refused.is_empty() {
            self.retry_at = self.now().saturating_add(RETRY);
        }
        self.refused.push(watch);
    }

    fn unwatch(&mut self, fd: RawFd) {
        self.refused.retain(|refused| refused.fd != fd);
        if self.watched.remove(&fd)
            && let Err(error) = self
                .epoll
                .ctl(ControlOperation::Delete, fd, EpollEvent::default())
        {
            say!(
                self.journal,
                Warn,
                "cannot unwatch descriptor {fd}: {error}"
            );
        }
    }
}

fn edge() -> EventSet {
    EventSet::IN | EventSet::EDGE_TRIGGERED
}

fn events(read: bool, write: bool) -> EventSet {
    let mut events = EventSet::EDGE_TRIGGERED;
    events.set(EventSet::IN | EventSet::READ_HANG_UP, read);
    events.set(EventSet::OUT, write);
    events
}

fn readiness(events: EventSet) -> Readiness {
    Readiness {
        readable: events.intersects(EventSet::IN | EventSet::READ_HANG_UP),
        writable: events.contains(EventSet::OUT),
        hangup: events.intersects(EventSet::HANG_UP | EventSet::ERROR),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use vsock_muxer::{CloseMode, ClosingStream, Interest};
    use vsock_proto::GuestCid;

    use super::*;
    use crate::UnixVsockStream;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn watch(fd: RawFd, read: bool, write: bool) -> Action {
        let token = Token::from(7);
        Action::Watch {
            token,
            fd,
            interest: Interest { read, write },
        }
    }

    fn poller() -> Poller {
        let waker = Waker::new().unwrap();
        let guest = GuestCid::try_from(3).unwrap();
        let journal = Arc::new(Journal::new(guest, waker.clone()));
        Poller::new(waker, journal).unwrap()
    }

    /// Takes what has happened, within the time.
    fn poll(
        poller: &mut Poller,
        timeout: Duration,
        event: impl FnMut(Token, Readiness),
    ) -> (usize, bool) {
        let mut events = poller.events();
        let events = events.wait(Some(timeout)).unwrap();
        (events.len(), poller.take(events, event))
    }

    fn polled(poller: &mut Poller) -> Vec<(u64, Readiness)> {
        let mut events = Vec::new();
        poll(poller, Duration::ZERO, |token, ready| {
            events.push((u64::from(token), ready));
        });
        events
    }

    #[test]
    fn each_change_is_told_once() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut poller = poller();
        poller.apply(watch(near.as_raw_fd(), true, false));
        assert_eq!(polled(&mut poller), []);
        for _ in 0..2 {
            far.write_all(b"x").unwrap();
            let ready = Readiness {
                readable: true,
                ..Readiness::default()
            };
            assert_eq!(polled(&mut poller), [(7, ready)]);
            assert_eq!(polled(&mut poller), []);
        }
        drop(far);
        let [(7, ready)] = polled(&mut poller)[..] else {
            panic!("no end was told");
        };
        assert!(ready.readable && ready.hangup);
    }

    #[test]
    fn what_was_ready_before_is_told_to_who_asks_anew() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"x").unwrap();
        let mut poller = poller();
        poller.apply(watch(near.as_raw_fd(), false, true));
        assert!(polled(&mut poller)[0].1.writable);
        poller.apply(watch(near.as_raw_fd(), false, false));
        assert_eq!(polled(&mut poller), []);
        poller.apply(watch(near.as_raw_fd(), true, false));
        assert!(polled(&mut poller)[0].1.readable);
    }

    #[test]
    fn what_is_unwatched_or_closed_is_told_no_more() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (fd, token) = (near.as_raw_fd(), Token::from(7));
        let mut poller = poller();
        poller.apply(watch(fd, true, false));
        far.write_all(b"x").unwrap();
        poller.apply(Action::Unwatch { token, fd });
        assert_eq!(polled(&mut poller), []);
        poller.apply(watch(fd, true, false));
        poller.apply(Action::Close {
            token,
            fds: [Some(fd), None],
            stream: ClosingStream::new(Box::new(UnixVsockStream::new(near)), CloseMode::Abort),
        });
        assert_eq!(polled(&mut poller), []);
        // What was not read makes the end a reset.
        far.read(&mut [0]).unwrap_err();
    }

    #[test]
    fn the_timer_fires_at_the_earliest_deadline_and_is_set_for_no_later_one() {
        let mut poller = poller();
        let now = poller.now();
        poller.arm(now, None).unwrap();
        poller.arm(now, Some(Tick::MAX)).unwrap();
        assert_eq!(poller.armed, None);
        let far = now.saturating_add(Duration::from_secs(3600));
        poller.arm(now, Some(far)).unwrap();
        poller.arm(now, Some(now)).unwrap();
        poller.arm(now, Some(far)).unwrap();
        assert_eq!(poller.armed, Some(now));
        let (events, told) = poll(&mut poller, PATIENCE, |token, _| panic!("{token:?}"));
        assert_eq!(events, 1);
        assert!(!told, "nothing has happened but that");
        assert_eq!(poller.armed, None);
    }

    #[test]
    fn a_wake_is_for_one_poll() {
        let mut poller = poller();
        for _ in 0..2 {
            poller.wake();
            for events in [1, 0] {
                let polled = poll(&mut poller, Duration::ZERO, |token, _| panic!("{token:?}"));
                assert_eq!(polled, (events, events > 0));
            }
        }
    }

    #[test]
    fn what_can_never_be_watched_is_not_tried_again() {
        let file = File::open("/proc/self/exe").unwrap();
        let mut poller = poller();
        poller.apply(watch(file.as_raw_fd(), true, false));
        assert!(poller.refused.is_empty());
        poller.apply(Action::Unwatch {
            token: Token::from(7),
            fd: file.as_raw_fd(),
        });
    }

    #[test]
    fn what_the_kernel_had_no_room_for_is_tried_again_by_the_timer() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut poller = poller();
        let now = poller.now();
        poller.put_off(Watch {
            token: Token::from(7),
            fd: near.as_raw_fd(),
            events: events(true, false),
        });
        let due = poller.retry_at;
        // Tried with every event it would be tried all the time; tried after long, a stream stands still.
        let wait = due.since(now);
        assert!(wait >= Duration::from_millis(20), "{wait:?}");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        poller.arm(now, None).unwrap();
        assert_eq!(poller.armed, Some(due));
        far.write_all(b"x").unwrap();
        poller.retry(now);
        assert_eq!(poller.refused.len(), 1, "it was asked just now");
        poller.retry(due);
        assert!(poller.refused.is_empty());
        assert!(polled(&mut poller)[0].1.readable);
    }
}
