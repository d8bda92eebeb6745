// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pauses, cuts, transport resets, snapshots, restores, farewells and resets in any order, between
//! calls of a guest and of host components, with a clock that may run backwards.
//!
//! The model is the guest's view of its connections. At the end, that view must be the device's.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use virtio_queue::{Queue, QueueT};
use vsock_backend_api::VsockStream;
use vsock_driver::bytes;
use vsock_inner::{VsockInnerBackend, VsockInnerConnector, VsockInnerListener, VsockInnerStream};
use vsock_properties::cases;
use vsock_proto::{Config, Header, Op, Phase, Tick};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Outcome, Queues, VsockDevice};

use crate::rig::{BUFFER, RX_DATA, Rig, SIZE, device, packet};

/// The port of the host on which a component listens.
const PORT: u32 = 80;

#[derive(Clone, Copy, Debug)]
enum Step {
    Pause,
    Resume,
    Cut,
    TransportReset,
    Farewell,
    Reload,
    /// Another process continues.
    Restore,
    Process,
    Ready,
    /// This many milliseconds pass; with a negative number, the clock runs backwards.
    Elapse(i64),
    GuestConnects,
    HostConnects,
    GuestSends(usize, usize),
    HostSends(usize, usize),
    HostReads,
    HostLeaves(usize),
    PostBuffers(u16),
    PostEvents(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..8_usize;
    prop_oneof![
        2 => Just(Step::Pause),
        3 => Just(Step::Resume),
        1 => Just(Step::Cut),
        1 => Just(Step::TransportReset),
        1 => proptest::bool::weighted(0.3).prop_map(|yes| match yes {
            true => Step::Farewell,
            false => Step::Process,
        }),
        1 => proptest::bool::weighted(0.5).prop_map(|yes| match yes {
            true => Step::Reload,
            false => Step::Restore,
        }),
        4 => Just(Step::Process),
        4 => Just(Step::Ready),
        2 => prop_oneof![-300..700_i64, Just(0), Just(100), Just(500)].prop_map(Step::Elapse),
        4 => Just(Step::GuestConnects),
        3 => Just(Step::HostConnects),
        3 => (which(), 1..3000_usize).prop_map(|(which, len)| Step::GuestSends(which, len)),
        3 => (which(), 1..3000_usize).prop_map(|(which, len)| Step::HostSends(which, len)),
        2 => Just(Step::HostReads),
        1 => which().prop_map(Step::HostLeaves),
        3 => (1..12_u16).prop_map(Step::PostBuffers),
        2 => (1..3_u16).prop_map(Step::PostEvents),
    ]
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The guest has sent a REQUEST.
    Requested,
    Connected,
    Ended,
}

/// A connection as the guest sees it, and the component's end of it.
#[derive(Debug)]
struct Connection {
    host_port: u32,
    state: State,
    resets: u32,
    /// The number of the last chain with a packet of this connection.
    last: u16,
    /// Whether packets were still in the queue when the connection ended. Each of them may be
    /// answered with an RST.
    strays: bool,
    guest_sent: usize,
    guest_got: usize,
    host: Option<VsockInnerStream>,
    host_sent: usize,
    host_got: usize,
    host_end: Option<Result<(), ErrorKind>>,
    host_left: bool,
}

impl Connection {
    fn new(host_port: u32, state: State) -> Self {
        Self {
            host_port,
            state,
            resets: 0,
            last: 0,
            strays: false,
            guest_sent: 0,
            guest_got: 0,
            host: None,
            host_sent: 0,
            host_got: 0,
            host_end: None,
            host_left: false,
        }
    }
}

/// The bytes of a connection from this position on.
fn pattern(port: u32, from: usize, len: usize) -> Vec<u8> {
    (from..from + len)
        .map(|at| u8::try_from((at + port as usize) % 251).unwrap())
        .collect()
}

struct World {
    rig: Rig,
    features: u64,
    listener: VsockInnerListener,
    connector: VsockInnerConnector,
    paused: bool,
    farewell: bool,
    /// By the guest's port.
    connections: BTreeMap<u32, Connection>,
    /// Host ends whose REQUEST the guest has not received.
    calling: BTreeMap<u32, VsockInnerStream>,
    next_port: u32,
    /// Packets of the guest that wait for room in its queue.
    outbox: VecDeque<(Header, Vec<u8>)>,
    taken: Vec<u32>,
    offered: Vec<u32>,
    millis: i64,
    /// The device's position in the transmit queue before the step.
    before: u16,
}

fn backend() -> (
    VsockDevice<vsock_driver::Memory>,
    VsockInnerListener,
    VsockInnerConnector,
) {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(PORT).unwrap();
    listener.set_nonblocking(true).unwrap();
    let connector = backend.get_connector();
    (device(backend, Config::default()), listener, connector)
}

impl World {
    fn new(features: u64) -> Self {
        let (device, listener, connector) = backend();
        Self {
            rig: Rig::started(device, features),
            features: F_VERSION_1 | features,
            listener,
            connector,
            paused: false,
            farewell: false,
            connections: BTreeMap::new(),
            calling: BTreeMap::new(),
            next_port: 1000,
            outbox: VecDeque::new(),
            taken: Vec::new(),
            offered: Vec::new(),
            millis: 1000,
            before: 0,
        }
    }

