// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use vsock_inner::VsockInnerStream;
use vsock_muxer::{CloseMode, Interest, NextCall};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const TOKEN: u64 = 7 << 33;

/// A device with the wishes that a test gives it. Records what it receives.
#[derive(Default)]
struct Device {
    actions: VecDeque<Action>,
    events: Vec<(u64, Readiness)>,
    deadline: Option<Tick>,
    timeouts: usize,
    panics: bool,
}

impl Driven for Device {
    fn on_event(&mut self, _now: Tick, token: Token, ready: Readiness) {
        self.events.push((token.into(), ready));
        assert!(!self.panics, "this device panics on purpose");
    }

    fn on_timeout(&mut self, _now: Tick) {
        self.timeouts += 1;
        self.deadline = None;
    }

    fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn deadline(&self) -> Option<Tick> {
        self.deadline
    }
}

/// A driver, its events and its device.
struct Rig {
    driver: MuxerDriver,
    events: DriverEvents,
    device: Device,
    failures: Vec<LoopError>,
}

impl Rig {
    fn new() -> Self {
        let driver = MuxerDriver::new().unwrap();
        Self {
            events: driver.events(),
            driver,
            device: Device::default(),
            failures: Vec::new(),
        }
    }

    /// Carries out what the device wants, now.
    fn want(&mut self, actions: impl IntoIterator<Item = Action>) {
        self.device.actions.extend(actions);
        let now = self.driver.now();
        self.carry_out(now);
    }

    fn carry_out(&mut self, now: Tick) {
        let failures = &mut self.failures;
        self.driver
            .carry_out(now, &mut self.device, |handover| match handover {
                Handover::Close(stream) => drop(stream),
                Handover::Failed(error) => failures.push(error),
            });
    }

    /// Waits and dispatches. Returns the number of events, and whether the device should work.
    fn turn(&mut self, timeout: Duration) -> (usize, bool) {
        let count = self.events.wait(Some(timeout)).unwrap();
        let now = self.driver.now();
        let works = self.driver.dispatch(now, &self.events, &mut self.device);
        (count, works)
    }

    /// Waits for an event and dispatches it. A signal interrupts a wait without an event.
    fn next_event(&mut self) -> (usize, bool) {
        let began = Instant::now();
        loop {
            let turn = self.turn(DEADLINE);
            if turn != (0, false) || began.elapsed() >= DEADLINE {
                return turn;
            }
        }
    }

    /// What the device receives without waiting.
    fn received(&mut self) -> Vec<(u64, Readiness)> {
        self.turn(Duration::ZERO);
        std::mem::take(&mut self.device.events)
    }

    /// As if the kernel had had no room for it.
    fn refuse(&mut self, fd: RawFd, now: Tick) {
        let token = Token::from(TOKEN);
        let (read, write) = (true, false);
        let watch = Watch {
            token,
            fd,
            interest: Interest { read, write },
        };
        self.driver.registrations.put_off(watch, now);
    }
}

fn watch(of: &impl AsRawFd, read: bool, write: bool) -> Action {
    Action::Watch {
        token: Token::from(TOKEN),
        fd: of.as_raw_fd(),
        interest: Interest { read, write },
    }
}

fn unwatch(of: &impl AsRawFd) -> Action {
    Action::Unwatch {
        token: Token::from(TOKEN),
        fd: of.as_raw_fd(),
    }
}

fn close(fds: [Option<RawFd>; 2], stream: VsockInnerStream) -> Action {
    Action::Close {
        token: Token::from(TOKEN),
        fds,
        stream: ClosingStream::new(Box::new(stream), CloseMode::Shutdown),
    }
}

const READABLE: Readiness = Readiness {
    readable: true,
    writable: false,
    hangup: false,
};

#[test]
fn each_change_is_reported_once() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut rig = Rig::new();
    rig.want([watch(&near, true, false)]);
    assert_eq!(rig.received(), []);
    for _ in 0..2 {
        far.write_all(b"x").unwrap();
        assert_eq!(rig.received(), [(TOKEN, READABLE)]);
        assert_eq!(rig.received(), []);
    }
    drop(far);
    let [(TOKEN, ready)] = rig.received()[..] else {
        panic!("the end was not reported");
    };
    assert!(ready.readable && ready.hangup);
}

#[test]
fn a_descriptor_that_is_already_ready_is_reported_when_watched_again() {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"x").unwrap();
    let mut rig = Rig::new();
    rig.want([watch(&near, false, true)]);
    assert!(rig.received()[0].1.writable);
    rig.want([watch(&near, false, false)]);
    assert_eq!(rig.received(), []);
    rig.want([watch(&near, true, false)]);
    assert!(rig.received()[0].1.readable);
}

