// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a driver is owed that turns notifications off and on as it likes: one for everything that was used
//! while it wanted to hear of it, no later than the device may hold it back, and none in vain. And what
//! one is owed that kicks only when it was asked to: that its packets are taken in time nevertheless.

use std::io::{Read, Write};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::{prop_oneof, proptest};
use vsock_backend_api::VsockStream;
use vsock_driver::{DriverRing, Memory, bytes};
use vsock_inner::{VsockInnerBackend, VsockInnerListener, VsockInnerStream};
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Header, Op, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Outcome, VsockDevice};

use crate::rig::{BUFFER, CID, RX_DATA, Rig, packet};

const PORT: u32 = 80;
/// The guest's ports, of which the last has never a connection.
const PORTS: [u32; 3] = [1024, 1025, 1026];
const DELAYS: [Duration; 2] = [Duration::from_micros(500), Duration::from_millis(5)];
const KICK_DELAY: Duration = Duration::from_millis(1);
const RX: usize = 0;
const TX: usize = 1;

/// How a driver runs.
#[derive(Clone, Copy, Debug)]
struct Shape {
    event_idx: bool,
    size: u16,
    /// Where its rings begin.
    start: u16,
    buf_alloc: u32,
}

fn shape() -> impl Strategy<Value = Shape> {
    let size = (0..7_u32).prop_map(|log| 1 << log);
    let start = prop_oneof![Just(0), 65_500..=u16::MAX, any::<u16>()];
    let buf_alloc = prop_oneof![1..100_u32, 4096..65_536_u32];
    (any::<bool>(), size, start, buf_alloc).prop_map(|(event_idx, size, start, buf_alloc)| Shape {
        event_idx,
        size,
        start,
        buf_alloc,
    })
}

/// What the driver has asked for, of one queue, and what it has got.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Without `VIRTIO_F_EVENT_IDX`.
    is_quiet: bool,
    /// With it: of which chain it wants to hear.
    event: u16,
    /// When it must have been notified.
    due: Option<Tick>,
    /// It may be notified of what was used before the device was activated.
    is_new: bool,
    /// It was notified, and has not acted on it.
    notified: bool,
}

struct World {
    rig: Rig,
    shape: Shape,
    listener: VsockInnerListener,
    hosts: Vec<VsockInnerStream>,
    asked: [Asked; 2],
    /// Bytes received on each port, and bytes of which the device was told that they were read.
    received: [u32; 3],
    told: [u32; 3],
    /// The device has asked for credit.
    wants_credit: [bool; 3],
    /// Bytes sent on each port, and as many as may be.
    sent: [u32; 3],
    allowed: [u32; 3],
    /// The driver was to kick the device, and did.
    kicked: bool,
    /// The device has left nothing in the transmit ring.
    is_drained: bool,
}

impl World {
    fn new(shape: Shape) -> Self {
        let backend = VsockInnerBackend::new().unwrap();
        let listener = backend.listen(PORT).unwrap();
        listener.set_nonblocking(true).unwrap();
        let config = Config::builder().build().unwrap();
        let mut muxer = Muxer::new(GuestCid::try_from(CID).unwrap(), config);
        muxer.add_backend(Box::new(backend)).unwrap();
        let mut rig = Rig::sized(VsockDevice::builder(muxer).build(), shape.size);
        let rings: [&mut DriverRing; 3] = [&mut rig.rx, &mut rig.tx, &mut rig.event];
        for (ring, queue) in rings.into_iter().zip(&mut rig.queues) {
            ring.go_on_at(&rig.memory, queue, shape.start);
        }
        let mut world = Self {
            rig,
            shape,
            listener,
            hosts: Vec::new(),
            asked: [Asked::default(); 2],
            received: [0; 3],
            told: [0; 3],
            wants_credit: [false; 3],
            sent: [0; 3],
            allowed: [0; 3],
            kicked: false,
            is_drained: false,
        };
        for queue in [RX, TX] {
            world.ask(queue, 0);
        }
        world.activate();
        world
    }

    fn activate(&mut self) {
        let event_idx = if self.shape.event_idx { F_EVENT_IDX } else { 0 };
        let features = F_VERSION_1 | event_idx;
        self.rig.device.ack_features(features).unwrap();
        self.rig.activate();
        self.is_drained = false;
        for asked in &mut self.asked {
            asked.is_new = true;
            // Whoever serves the ring now does not know what was owed.
            asked.due = asked.due.map(|_| self.rig.now);
        }
    }

    fn ring(&mut self, queue: usize) -> (&mut DriverRing, &Memory) {
        let rig = &mut self.rig;
        let ring = if queue == RX {
            &mut rig.rx
        } else {
            &mut rig.tx
        };
        (ring, &rig.memory)
    }

