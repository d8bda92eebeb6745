// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Several guests and their muxers, on one thread in virtual time.

use std::time::Duration;

use vsock_muxer_harness::guest::{GuestConfig, GuestRead, SocketId, SocketState};
use vsock_proto::{Config, GuestCid, MessageFlags, SocketType, Tick};
use vsock_siblings::Siblings;

use crate::node::{Node, Trigger};

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Tick,
}

/// The number of turns after which a test fails if the guests still have work to do.
const TURNS: usize = 50_000;

pub(crate) const PORT: u32 = 80;

/// Returns the configuration of the guest with this number. CIDs begin with 3.
pub(crate) fn guest(number: usize) -> GuestConfig {
    GuestConfig {
        cid: GuestCid::try_from(3 + number as u64).unwrap(),
        ..GuestConfig::default()
    }
}

impl World {
    /// Creates guests in these groups, with the default limits.
    pub(crate) fn new(groups: &[&str]) -> Self {
        Self::with(&Siblings::new(), groups, Trigger::Edge, &Config::default())
    }

    pub(crate) fn with(
        siblings: &Siblings,
        groups: &[&str],
        trigger: Trigger,
        config: &Config,
    ) -> Self {
        Self::of(siblings, groups, trigger, config, guest)
    }

    /// Like [`with`](Self::with), with a configuration for each guest from `kind`.
    pub(crate) fn of(
        siblings: &Siblings,
        groups: &[&str],
        trigger: Trigger,
        config: &Config,
        kind: impl Fn(usize) -> GuestConfig,
    ) -> Self {
        let nodes = groups.iter().enumerate().map(|(number, groups)| {
            let kind = GuestConfig {
                cid: guest(number).cid,
                ..kind(number)
            };
            Node::new(siblings, groups, trigger, config.clone(), kind)
        });
        Self {
            nodes: nodes.collect(),
            now: Tick::ZERO,
        }
    }

    /// Runs all nodes until they have no more work.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS {
            let now = self.now;
            let busy = self.nodes.iter_mut().map(|node| node.step(now));
            if !busy.fold(false, |one, other| one | other) {
                return;
            }
        }
        panic!("the guests never run out of work");
    }

    /// Lets time pass, and runs the timers that are due meanwhile.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.saturating_add(time);
        loop {
            self.settle();
            let due = self.nodes.iter().filter_map(Node::deadline).min();
            let Some(next) = due.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            for node in &mut self.nodes {
                node.on_timeout(self.now);
            }
        }
    }

    /// Makes guest `from` connect to guest `to`, from any port.
    pub(crate) fn connect(&mut self, from: usize, to: usize, socket_type: SocketType) -> SocketId {
        let cid = self.nodes[to].cid();
        let now = self.now;
        self.nodes[from]
            .guest
            .connect_to(now, cid, socket_type, PORT)
    }

    /// Opens a connection between two guests; returns both ends.
    pub(crate) fn connected(
        &mut self,
        from: usize,
        to: usize,
        socket_type: SocketType,
    ) -> (SocketId, SocketId) {
        let _may_listen_already = self.nodes[to].guest.listen(PORT, 64);
        let near = self.connect(from, to, socket_type);
        self.settle();
        assert_eq!(self.state(from, near), SocketState::Connected);
        let far = self.nodes[to].guest.accept(PORT).expect("a connection");
        (near, far)
    }

    pub(crate) fn state(&self, node: usize, socket: SocketId) -> SocketState {
        self.nodes[node].guest.state(socket).unwrap()
    }

    /// Writes all bytes while the other side reads; returns the bytes that the other side has read.
    pub(crate) fn transfer(
        &mut self,
        (from, near): (usize, SocketId),
        (to, far): (usize, SocketId),
        bytes: &[u8],
    ) -> Vec<u8> {
        let (mut sent, mut got) = (0, Vec::new());
        while got.len() < bytes.len() {
            sent += self.nodes[from].guest.write(near, &bytes[sent..]).unwrap();
            self.settle();
            match self.nodes[to].guest.read(far, usize::MAX).unwrap() {
                GuestRead::Bytes(more) => got.extend(more),
                GuestRead::Nothing => self.pass(Duration::from_millis(1)),
                GuestRead::End => break,
            }
            self.settle();
        }
        got
    }

    /// Sends a message that must be accepted immediately, and receives it.
    pub(crate) fn exchange(
        &mut self,
        (from, near): (usize, SocketId),
        (to, far): (usize, SocketId),
        message: &[u8],
        end: MessageFlags,
    ) -> Option<(Vec<u8>, MessageFlags)> {
        assert!(self.nodes[from].guest.send(near, message, end).unwrap());
        self.pass(Duration::from_millis(100));
        self.nodes[to].guest.receive_message(far)
    }
}
