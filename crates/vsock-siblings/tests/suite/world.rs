// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Several guests and their muxers, on one thread and in virtual time.

use std::time::Duration;

use vsock_muxer_harness::guest::{GuestConfig, GuestRead, SocketId, SocketState};
use vsock_proto::{Config, GuestCid, MessageFlags, SocketType, Tick};
use vsock_siblings::Siblings;

use crate::node::{Node, Trigger};

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Tick,
}

/// Turns after which guests that still have something to do are given up.
const TURNS: usize = 50_000;

pub(crate) const PORT: u32 = 80;

/// The guest with this number, of 3, 4 and so on.
pub(crate) fn guest(number: usize) -> GuestConfig {
    GuestConfig {
        cid: GuestCid::try_from(3 + number as u64).unwrap(),
        ..GuestConfig::default()
    }
}

impl World {
    /// Guests in these groups, with the usual limits.
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

    /// As [`with`](Self::with), where the guest of each number is as `kind` says.
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

    /// Turns of all until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS {
            let now = self.now;
            let busy = self.nodes.iter_mut().map(|node| node.step(now));
            if !busy.fold(false, |one, other| one | other) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets time pass, with all that is due on the way.
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

    /// The guest `from` connects to the other one's port, from wherever.
    pub(crate) fn connect(&mut self, from: usize, to: usize, socket_type: SocketType) -> SocketId {
        let cid = self.nodes[to].cid();
        let now = self.now;
        self.nodes[from]
            .guest
            .connect_to(now, cid, socket_type, PORT)
    }

    /// A connection of these two: both ends.
    pub(crate) fn connected(
        &mut self,
        from: usize,
        to: usize,
        socket_type: SocketType,
    ) -> (SocketId, SocketId) {
        let _or_it_does_already = self.nodes[to].guest.listen(PORT, 64);
        let near = self.connect(from, to, socket_type);
        self.settle();
        assert_eq!(self.state(from, near), SocketState::Connected);
        let far = self.nodes[to].guest.accept(PORT).expect("it has answered");
        (near, far)
    }

    pub(crate) fn state(&self, node: usize, socket: SocketId) -> SocketState {
        self.nodes[node].guest.state(socket).unwrap()
    }

    /// Writes all of it, which the other side must read meanwhile, and returns what that has read.
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

    /// Sends a message, which is taken whole, and receives it.
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