    fn resume(&mut self) {
        let [rx, tx, event] = &mut self.rig.queues;
        let event = Some(event);
        let mut queues = Queues { rx, tx, event };
        let memory = &self.rig.device_memory;
        self.rig.device.resume(memory, &mut queues).unwrap();
        self.paused = false;
    }

    fn take(&mut self, step: Step) {
        let now = self.rig.now;
        self.before = self.rig.queues[1].next_used();
        match step {
            Step::Pause => {
                self.rig.device.pause();
                self.paused = true;
            }
            Step::Resume => self.resume(),
            Step::Cut => self.rig.device.cut(now),
            Step::TransportReset => self.rig.device.transport_reset(now),
            Step::Farewell => {
                self.rig.device.farewell(now);
                self.farewell = true;
            }
            Step::Reload => self.reload(),
            Step::Restore => self.restore(),
            Step::Process => self.process(),
            // Only descriptors of streams are ready in a pause.
            Step::Ready => self.rig.ready(),
            Step::Elapse(millis) => self.elapse(millis),
            Step::GuestConnects => {
                let port = self.next_port;
                self.next_port += 1;
                self.say(packet(Op::Request, port, PORT), Vec::new());
            }
            Step::HostConnects => {
                let port = self.next_port;
                self.next_port += 1;
                let mut stream = self.connector.start_connect_to(port).unwrap();
                stream.set_nonblocking(true).unwrap();
                self.calling.insert(port, stream);
            }
            Step::GuestSends(which, len) => self.guest_sends(which, len),
            Step::HostSends(which, len) => self.host_sends(which, len),
            Step::HostReads => self.hosts_read(),
            Step::HostLeaves(which) => {
                let mut with_host = self
                    .connections
                    .values_mut()
                    .filter(|one| one.host.is_some());
                if let Some(connection) = with_host.nth(which) {
                    connection.host = None;
                    connection.host_left = true;
                }
            }
            Step::PostBuffers(count) => self.post(count),
            Step::PostEvents(count) => self.post_events(count),
        }
        self.rig.apply_actions();
        self.look();
        let device = &self.rig.device;
        assert_eq!(device.is_active(), !self.paused);
        assert!(device.state().active);
        assert_eq!(device.acked_features(), self.features);
    }

    /// The guest reboots, or another one runs.
    fn reload(&mut self) {
        self.rig.device.reset(self.rig.now);
        self.rig.apply_actions();
        self.rig.new_rings();
        self.rig.device.ack_features(self.features).unwrap();
        self.rig.activate();
        (self.paused, self.farewell) = (false, false);
        for connection in self.connections.values_mut() {
            connection.state = State::Ended;
        }
        self.outbox.clear();
        self.taken.clear();
        self.offered.clear();
    }

    fn restore(&mut self) {
        let state = self.rig.device.state();
        let queues = self.rig.queues.each_ref().map(Queue::state);
        let (device, listener, connector) = backend();
        self.rig.device = device;
        (self.listener, self.connector) = (listener, connector);
        self.rig.queues = queues.map(|queue| Queue::try_from(queue).unwrap());
        self.rig.watched.clear();
        self.rig.restore(&state).unwrap();
        self.calling.clear();
        for connection in self.connections.values_mut() {
            connection.host = None;
            connection.host_left |= connection.state == State::Connected;
        }
        (self.paused, self.farewell) = (false, false);
    }

    fn process(&mut self) {
        let before = self.positions();
        let outcome = self.rig.process();
        if self.paused {
            assert_eq!(outcome, Outcome::default());
            assert_eq!(self.positions(), before);
        }
    }

    fn positions(&self) -> [(u16, u16); 3] {
        let position = |queue: &Queue| (queue.next_avail(), queue.next_used());
        self.rig.queues.each_ref().map(position)
    }

    fn elapse(&mut self, millis: i64) {
        if self.paused {
            return;
        }
        self.millis = (self.millis + millis).max(0);
        let millis = u64::try_from(self.millis).unwrap();
        self.rig.now = Tick::ZERO.saturating_add(Duration::from_millis(millis));
        if self
            .rig
            .device
            .deadline()
            .is_some_and(|at| at <= self.rig.now)
        {
            self.rig.device.on_timeout(self.rig.now);
        }
    }