#[test]
fn an_unwatched_or_closed_descriptor_is_no_longer_reported() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let (stream, mut peer) = VsockInnerStream::pair().unwrap();
    let mut rig = Rig::new();
    rig.want([watch(&near, true, false)]);
    far.write_all(b"x").unwrap();
    rig.want([unwatch(&near)]);
    assert_eq!(rig.received(), []);
    rig.want([watch(&near, true, false)]);
    rig.want([close([Some(near.as_raw_fd()), None], stream)]);
    assert_eq!(rig.received(), []);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the stream is still open");
    assert!(rig.failures.is_empty());
}

#[test]
fn the_timer_fires_at_the_earliest_deadline_and_is_not_set_for_later_ones() {
    let mut rig = Rig::new();
    let now = rig.driver.now();
    let far = now.saturating_add(Duration::from_secs(3600));
    for (deadline, works) in [(None, false), (Some(Tick::MAX), false), (Some(far), false)] {
        rig.device.deadline = deadline;
        rig.want([]);
        assert_eq!(rig.turn(Duration::ZERO), (0, works));
    }
    rig.device.deadline = Some(now);
    rig.want([]);
    rig.device.deadline = Some(far);
    rig.want([]);
    // The time that it was set for has passed.
    assert_eq!(rig.next_event(), (1, false));
    assert_eq!(rig.device.timeouts, 0);
    rig.device.deadline = Some(rig.driver.now());
    rig.want([]);
    assert_eq!(rig.next_event(), (1, true));
    assert_eq!(rig.device.timeouts, 1);
}

#[test]
fn a_wake_lasts_for_one_turn() {
    let mut rig = Rig::new();
    let waker = rig.driver.waker();
    for _ in 0..2 {
        rig.driver.wake();
        waker.wake();
        assert_eq!(rig.turn(Duration::ZERO), (1, true));
        assert_eq!(rig.turn(Duration::ZERO), (0, false));
    }
    assert_eq!(rig.device.events, []);
}

#[test]
fn a_device_that_must_not_sleep_is_called_again_after_a_poll() {
    let mut rig = Rig::new();
    let until = rig.driver.now();
    for next in [NextCall::Poll { until }, NextCall::Immediately] {
        let began = Instant::now();
        rig.events.set_next_call(next);
        assert_eq!(rig.turn(DEADLINE), (0, true), "{next:?}");
        assert!(began.elapsed() < DEADLINE, "{next:?}");
        assert_eq!(rig.turn(Duration::ZERO), (0, false), "for one turn");
    }
    rig.events.set_next_call(NextCall::OnEvent);
    assert_eq!(rig.turn(Duration::ZERO), (0, false));
    // Events are passed on as well.
    rig.events.set_next_call(NextCall::Immediately);
    rig.driver.wake();
    assert_eq!(rig.next_event(), (1, true));
}

#[test]
fn an_embedders_descriptor_is_reported_by_its_number_and_never_read() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut rig = Rig::new();
    rig.driver.watch(u32::MAX, &near).unwrap();
    for _ in 0..2 {
        far.write_all(b"x").unwrap();
        assert_eq!(rig.turn(Duration::ZERO), (1, true));
        assert!(rig.events.own().eq([u32::MAX]));
        assert_eq!(rig.turn(Duration::ZERO), (0, false));
        assert_eq!(rig.events.own().count(), 0);
    }
    assert_eq!(rig.device.events, []);
    rig.driver.unwatch(&near).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(rig.turn(Duration::ZERO), (0, false));
    let error = io::Error::from(rig.driver.unwatch(&near).unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_descriptor_that_cannot_be_watched_is_reported_and_not_retried() {
    let file = File::open("/proc/self/exe").unwrap();
    let mut rig = Rig::new();
    rig.want([watch(&file, true, false)]);
    let [LoopError::Watch { fd, .. }] = rig.failures[..] else {
        panic!("{:?}", rig.failures);
    };
    assert_eq!(fd, file.as_raw_fd());
    assert_eq!(rig.driver.registrations.retry_at(), None);
    rig.want([unwatch(&file)]);
    assert_eq!(rig.failures.len(), 1, "nothing should be unregistered");
}

/// Actions for another stream.
fn others(action: Action) -> Action {
    let other = Token::from(2 * TOKEN);
    match action {
        Action::Watch { fd, interest, .. } => Action::Watch {
            token: other,
            fd,
            interest,
        },
        Action::Unwatch { fd, .. } => Action::Unwatch { token: other, fd },
        Action::Close { fds, stream, .. } => Action::Close {
            token: other,
            fds,
            stream,
        },
    }
}

#[test]
fn a_stream_that_shares_a_descriptor_does_not_silence_others() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let closed = VsockInnerStream::pair().unwrap().0;
    let mut rig = Rig::new();
    rig.want([watch(&near, true, false)]);
    rig.want([others(watch(&near, true, false))]);
    let [LoopError::Watch { fd, .. }] = rig.failures[..] else {
        panic!("{:?}", rig.failures);
    };
    assert_eq!(fd, near.as_raw_fd());
    rig.want([
        others(unwatch(&near)),
        others(close([Some(near.as_raw_fd()), None], closed)),
    ]);
    far.write_all(b"x").unwrap();
    assert_eq!(rig.received(), [(TOKEN, READABLE)]);
    rig.want([unwatch(&near)]);
    far.write_all(b"x").unwrap();
    assert_eq!(rig.received(), []);
}