    fn outstanding(&mut self, queue: usize) -> u16 {
        let (ring, _) = self.ring(queue);
        ring.available().wrapping_sub(ring.seen())
    }

    /// Asks to hear of the next chain but `ahead` that is used, and looks at the ring again.
    fn ask(&mut self, queue: usize, ahead: u16) {
        loop {
            let event_idx = self.shape.event_idx;
            let (ring, memory) = self.ring(queue);
            let event = ring.seen().wrapping_add(if event_idx { ahead } else { 0 });
            if event_idx {
                ring.set_used_event(memory, event);
            } else {
                ring.set_no_interrupt(memory, false);
            }
            let missed = ring.used_index(memory) != ring.seen();
            self.asked[queue].is_quiet = false;
            self.asked[queue].event = event;
            if !missed {
                return;
            }
            self.consume(queue, u16::MAX);
        }
    }

    fn ask_for_none(&mut self, queue: usize) {
        let event_idx = self.shape.event_idx;
        let (ring, memory) = self.ring(queue);
        let event = ring.seen().wrapping_sub(1);
        if event_idx {
            ring.set_used_event(memory, event);
        } else {
            ring.set_no_interrupt(memory, true);
        }
        self.asked[queue].is_quiet = true;
        self.asked[queue].event = event;
    }

    /// Takes used chains out of a ring.
    fn consume(&mut self, queue: usize, most: u16) {
        let (ring, memory) = self.ring(queue);
        let used = ring.used_at_most(memory, most);
        if queue == TX {
            return;
        }
        for (head, len) in used {
            let addr = RX_DATA + u64::from(head) * u64::from(BUFFER);
            let header = bytes(&self.rig.memory, addr, 44);
            let header = Header::decode(&header.try_into().unwrap());
            assert_eq!(header.len + 44, len);
            let Some(port) = PORTS.iter().position(|&port| port == header.dst_port) else {
                panic!("a packet for {}", header.dst_port);
            };
            self.received[port] += header.len;
            self.wants_credit[port] |= header.op == u16::from(Op::CreditRequest);
            self.allowed[port] = header.fwd_cnt.wrapping_add(header.buf_alloc);
        }
    }

    fn post(&mut self, most: u16) {
        let free = self.shape.size - self.outstanding(RX);
        for _ in 0..free.min(most) {
            self.rig.post(1);
            self.kicked |= self.is_to_kick(RX);
        }
    }

    /// Whether the device wants a kick with the chain that was made available just now.
    fn is_to_kick(&mut self, queue: usize) -> bool {
        let event_idx = self.shape.event_idx;
        let (ring, memory) = self.ring(queue);
        if event_idx {
            ring.avail_event(memory).wrapping_add(1) == ring.available()
        } else {
            ring.wants_kicks(memory)
        }
    }

    /// Sends a packet, if there is room for it; says that so much was read.
    fn send(&mut self, op: Op, port: usize, len: usize, percent: u32) -> bool {
        if self.outstanding(TX) == self.shape.size {
            return false;
        }
        let unread = self.received[port] - self.told[port];
        self.told[port] += unread * percent / 100;
        let header = Header {
            fwd_cnt: self.told[port],
            buf_alloc: self.shape.buf_alloc,
            ..packet(op, PORTS[port], PORT)
        };
        self.rig.send(header, &vec![0; len]);
        self.sent[port] += u32::try_from(len).unwrap();
        self.kicked |= self.is_to_kick(TX);
        if self.is_drained && !self.kicked {
            let due = self.rig.now.saturating_add(KICK_DELAY);
            let deadline = self.rig.device.deadline();
            assert!(deadline.is_some_and(|deadline| deadline <= due));
        }
        true
    }

    /// Whether the device has said that it has room for so much.
    fn has_credit(&self, port: usize, len: usize) -> bool {
        self.allowed[port].saturating_sub(self.sent[port]) >= u32::try_from(len).unwrap()
    }

    /// Streams to the host, and kicks the device only when it was asked to.
    fn stream(&mut self, packets: usize, len: usize) {
        for _ in 0..packets {
            self.act();
            if !self.has_credit(0, len) || !self.send(Op::ReadWrite, 0, len, 100) {
                break;
            }
            if self.kicked {
                self.settle();
                self.read();
            }
        }
    }

    fn read(&mut self) {
        let mut buf = [0; 65_536];
        for host in &mut self.hosts {
            while host.read(&mut buf).is_ok_and(|len| len > 0) {}
        }
    }