    fn post(&mut self, count: u16) {
        let (ring, memory) = (&self.rig.rx, &self.rig.memory);
        let held = ring.available().wrapping_sub(ring.used_index(memory));
        self.rig.post(count.min(SIZE - held));
    }

    fn post_events(&mut self, count: u16) {
        let (ring, memory) = (&self.rig.event, &self.rig.memory);
        let held = ring.available().wrapping_sub(ring.used_index(memory));
        self.rig.post_events(count.min(SIZE - held), 8);
    }

    /// Sends a packet as soon as the queue has room.
    fn say(&mut self, header: Header, payload: Vec<u8>) {
        self.outbox.push_back((header, payload));
        self.send_all();
    }

    fn send_all(&mut self) {
        while let Some((header, payload)) = self.outbox.front() {
            let number = self.rig.tx.available();
            if number.wrapping_sub(self.rig.tx.seen()) >= SIZE {
                return;
            }
            if header.op == u16::from(Op::Request) {
                let connection = Connection::new(header.dst_port, State::Requested);
                self.connections.insert(header.src_port, connection);
            }
            if let Some(connection) = self.connections.get_mut(&header.src_port) {
                connection.last = number;
            }
            self.offered.push(self.rig.send(*header, payload).into());
            self.outbox.pop_front();
        }
    }

    fn guest_sends(&mut self, which: usize, len: usize) {
        let mut open = self.connections.iter_mut();
        let open = &mut open
            .by_ref()
            .filter(|(_, one)| one.state == State::Connected);
        let Some((&port, connection)) = open.nth(which) else {
            return;
        };
        let payload = pattern(port, connection.guest_sent, len);
        connection.guest_sent += len;
        let header = packet(Op::ReadWrite, port, connection.host_port);
        let header = Header {
            fwd_cnt: u32::try_from(connection.guest_got).unwrap(),
            ..header
        };
        self.say(header, payload);
    }

    fn host_sends(&mut self, which: usize, len: usize) {
        let with_host = self
            .connections
            .iter_mut()
            .filter(|(_, one)| one.host.is_some());
        let mut open = with_host.filter(|(_, one)| one.host_end.is_none());
        let Some((&port, connection)) = open.nth(which) else {
            return;
        };
        let bytes = pattern(port, connection.host_sent, len);
        match connection.host.as_mut().unwrap().write(&bytes) {
            Ok(written) => connection.host_sent += written,
            Err(error) => assert!(
                [
                    ErrorKind::WouldBlock,
                    ErrorKind::BrokenPipe,
                    ErrorKind::ConnectionReset,
                    ErrorKind::ConnectionRefused,
                ]
                .contains(&error.kind()),
                "{error}"
            ),
        }
    }

    fn hosts_read(&mut self) {
        while let Ok(mut stream) = self.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            let port = stream.peer().unwrap().port;
            let connection = self.connections.get_mut(&port).unwrap();
            assert!(connection.host.is_none());
            connection.host = Some(stream);
        }
        for (&port, connection) in &mut self.connections {
            let Some(host) = &mut connection.host else {
                continue;
            };
            let mut bytes = [0; 4096];
            while connection.host_end.is_none() {
                match host.read(&mut bytes) {
                    Ok(0) => connection.host_end = Some(Ok(())),
                    Ok(len) => {
                        assert_eq!(bytes[..len], pattern(port, connection.host_got, len));
                        connection.host_got += len;
                        assert!(connection.host_got <= connection.guest_sent);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => connection.host_end = Some(Err(error.kind())),
                }
            }
        }
    }

    /// Lets the guest process what the device has used.
    fn look(&mut self) {
        let taken = self.rig.tx.used(&self.rig.memory);
        self.taken.extend(taken.iter().map(|(head, _)| *head));
        assert_eq!(
            self.offered[..self.taken.len()],
            self.taken[..],
            "each once, in order"
        );
        for (head, len) in self.rig.rx.used(&self.rig.memory) {
            assert!(len >= 44);
            let at = RX_DATA + u64::from(head) * u64::from(BUFFER);
            let whole = bytes(&self.rig.memory, at, len as usize);
            let (header, payload) = whole.split_at(44);
            let header = Header::decode(header.try_into().unwrap());
            self.receive(&header, payload);
        }
        for (_, len) in self.rig.event.used(&self.rig.memory) {
            assert_eq!(len, 4);
            for connection in self.connections.values_mut() {
                let taken = self.before.wrapping_sub(connection.last);
                connection.strays = !(1..0x8000).contains(&taken);
                if connection.state == State::Connected {
                    connection.state = State::Ended;
                }
                // The device had taken the REQUEST before, and its answer is lost. Those that it
                // takes in the same call come after the event.
                if matches!(connection.state, State::Requested) && !connection.strays {
                    connection.state = State::Ended;
                }
            }
            self.outbox
                .retain(|(header, _)| header.op == u16::from(Op::Request));
        }
        self.send_all();
    }