#[test]
fn a_descriptor_closed_by_its_stream_can_be_reused_by_another() {
    let (near, _far) = UnixStream::pair().unwrap();
    let mut number = OwnedFd::from(near);
    let closed = VsockInnerStream::pair().unwrap().0;
    let mut rig = Rig::new();
    rig.want([watch(&number, true, false)]);
    let (next, mut far) = UnixStream::pair().unwrap();
    rustix::io::dup2(&next, &mut number).unwrap();
    rig.want([
        others(watch(&number, true, false)),
        close([Some(number.as_raw_fd()), None], closed),
    ]);
    far.write_all(b"x").unwrap();
    assert_eq!(rig.received(), [(2 * TOKEN, READABLE)]);
    assert!(rig.failures.is_empty());
}

#[test]
fn a_descriptor_without_room_in_the_kernel_is_retried_by_the_timer() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut rig = Rig::new();
    let now = rig.driver.now();
    rig.refuse(near.as_raw_fd(), now);
    let due = rig.driver.registrations.retry_at().unwrap();
    // Retrying on every event would waste time; waiting much longer would stall the stream.
    let wait = due.since(now);
    assert!(wait >= Duration::from_millis(20), "{wait:?}");
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    far.write_all(b"x").unwrap();
    rig.carry_out(now);
    // If the machine stalls, the timer fires before this turn.
    let (fired, _) = rig.turn(Duration::ZERO);
    assert_eq!(rig.device.events, [], "it was retried too early");
    if fired == 0 {
        assert_eq!(rig.next_event(), (1, false), "the timer has not fired");
    }
    rig.carry_out(due);
    assert_eq!(rig.received(), [(TOKEN, READABLE)]);
    assert_eq!(rig.driver.registrations.retry_at(), None);
}

#[test]
fn a_descriptor_watched_again_or_unwatched_is_not_retried() {
    let (near, _far) = UnixStream::pair().unwrap();
    for action in [watch(&near, true, false), unwatch(&near)] {
        let mut rig = Rig::new();
        let now = rig.driver.now();
        rig.refuse(near.as_raw_fd(), now);
        rig.want([action]);
        assert_eq!(rig.driver.registrations.retry_at(), None);
        assert!(rig.failures.is_empty());
    }
}

#[test]
fn t132_a_panic_passes_through_once_everything_is_reported() {
    let mut rig = Rig::new();
    let mut pairs = [(); 2].map(|()| UnixStream::pair().unwrap());
    for (near, far) in &mut pairs {
        rig.want([watch(near, true, false)]);
        far.write_all(b"x").unwrap();
    }
    rig.device.panics = true;
    catch_unwind(AssertUnwindSafe(|| rig.turn(Duration::ZERO))).unwrap_err();
    assert_eq!(rig.device.events.len(), 2);
}

#[test]
fn t132_a_panic_passes_through_once_everything_is_done() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut rig = Rig::new();
    let now = rig.driver.now();
    let (stream, mut peer) = VsockInnerStream::pair().unwrap();
    rig.device.actions.push_back(close([None; 2], stream));
    rig.device.actions.push_back(watch(&near, true, false));
    rig.device.deadline = Some(now);
    let carried = catch_unwind(AssertUnwindSafe(|| {
        rig.driver.carry_out(now, &mut rig.device, |handover| {
            drop(handover);
            panic!("a close that panics on purpose");
        });
    }));
    carried.unwrap_err();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert_eq!(rig.next_event(), (1, true), "the timer was not set");
    far.write_all(b"x").unwrap();
    assert_eq!(rig.received(), [(TOKEN, READABLE)]);
}

#[test]
fn the_loops_descriptor_is_readable_while_there_are_events() {
    let mut outer = Rig::new();
    let inner = Rig::new();
    outer.driver.watch(1, &inner.driver).unwrap();
    assert_eq!(outer.turn(Duration::ZERO), (0, false));
    inner.driver.wake();
    assert_eq!(outer.next_event(), (1, true));
    assert!(outer.events.own().eq([1]));
}
