// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Neither side sleeps while the other has work for it, at whatever moment the driver acts and with
//! any schedule of driver and device. The driver suppresses notifications as Linux does.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::{prop_oneof, proptest};
use virtio_queue::QueueT;
use vsock_backend_api::VsockStream;
use vsock_driver::{Descriptor, DriverQueue, Memory, filled, memory};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_proto::{Op, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, NextCall, QueueName, VsockDevice};

use crate::looked_up::LookedUp;
use crate::rig::{Rig, muxer, packet};

const GUEST: u32 = 1024;
const PORT: u32 = 80;
const RX: usize = QueueName::Rx.index();
const TX: usize = QueueName::Tx.index();

/// The features with or without event indices.
fn features(event_idx: bool) -> u64 {
    F_VERSION_1 | if event_idx { F_EVENT_IDX } else { 0 }
}

/// Returns whether the driver must kick after it has made a chain available (Linux's
/// `virtqueue_kick_prepare`).
fn has_to_kick(ring: &DriverQueue, memory: &Memory, event_idx: bool) -> bool {
    if event_idx {
        ring.avail_event(memory).wrapping_add(1) == ring.available()
    } else {
        ring.wants_kicks(memory)
    }
}

/// Asks for an interrupt, and returns whether there are used chains by now (Linux's
/// `virtqueue_enable_cb`).
fn enable_interrupt(ring: &DriverQueue, memory: &Memory, event_idx: bool) -> bool {
    if event_idx {
        ring.set_used_event(memory, ring.seen());
    } else {
        ring.set_no_interrupt(memory, false);
    }
    ring.used_index(memory) != ring.seen()
}

/// Suppresses interrupts (Linux's `virtqueue_disable_cb`).
fn disable_interrupt(ring: &DriverQueue, memory: &Memory, event_idx: bool) {
    if event_idx {
        ring.set_used_event(memory, ring.seen().wrapping_sub(1));
    } else {
        ring.set_no_interrupt(memory, true);
    }
}

/// An action before an access to memory, and the number of accesses before that one.
type Hook = Rc<RefCell<(usize, Option<Box<dyn FnOnce()>>)>>;

/// An action of the driver on one of its queues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Act {
    /// Makes a chain available: a packet, or the buffer for which a reply waits.
    Offers(QueueName),
    /// Prepares to sleep until a chain comes back: the packet, or the buffer with its reply.
    Awaits(QueueName),
}

/// Creates a driver with a packet that the device answers, and a buffer for the reply. The device
/// has started, and the driver suppresses interrupts.
fn scene(event_idx: bool, poll_budget: Duration, hook: &Hook) -> Rig<LookedUp> {
    let muxer = muxer(VsockInnerBackend::new().unwrap());
    let device = VsockDevice::builder(muxer).poll_budget(poll_budget).build();
    let memory = memory(&[(0, 0x1_0000)]);
    filled(&memory, 0xd000, &packet(Op::ReadWrite, 1, 2).encode());
    let hook = Rc::clone(hook);
    let watched = LookedUp::new(&memory, move |addr, _| {
        let (left, act) = &mut *hook.borrow_mut();
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => act.take().into_iter().for_each(|act| act()),
        }
        Ok(addr)
    });
    let mut rig = Rig::over(device, 4, memory, watched);
    for head in 0..2 {
        rig.tx
            .describe(&rig.memory, head, Descriptor::readable(0xd000, 44));
        rig.rx
            .describe(&rig.memory, head, Descriptor::writable(0xe000, 44));
    }
    rig.device.ack_features(features(event_idx)).unwrap();
    rig.activate();
    let _ = run(&mut rig, Duration::ZERO);
    for driver in [&rig.rx, &rig.tx] {
        disable_interrupt(driver, &rig.memory, event_idx);
    }
    rig
}