    fn receive(&mut self, header: &Header, payload: &[u8]) {
        let port = header.dst_port;
        let op = header.op;
        if op == u16::from(Op::Request) {
            let mut connection = Connection::new(header.src_port, State::Connected);
            connection.host = self.calling.remove(&port);
            assert!(connection.host.is_some(), "no host component called");
            let old = self.connections.insert(port, connection);
            assert!(old.is_none());
            self.say(packet(Op::Response, port, header.src_port), Vec::new());
            return;
        }
        let connection = self.connections.get_mut(&port).unwrap();
        assert_eq!(connection.host_port, header.src_port);
        if op == u16::from(Op::Reset) {
            if connection.state == State::Ended && connection.strays {
                return;
            }
            connection.resets += 1;
            assert_ne!(connection.state, State::Ended, "{port} has ended already");
            connection.state = State::Ended;
        } else if op == u16::from(Op::Response) {
            assert!(matches!(connection.state, State::Requested), "{port}");
            connection.state = State::Connected;
        } else if op == u16::from(Op::ReadWrite) {
            assert_eq!(connection.state, State::Connected, "{port}");
            assert_eq!(payload, pattern(port, connection.guest_got, payload.len()));
            connection.guest_got += payload.len();
            assert!(connection.guest_got <= connection.host_sent);
        } else if op == u16::from(Op::Shutdown) {
            assert_eq!(connection.state, State::Connected, "{port}");
            assert!(connection.host_left, "{port}");
            if header.flags == 3 {
                connection.state = State::Ended;
                let host_port = connection.host_port;
                self.say(packet(Op::Reset, port, host_port), Vec::new());
            }
        } else {
            assert_eq!(connection.state, State::Connected, "{port}: {header:?}");
        }
    }

    /// Lets everything arrive.
    fn arrive(&mut self) {
        self.take(Step::Resume);
        for _ in 0..40 {
            for step in [
                Step::PostBuffers(40),
                Step::PostEvents(1),
                Step::Ready,
                Step::Process,
                Step::Process,
                Step::HostReads,
            ] {
                self.take(step);
            }
        }
        self.take(Step::Elapse(600));
        for _ in 0..20 {
            for step in [
                Step::PostBuffers(40),
                Step::Ready,
                Step::Process,
                Step::HostReads,
            ] {
                self.take(step);
            }
        }
    }

    /// Compares both views.
    fn compare(&mut self) {
        assert_eq!(self.outbox.len(), 0);
        assert_eq!(self.taken, self.offered);
        let muxer = self.rig.device.muxer();
        let mut known: Vec<u32> = muxer
            .connections()
            .map(|one| {
                assert_eq!(one.phase, Phase::Connected, "{one:?}");
                u32::from(one.key.peer)
            })
            .collect();
        known.sort_unstable();
        let open = self
            .connections
            .iter()
            .filter(|(_, one)| one.state != State::Ended);
        let open: Vec<u32> = open.map(|(port, _)| *port).collect();
        assert_eq!(known, open);
        if self.farewell {
            assert!(open.is_empty());
        } else {
            for (port, caller) in &mut self.calling {
                let end = caller.read(&mut [0]).map_err(|error| error.kind());
                assert_ne!(end, Err(ErrorKind::WouldBlock), "{port} still waits");
            }
        }
        for (port, connection) in &self.connections {
            assert!(connection.resets <= 1);
            if connection.state == State::Connected {
                assert!(!connection.host_left, "{port}");
                assert_eq!(connection.host_end, None, "{port}");
                assert_eq!(connection.host_got, connection.guest_sent, "{port}");
                assert_eq!(connection.guest_got, connection.host_sent, "{port}");
            } else if connection.host.is_some() {
                let end = connection.host_end.unwrap();
                // Refused: the component's connection was never confirmed.
                let ends = [ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused];
                assert!(ends.map(Err).contains(&end), "{port}: {end:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn t108_t116_in_any_order_both_sides_agree_about_connections_and_no_byte_is_lost(
        event_idx in any::<bool>(),
        steps in vec(step(), 1..80),
    ) {
        let mut world = World::new(if event_idx { F_EVENT_IDX } else { 0 });
        for step in steps {
            world.take(step);
        }
        world.arrive();
        world.compare();
    }
}
