// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests with each device on its own thread: whatever two guests do to each other at the same time,
//! neither device blocks on the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use vsock_muxer_harness::guest::{GuestRead, SocketId, SocketState};
use vsock_muxer_harness::vsock_compliance::poll::{Deadline, Stopwatch};
use vsock_proto::{Cid, Config, MessageFlags, SocketType, Tick};
use vsock_siblings::Siblings;

use crate::node::{Node, Trigger};
use crate::world::{PORT, guest};

/// How long a test can take on a machine under load.
const GENEROUS: Duration = Duration::from_secs(120);

/// The number of connections that each guest opens.
const STORM: usize = 400;

/// The maximum number of open connections of a guest.
const AT_A_TIME: usize = 16;

/// Pseudo-random small numbers, the same in each run.
struct Dice(u32);

impl Dice {
    fn throw(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) % sides
    }
}

/// A guest that opens and accepts connections, and writes, reads and aborts at random.
struct Player {
    node: Node,
    others: Vec<Cid>,
    dice: Dice,
    open: Vec<(SocketId, SocketType)>,
    begun: usize,
    now: Tick,
    /// The number of bytes and messages received.
    received: usize,
}

impl Player {
    fn act(&mut self, goal: usize) {
        while self.begun < goal && self.open.len() < AT_A_TIME {
            let to = self.others[self.begun % self.others.len()];
            let socket_type = [SocketType::Stream, SocketType::SeqPacket][self.begun / 2 % 2];
            let port = port(socket_type);
            let guest = &mut self.node.guest;
            let socket = guest.connect_to(self.now, to, socket_type, port);
            self.open.push((socket, socket_type));
            self.begun += 1;
        }
        for socket_type in [SocketType::Stream, SocketType::SeqPacket] {
            while let Some(socket) = self.node.guest.accept(port(socket_type)) {
                self.open.push((socket, socket_type));
            }
        }
        let open = std::mem::take(&mut self.open);
        let left = open.into_iter().filter(|one| self.goes_on(*one)).collect();
        self.open = left;
    }

    /// Writes to the first of the others, which does not read, until its buffer is full.
    fn fill(&mut self) {
        let (to, now) = (self.others[0], self.now);
        let guest = &mut self.node.guest;
        let stuck = guest.connect_to(now, to, SocketType::Stream, PORT);
        let deadline = Deadline::after(GENEROUS);
        let mut taken = 0;
        while taken < 256 * 1024 {
            let guest = &mut self.node.guest;
            match guest.write(stuck, &[0; 10_000]) {
                Ok(more) => taken += more,
                Err(_) if guest.state(stuck) == Some(SocketState::Connecting) => {}
                Err(_) => break, // the other guest has finished and closed the connection
            }
            self.node.step(now);
            assert!(!deadline.passed(), "{taken}");
        }
    }

    /// Does a random step on a connection; returns whether it is still open.
    fn goes_on(&mut self, (socket, socket_type): (SocketId, SocketType)) -> bool {
        let now = self.now;
        let guest = &mut self.node.guest;
        match guest.state(socket) {
            Some(SocketState::Connecting) => return true,
            Some(SocketState::Connected) => {}
            _ => {
                guest.close(now, socket);
                return false;
            }
        }
        let bytes = vec![7; 1 + self.dice.throw(50_000) as usize];
        match (self.dice.throw(12), socket_type) {
            (0, _) => {
                guest.reset(socket);
                return false;
            }
            (1 | 2, _) => {
                guest.close(now, socket);
                return false;
            }
            (3..8, SocketType::Stream) => drop(guest.write(socket, &bytes)),
            (3..8, SocketType::SeqPacket) => {
                let _taken = guest.send(socket, &bytes, MessageFlags::END_OF_MESSAGE);
            }
            (_, SocketType::Stream) => {
                if let Ok(GuestRead::Bytes(bytes)) = guest.read(socket, usize::MAX) {
                    self.received += bytes.len();
                }
            }
            (_, SocketType::SeqPacket) => {
                while guest.receive_message(socket).is_some() {
                    self.received += 1;
                }
            }
        }
        true
    }
}

const fn port(socket_type: SocketType) -> u32 {
    match socket_type {
        SocketType::Stream => PORT,
        SocketType::SeqPacket => PORT + 1,
    }
}

/// Runs a device until all guests have finished. A guest that has finished still serves the others.
fn live(mut player: Player, goal: usize, busy: &AtomicUsize) -> Player {
    let (begin, deadline) = (Stopwatch::start(), Deadline::after(GENEROUS));
    let mut done = false;
    // ORDER: Acquire; partner: the release below. After this, the other guests' work is visible.
    while busy.load(Ordering::Acquire) > 0 {
        player.now = Tick::ZERO.saturating_add(begin.elapsed());
        player.act(goal);
        if !player.node.step(player.now) {
            player.node.wait(Duration::from_millis(1));
        }
        player.node.on_timeout(player.now);
        if !done && player.begun == goal && player.open.is_empty() {
            done = true;
            // ORDER: Release; partner: the acquire above.
            busy.fetch_sub(1, Ordering::Release);
        }
        assert!(!deadline.passed(), "a device, or a guest, is stuck");
    }
    player
}

#[test]
fn guests_that_connect_and_abort_at_a_high_rate_block_no_device() {
    for trigger in [Trigger::Edge, Trigger::Level] {
        let siblings = Siblings::new();
        let players: Vec<_> = (0..3)
            .map(|number| player(&siblings, number, trigger))
            .collect();
        let busy = AtomicUsize::new(players.len());
        let players = thread::scope(|scope| {
            let threads: Vec<_> = players
                .into_iter()
                .map(|player| scope.spawn(|| live(player, STORM, &busy)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        let received: usize = players.iter().map(|player| player.received).sum();
        assert!(received > 100_000, "{received} bytes and messages in total");
    }
}

fn player(siblings: &Siblings, number: usize, trigger: Trigger) -> Player {
    let config = guest(number);
    let all = (0..3).map(|number| guest(number).cid.cid());
    let others = all.filter(|cid| *cid != config.cid.cid()).collect();
    let mut node = Node::new(siblings, "a", trigger, Config::default(), config);
    for socket_type in [SocketType::Stream, SocketType::SeqPacket] {
        node.guest.listen(port(socket_type), 8).unwrap();
    }
    Player {
        node,
        others,
        dice: Dice(u32::try_from(number).unwrap()),
        open: Vec::new(),
        begun: 0,
        now: Tick::ZERO,
        received: 0,
    }
}

/// Two guests fill each other's buffers and do not read. Some of the bytes wait between the
/// devices. Both devices still serve a third guest.
#[test]
fn two_guests_that_write_and_do_not_read_block_no_device() {
    let siblings = Siblings::new();
    let players: Vec<_> = (0..3)
        .map(|number| player(&siblings, number, Trigger::Edge))
        .collect();
    let busy = AtomicUsize::new(3);
    thread::scope(|scope| {
        for (number, mut player) in players.into_iter().enumerate() {
            let busy = &busy;
            scope.spawn(move || {
                let goal = if number == 2 { 100 } else { 0 };
                if goal == 0 {
                    player.fill();
                }
                live(player, goal, busy)
            });
        }
    });
}