/// Calls the device until it may sleep. Returns for which queues it notified the guest.
fn run(rig: &mut Rig<LookedUp>, poll_budget: Duration) -> [bool; 2] {
    let mut interrupted = [false; 2];
    loop {
        let outcome = rig.process();
        interrupted[RX] |= outcome.notify_rx;
        interrupted[TX] |= outcome.notify_tx;
        if outcome.next == NextCall::OnEvent {
            return interrupted;
        }
        rig.now = rig.now.saturating_add(poll_budget);
    }
}

/// Lets the device take a packet and answer it. The driver acts before the device's memory access
/// number `access`. Returns whether there was such an access.
fn act_before(act: Act, event_idx: bool, access: usize, poll_budget: Duration) -> bool {
    let hook = Hook::default();
    let mut scene = scene(event_idx, poll_budget, &hook);
    let memory = scene.memory.clone();
    scene.tx.offer(&memory, 0);
    if act != Act::Offers(QueueName::Rx) {
        scene.rx.offer(&memory, 0);
    }
    let noticed = Rc::new(Cell::new(None));
    let notices = Rc::clone(&noticed);
    let (Act::Offers(name) | Act::Awaits(name)) = act;
    let mut driver = scene.ring(name).clone();
    let acts = move || {
        notices.set(Some(match act {
            Act::Offers(_) => {
                let head = driver.available();
                driver.offer(&memory, head);
                has_to_kick(&driver, &memory, event_idx)
            }
            Act::Awaits(_) => enable_interrupt(&driver, &memory, event_idx),
        }));
    };
    hook.replace((access, Some(Box::new(acts))));
    let interrupted = run(&mut scene, poll_budget);
    let Some(noticed) = noticed.take() else {
        return false;
    };
    let is_known = match act {
        Act::Offers(QueueName::Rx) => scene.queues[RX].next_used() == 1,
        Act::Offers(_) => scene.queues[TX].next_used() == 2,
        Act::Awaits(name) => interrupted[name.index()],
    };
    assert!(is_known || noticed, "{act:?} before access {access}");
    true
}

