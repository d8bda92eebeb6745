// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest, its muxer, and the event loop of its device.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vsock_muxer::{Action, Interest, Muxer, Readiness, Token};
use vsock_muxer_harness::guest::{Guest, GuestConfig};
use vsock_proto::{Cid, Config, Tick};
use vsock_siblings::{Groups, Siblings};

/// How the event loop reports readiness.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trigger {
    Edge,
    Level,
}

pub(crate) struct Node {
    pub(crate) guest: Guest,
    pub(crate) muxer: Muxer,
    trigger: Trigger,
    epoll: Epoll,
    watched: BTreeSet<RawFd>,
    /// The number of consecutive wake-ups without work.
    idle: usize,
}

/// The maximum number of packets that one turn takes, and of bytes that it transmits.
const TURN: (usize, usize) = (64, 128 * 1024);

impl Node {
    /// Creates an active muxer with a guest that has booted.
    pub(crate) fn new(
        siblings: &Siblings,
        groups: &str,
        trigger: Trigger,
        config: Config,
        guest: GuestConfig,
    ) -> Self {
        let groups: Groups = groups.parse().unwrap();
        let backend = siblings.join(guest.cid.into(), groups).unwrap();
        let mut muxer = Muxer::new(guest.cid, config);
        muxer.add_sibling_backend(Box::new(backend)).unwrap();
        muxer.activate(Tick::ZERO, guest.types);
        let mut node = Self {
            guest: Guest::new(guest),
            muxer,
            trigger,
            epoll: Epoll::new().unwrap(),
            watched: BTreeSet::new(),
            idle: 0,
        };
        node.apply();
        node
    }

    pub(crate) fn cid(&self) -> Cid {
        self.guest.config().cid.cid()
    }

    /// Reboots the guest and activates its driver again.
    pub(crate) fn reboot(&mut self, now: Tick) {
        self.muxer.reset(now);
        self.apply();
        self.guest.reboot();
        self.muxer.activate(now, self.guest.config().types);
        self.apply();
    }

    pub(crate) fn pause(&mut self) {
        self.muxer.pause();
        self.apply();
    }

    pub(crate) fn resume(&mut self) {
        self.muxer.resume();
        self.apply();
    }

    /// One turn of the driver; returns whether anything happened.
    pub(crate) fn step(&mut self, now: Tick) -> bool {
        let mut busy = self.take_packets(now);
        busy |= self.dispatch(now);
        busy |= self.transmit(now);
        busy | (self.guest.receive() > 0)
    }

    fn take_packets(&mut self, now: Tick) -> bool {
        let mut taken = 0;
        while taken < TURN.0 && self.muxer.can_take_packet() {
            let Some(packet) = self.guest.next_packet() else {
                break;
            };
            let mut payload = &packet.payload[..];
            self.muxer
                .on_packet_of_batch(now, &packet.header, &mut payload);
            self.apply();
            taken += 1;
        }
        self.muxer.end_batch(now);
        self.apply();
        taken > 0
    }

    fn dispatch(&mut self, now: Tick) -> bool {
        let mut events = [EpollEvent::default(); 64];
        let count = self.epoll.wait(0, &mut events).unwrap();
        let events = &events[..count];
        let before = self.work();
        for event in events {
            let set = event.event_set();
            let ready = Readiness {
                readable: set.intersects(EventSet::IN | EventSet::READ_HANG_UP),
                writable: set.contains(EventSet::OUT),
                hangup: set.intersects(EventSet::HANG_UP | EventSet::ERROR),
            };
            self.muxer.on_event(now, Token::from(event.data()), ready);
            self.apply();
        }
        self.transmit(now);
        let busy = self.work() != before;
        self.idle = if busy || events.is_empty() {
            0
        } else {
            self.idle + 1
        };
        // Each watch can cause one event without work before the muxer removes it.
        assert!(self.idle <= 3 + self.watched.len(), "the device spins");
        !events.is_empty()
    }

    fn work(&self) -> [u64; 4] {
        let counters = self.muxer.counters();
        [
            counters.packets_to_guest,
            counters.host_initiated,
            counters.endings.total(),
            self.muxer.connections().map(|one| one.waiting as u64).sum(),
        ]
    }

    fn transmit(&mut self, now: Tick) -> bool {
        let rx_queue = self.guest.rx_queue();
        if rx_queue.posted() == 0 || !self.muxer.wants_transmit() {
            return false;
        }
        let before = rx_queue.used();
        self.muxer.transmit(now, rx_queue, TURN.1);
        self.apply();
        self.guest.rx_queue().used() > before
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        let (muxer, guest) = (self.muxer.deadline(), self.guest.deadline());
        muxer.into_iter().chain(guest).min()
    }

    pub(crate) fn on_timeout(&mut self, now: Tick) {
        self.muxer.on_timeout(now);
        self.apply();
        self.guest.on_timeout(now);
    }

    /// Waits for an event, but not longer than this.
    pub(crate) fn wait(&self, wait: Duration) {
        let millis = i32::try_from(wait.as_millis()).unwrap();
        // Waiting on the outer epoll does not consume the edge-triggered events of the inner one.
        let outer = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        let inner = self.epoll.as_raw_fd();
        outer.ctl(ControlOperation::Add, inner, event).unwrap();
        match outer.wait(millis, &mut [EpollEvent::default()]) {
            // A wait for less time than asked for is harmless.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            waited => drop(waited.unwrap()),
        }
    }

    fn apply(&mut self) {
        while let Some(action) = self.muxer.next_action() {
            match action {
                Action::Watch {
                    token,
                    fd,
                    interest,
                } => self.watch(token, fd, interest),
                Action::Unwatch { fd, .. } => self.unwatch(fd),
                Action::Close { fds, stream, .. } => {
                    fds.into_iter().flatten().for_each(|fd| self.unwatch(fd));
                    drop(stream);
                }
            }
        }
    }

    fn watch(&mut self, token: Token, fd: RawFd, interest: Interest) {
        let mut set = EventSet::empty();
        set.set(EventSet::IN | EventSet::READ_HANG_UP, interest.read);
        set.set(EventSet::OUT, interest.write);
        set.set(EventSet::EDGE_TRIGGERED, self.trigger == Trigger::Edge);
        let how = if self.watched.insert(fd) {
            ControlOperation::Add
        } else {
            ControlOperation::Modify
        };
        let event = EpollEvent::new(set, token.into());
        self.epoll.ctl(how, fd, event).unwrap();
    }

    fn unwatch(&mut self, fd: RawFd) {
        assert!(self.watched.remove(&fd), "{fd} is not registered");
        let event = EpollEvent::default();
        self.epoll.ctl(ControlOperation::Delete, fd, event).unwrap();
    }
}