    fn connect(&mut self, port: usize) {
        (self.received[port], self.told[port]) = (0, 0);
        (self.sent[port], self.allowed[port]) = (0, 0);
        self.send(Op::Request, port, 0, 0);
    }

    /// One call of the device, and whether it did what it must.
    fn process(&mut self) -> Outcome {
        self.kicked = false;
        let used = |rig: &Rig| [&rig.rx, &rig.tx].map(|ring| ring.used_index(&rig.memory));
        let before = used(&self.rig);
        let outcome = self.rig.process();
        let after = used(&self.rig);
        self.is_drained = after[TX] == self.rig.tx.available();
        let now = self.rig.now;
        for (queue, notified) in [outcome.notify_rx, outcome.notify_tx]
            .into_iter()
            .enumerate()
        {
            let asked = &mut self.asked[queue];
            let count = after[queue].wrapping_sub(before[queue]);
            let is_wanted = if self.shape.event_idx {
                after[queue].wrapping_sub(asked.event).wrapping_sub(1) < count
            } else {
                count > 0 && !asked.is_quiet
            };
            if is_wanted {
                let due = now.saturating_add(DELAYS[queue]);
                asked.due.get_or_insert(due);
            }
            if notified {
                assert!(
                    asked.due.is_some() || asked.is_new,
                    "queue {queue}: in vain"
                );
                asked.due = None;
                asked.notified = true;
            }
            asked.is_new = false;
            assert!(asked.due.is_none_or(|due| due > now), "queue {queue}: late");
        }
        let due = self.asked.iter().filter_map(|asked| asked.due).min();
        if let Some(due) = due {
            let deadline = self.rig.device.deadline();
            assert!(deadline.is_some_and(|deadline| deadline <= due));
        }
        outcome
    }

    /// What the event loop does after a kick or an event.
    fn settle(&mut self) {
        for _ in 0..64 {
            self.rig.ready();
            let more = self.process().more;
            if !self.rig.apply_actions() && !more {
                break;
            }
        }
        while let Ok(mut host) = self.listener.accept() {
            host.set_nonblocking(true).unwrap();
            self.hosts.push(host);
        }
    }

    /// Lets time pass. The timer may be late, and a loop may call the device without it.
    fn pass(&mut self, time: Duration, late: Duration, on_timeout: bool) {
        let until = self.rig.now.saturating_add(time);
        for fired in 0.. {
            let Some(deadline) = self.rig.device.deadline().filter(|&at| at <= until) else {
                break;
            };
            assert!(fired < 1000, "a timer fires again and again");
            self.rig.now = deadline.saturating_add(late).max(self.rig.now);
            // Else it is another event that comes just then.
            if on_timeout || deadline.since(Tick::ZERO) > Duration::from_secs(1) {
                self.rig.device.on_timeout(self.rig.now);
            }
            self.settle();
        }
        self.rig.now = self.rig.now.max(until);
    }

    /// The driver does what it was notified for.
    fn act(&mut self) {
        for queue in [RX, TX] {
            if std::mem::take(&mut self.asked[queue].notified) {
                self.ask_for_none(queue);
                self.consume(queue, u16::MAX);
                self.ask(queue, 0);
                self.post(u16::MAX);
            }
        }
    }