#[test]
fn t104_a_driver_that_acts_at_any_moment_loses_no_kick_and_no_interrupt() {
    let queues = [QueueName::Rx, QueueName::Tx];
    for act in queues
        .map(Act::Offers)
        .into_iter()
        .chain(queues.map(Act::Awaits))
    {
        for event_idx in [false, true] {
            for poll_budget in [0, 20].map(Duration::from_micros) {
                let accesses = (0..)
                    .take_while(|&access| act_before(act, event_idx, access, poll_budget))
                    .count();
                assert!(accesses > 10, "{act:?}: {accesses}");
            }
        }
    }
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
struct Shape {
    event_idx: bool,
    size: u16,
    /// The first indices of the queues.
    start: u16,
    poll_budget: Duration,
}

fn shape() -> impl Strategy<Value = Shape> {
    let size = (0..7_u32).prop_map(|log| 1 << log);
    let start = prop_oneof![Just(0), 65_500..=u16::MAX, any::<u16>()];
    let budget = prop_oneof![Just(0), Just(20), 1..500_u64].prop_map(Duration::from_micros);
    (any::<bool>(), size, start, budget).prop_map(|(event_idx, size, start, poll_budget)| Shape {
        event_idx,
        size,
        start,
        poll_budget,
    })
}

/// The notifications on their way to each side, and whether it sleeps.
struct World {
    rig: Rig,
    shape: Shape,
    host: VsockInnerStream,
    next: NextCall,
    /// A kick, or another event for the device.
    woken: bool,
    /// Interrupts of the receive and of the transmit queue.
    interrupted: [bool; 2],
    /// When the device took the first packet that it has not reported.
    untold_since: Option<Tick>,
    sent: usize,
    read: usize,
    written: usize,
    received: usize,
}

impl World {
    fn new(shape: Shape) -> Self {
        let backend = VsockInnerBackend::new().unwrap();
        let listener = backend.listen(PORT).unwrap();
        let device = VsockDevice::builder(muxer(backend))
            .poll_budget(shape.poll_budget)
            .build();
        let mut rig = Rig::sized(device, shape.size);
        let rings = [&mut rig.rx, &mut rig.tx, &mut rig.event];
        for (ring, queue) in rings.into_iter().zip(&mut rig.queues) {
            ring.go_on_at(&rig.memory, queue, shape.start);
        }
        for ring in [&rig.rx, &rig.tx] {
            enable_interrupt(ring, &rig.memory, shape.event_idx);
        }
        rig.device.ack_features(features(shape.event_idx)).unwrap();
        rig.start();
        rig.post(shape.size);
        rig.send(packet(Op::Request, GUEST, PORT), b"");
        rig.settle();
        rig.now = rig.now.saturating_add(Duration::from_millis(2));
        rig.settle();
        for ring in [&mut rig.rx, &mut rig.tx] {
            ring.used(&rig.memory);
            enable_interrupt(ring, &rig.memory, shape.event_idx);
        }
        let mut host = listener.accept().unwrap();
        host.set_nonblocking(true).unwrap();
        let mut world = Self {
            rig,
            shape,
            host,
            next: NextCall::Immediately,
            woken: true,
            interrupted: [false; 2],
            untold_since: None,
            sent: 0,
            read: 0,
            written: 0,
            received: 0,
        };
        world.post();
        world
    }

    fn ring(&self, queue: usize) -> &DriverQueue {
        [&self.rig.rx, &self.rig.tx][queue]
    }

    fn free(&self, queue: usize) -> u16 {
        let ring = self.ring(queue);
        self.shape.size - ring.available().wrapping_sub(ring.seen())
    }

    fn kick(&mut self, queue: usize) {
        let (ring, memory) = (self.ring(queue), &self.rig.memory);
        self.woken |= has_to_kick(ring, memory, self.shape.event_idx);
    }

    fn post(&mut self) {
        for _ in 0..self.free(RX) {
            self.rig.post(1);
            self.kick(RX);
        }
    }

    fn send(&mut self, len: usize) -> bool {
        let is_free = self.free(TX) > 0;
        if is_free {
            self.rig
                .send(packet(Op::ReadWrite, GUEST, PORT), &vec![0; len]);
            self.sent += len;
            self.kick(TX);
        }
        is_free
    }

    /// Lets the driver handle an interrupt and sleep again.
    fn handle_interrupt(&mut self, queue: usize) {
        if !std::mem::take(&mut self.interrupted[queue]) {
            return;
        }
        let event_idx = self.shape.event_idx;
        disable_interrupt(self.ring(queue), &self.rig.memory, event_idx);
        loop {
            if queue == RX {
                let packets = self.rig.rx.used(&self.rig.memory);
                let bytes = packets.iter().map(|&(_, len)| len as usize - 44);
                self.received += bytes.sum::<usize>();
                self.post();
            } else {
                self.rig.tx.used(&self.rig.memory);
                self.untold_since = None;
            }
            if !enable_interrupt(self.ring(queue), &self.rig.memory, event_idx) {
                return;
            }
        }
    }

    fn write(&mut self, len: usize) {
        self.written += self.host.write(&vec![0; len]).unwrap_or(0);
        self.woken = true;
    }

    fn read(&mut self) {
        self.read += self.host.read(&mut [0; 65_536]).unwrap_or(0);
        self.woken = true;
    }

    fn pass(&mut self, time: Duration) {
        self.rig.now = self.rig.now.saturating_add(time);
        let deadline = self.rig.device.deadline();
        if deadline.is_some_and(|at| at <= self.rig.now) {
            self.rig.device.on_timeout(self.rig.now);
            self.woken = true;
        }
    }

    fn is_awake(&self) -> bool {
        self.next != NextCall::OnEvent || self.woken
    }

    /// Runs the device thread, unless it sleeps.
    fn run_device(&mut self) {
        if !self.is_awake() {
            return;
        }
        self.woken = false;
        self.rig.ready();
        let outcome = self.rig.process();
        self.next = outcome.next;
        for (queue, notified) in [(RX, outcome.notify_rx), (TX, outcome.notify_tx)] {
            let ring = self.ring(queue);
            // With flags, a driver cannot report that it has already seen some chains.
            let is_news = ring.used_index(&self.rig.memory) != ring.seen();
            let may_be_none = !notified || !self.shape.event_idx;
            assert!(may_be_none || is_news, "queue {queue}: spurious interrupt");
            self.interrupted[queue] |= notified;
        }
        self.woken = self.rig.apply_actions();
        self.check_driver();
    }

    /// Checks that a sleeping driver has no work, except for a few taken packets that a device that
    /// is awake will report.
    fn check_driver(&mut self) {
        let untold = [RX, TX].map(|queue| {
            let used = self.ring(queue).used_index(&self.rig.memory);
            used.wrapping_sub(self.ring(queue).seen())
        });
        assert!(self.interrupted[RX] || untold[RX] == 0, "a buffer waits");
        if self.interrupted[TX] || untold[TX] == 0 {
            self.untold_since = None;
            return;
        }
        let sleeps = self.next == NextCall::OnEvent;
        assert!(!sleeps, "the device sleeps with an interrupt pending");
        assert!(untold[TX] * 4 < self.shape.size, "{}", untold[TX]);
        let since = *self.untold_since.get_or_insert(self.rig.now);
        assert!(self.rig.now.since(since) < Duration::from_millis(2));
    }

    /// Checks that a sleeping device has no work.
    fn check_device(&self) {
        if self.is_awake() {
            return;
        }
        let waits =
            |queue: usize| self.ring(queue).available() != self.rig.queues[queue].next_avail();
        let muxer = self.rig.device.muxer();
        assert!(!waits(TX) || !muxer.can_take_packet(), "a packet waits");
        assert!(!waits(RX) || !muxer.wants_transmit(), "a stream waits");
    }

    /// Runs both sides in short steps until neither has any work left.
    fn come_to_rest(&mut self) {
        for _ in 0..10_000 {
            let is_quiet = !self.is_awake() && self.interrupted == [false; 2];
            if is_quiet && self.read == self.sent {
                return;
            }
            self.run_device();
            self.handle_interrupt(RX);
            self.handle_interrupt(TX);
            if self.read < self.sent {
                self.read();
            }
            self.pass(Duration::from_micros(3));
            self.check_device();
        }
        panic!("no rest: {} of {} sent", self.read, self.sent);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    Write(usize),
    Read,
    Device,
    Interrupt(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..300_usize).prop_map(Step::Send),
        2 => (1..5000_usize).prop_map(Step::Write),
        1 => Just(Step::Read),
        6 => Just(Step::Device),
        3 => (0..2_usize).prop_map(Step::Interrupt),
        2 => (1..60_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn t134_no_side_sleeps_while_the_other_waits_for_it(
        shape in shape(),
        steps in vec(step(), 1..300),
    ) {
        let mut world = World::new(shape);
        for step in steps {
            match step {
                Step::Send(len) => {
                    world.send(len);
                }
                Step::Write(len) => world.write(len),
                Step::Read => world.read(),
                Step::Device => world.run_device(),
                Step::Interrupt(queue) => world.handle_interrupt(queue),
                Step::Pass(micros) => world.pass(Duration::from_micros(micros)),
            }
            world.check_device();
        }
        world.come_to_rest();
        assert_eq!((world.received, world.read), (world.written, world.sent));
        // Afterwards it still works.
        assert!(world.send(1));
        world.write(1);
        world.come_to_rest();
        assert_eq!((world.received, world.read), (world.written, world.sent));
    }
}