    /// The device is reset and goes on with the rings as they are: a front-end that stops and starts.
    fn restart(&mut self) {
        self.rig.device.reset(self.rig.now);
        self.rig.apply_actions();
        self.hosts.clear();
        self.activate();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Connect(usize),
    Send(usize, usize, u32),
    HostWrite(usize, usize),
    HostRead,
    /// The driver acts, and sends a packet, and gets its answer at once.
    Exchange(u32, usize),
    /// It sends so many packets as they go.
    Stream(usize, usize),
    Post(u16),
    Consume(usize, u16),
    Ask(usize, u16),
    AskForNone(usize),
    Settle,
    Pass(Duration, Duration, bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let micros = |most: u64| (0..most).prop_map(Duration::from_micros);
    let late = prop_oneof![Just(Duration::ZERO), micros(1000)];
    prop_oneof![
        2 => (0..2_usize).prop_map(Step::Connect),
        8 => (0..3_usize, 0..1500_usize, 0..=100_u32).prop_map(|(p, l, r)| Step::Send(p, l, r)),
        4 => (0..2_usize, 1..9000_usize).prop_map(|(host, len)| Step::HostWrite(host, len)),
        2 => Just(Step::HostRead),
        6 => (0..=100_u32, 1..900_usize).prop_map(|(read, len)| Step::Exchange(read, len)),
        4 => (1..400_usize, 1..300_usize).prop_map(|(count, len)| Step::Stream(count, len)),
        3 => (1..40_u16).prop_map(Step::Post),
        2 => (0..2_usize, 1..9_u16).prop_map(|(queue, most)| Step::Consume(queue, most)),
        4 => (0..2_usize, 0..4_u16).prop_map(|(queue, ahead)| Step::Ask(queue, ahead)),
        2 => (0..2_usize).prop_map(Step::AskForNone),
        6 => Just(Step::Settle),
        6 => (micros(3000), late, any::<bool>()).prop_map(|(t, l, o)| Step::Pass(t, l, o)),
        2 => Just(Step::Restart),
    ]
}

/// A driver that looks at a ring only when it is notified, and kicks only when it is asked to, until it
/// has everything.
fn act_on_notifications_alone(shape: Shape, to_host: u32, len: usize, to_guest: u32) {
    // Small windows move little.
    let to_guest = to_guest.min(shape.buf_alloc.saturating_mul(20));
    let mut world = World::new(shape);
    world.post(u16::MAX);
    world.connect(0);
    world.settle();
    let mut host = world.hosts.pop().unwrap();
    let (mut sent, mut written, mut read) = (0, 0, 0);
    let all = to_host as usize * len;
    for _ in 0..100_000 {
        world.act();
        let is_credit_low = world.received[0] - world.told[0] > shape.buf_alloc / 2;
        if (world.wants_credit[0] || is_credit_low) && world.send(Op::CreditUpdate, 0, 0, 100) {
            world.wants_credit[0] = false;
        }
        while sent < to_host
            && world.has_credit(0, len)
            && !world.kicked
            && world.send(Op::ReadWrite, 0, len, 100)
        {
            sent += 1;
        }
        let rest = vec![0; (to_guest - written) as usize];
        let wrote = host.write(&rest).unwrap_or(0);
        written += u32::try_from(wrote).unwrap();
        let is_called = world.kicked || wrote > 0;
        if is_called {
            world.settle();
        }
        let mut buf = vec![0; 65_536];
        read += host.read(&mut buf).unwrap_or(0);
        if is_called || world.asked.iter().any(|asked| asked.notified) {
            continue;
        }
        let is_done = read == all && world.received[0] == to_guest;
        if is_done && world.outstanding(TX) == 0 {
            return;
        }
        let now = world.rig.now;
        let deadline = world.rig.device.deadline();
        let Some(deadline) = deadline.filter(|at| at.since(now) <= DELAYS[TX]) else {
            panic!(
                "{read} of {all}, {} of {to_guest} at {now:?}",
                world.received[0]
            );
        };
        world.pass(deadline.since(now), Duration::ZERO, true);
    }
    panic!("there is no end");
}

proptest! {
    #[test]
    fn a_driver_is_notified_in_time_of_all_that_it_asked_for_and_of_nothing_else(
        shape in shape(),
        steps in vec(step(), 1..120),
    ) {
        let mut world = World::new(shape);
        world.post(u16::MAX);
        world.connect(0);
        world.settle();
        for step in steps {
            match step {
                Step::Connect(port) => world.connect(port),
                Step::Send(port, len, percent) => {
                    world.send(Op::ReadWrite, port, len, percent);
                }
                Step::HostWrite(host, len) => {
                    if let Some(host) = world.hosts.get_mut(host) {
                        let _full = host.write(&vec![0; len]);
                    }
                }
                Step::HostRead => {
                    for host in &mut world.hosts {
                        let _empty = host.read(&mut [0; 4096]);
                    }
                }
                Step::Exchange(percent, len) => {
                    world.act();
                    world.send(Op::ReadWrite, 0, 1, percent);
                    if let Some(host) = world.hosts.last_mut() {
                        let _full = host.write(&vec![0; len]);
                    }
                    world.settle();
                }
                Step::Stream(packets, len) => world.stream(packets, len),
                Step::Post(most) => world.post(most),
                Step::Consume(queue, most) => world.consume(queue, most),
                Step::Ask(queue, ahead) => world.ask(queue, ahead),
                Step::AskForNone(queue) => world.ask_for_none(queue),
                Step::Settle => world.settle(),
                Step::Pass(time, late, on_timeout) => world.pass(time, late, on_timeout),
                Step::Restart => world.restart(),
            }
        }
        world.settle();
        world.pass(DELAYS[TX], Duration::ZERO, true);
        world.settle();
        assert!(world.asked.iter().all(|asked| asked.due.is_none()));
    }

    #[test]
    fn a_driver_that_acts_on_notifications_alone_gets_everything(
        shape in shape(),
        to_host in 0..1000_u32,
        len in 1..1200_usize,
        to_guest in 0..30_000_u32,
    ) {
        act_on_notifications_alone(shape, to_host, len, to_guest);
    }
}
