// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compares random sequences of operations on a connection between two guests with a model: one
//! guest reads every byte that the other sends, once, in order, and then the end.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_oneof, proptest};
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use vsock_muxer_harness::guest::{GuestConfig, GuestRead, SocketId, SocketState};
use vsock_properties::cases;
use vsock_proto::{Config, ShutdownFlags, SocketType};
use vsock_siblings::{Capacity, Siblings, VsockInnerConfig};

use crate::node::Trigger;
use crate::world::World;

/// An operation of one of the two guests, or the passing of time.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Read(usize, usize),
    EndSending(usize),
    /// One turn of this guest's driver.
    Turn(usize),
    Settle,
    Pass(u64),
}

/// The event that breaks the connection, if there is one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    None,
    Reset(usize),
    Reboot(usize),
    Close(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0..2_usize;
    prop_oneof![
        5 => (side.clone(), 0..200_000_usize).prop_map(|(side, len)| Step::Write(side, len)),
        5 => (side.clone(), 1..200_000_usize).prop_map(|(side, len)| Step::Read(side, len)),
        1 => side.clone().prop_map(Step::EndSending),
        5 => side.prop_map(Step::Turn),
        2 => any::<()>().prop_map(|()| Step::Settle),
        1 => (1..3000_u64).prop_map(Step::Pass),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => any::<()>().prop_map(|()| Fault::None),
        1 => (0..2_usize).prop_map(Fault::Reset),
        1 => (0..2_usize).prop_map(Fault::Reboot),
        1 => (0..2_usize).prop_map(Fault::Close),
    ]
}

/// Generates guests with the behaviour of different kernels. One combination mixes an old and a new
/// kernel: it caps the bytes that it has in flight, and sends no credit updates while there is
/// room.
fn kind() -> impl Strategy<Value = GuestConfig> {
    let buffer = select(vec![3000, 40_000, 256 * 1024, 1 << 20]);
    let caps = any::<bool>();
    (any::<bool>(), caps, buffer).prop_map(|(old, caps_credit, buf_alloc)| {
        let kind = if old {
            GuestConfig::linux_6_1()
        } else {
            GuestConfig::default()
        };
        GuestConfig {
            caps_credit,
            buf_alloc,
            ..kind
        }
    })
}

/// The bytes that one guest has sent, and how many of them the other has read.
#[derive(Debug, Default)]
struct Direction {
    sent: Vec<u8>,
    read: usize,
    ended: bool,
}

struct Life {
    world: World,
    ends: [SocketId; 2],
    /// By the sender.
    directions: [Direction; 2],
}

impl Life {
    fn new(trigger: Trigger, capacity: usize, buf_alloc: u32, kinds: &[GuestConfig; 2]) -> Self {
        let config = VsockInnerConfig::default()
            .to_device(Capacity::Bytes(capacity))
            .to_application(Capacity::Bytes(capacity));
        let siblings = Siblings::with_config(config);
        let config = Config::builder().buf_alloc(buf_alloc);
        let config = config.max_message(buf_alloc).build().unwrap();
        let kind = |number: usize| kinds[number].clone();
        let mut world = World::of(&siblings, &["a", "a"], trigger, &config, kind);
        let (near, far) = world.connected(0, 1, SocketType::Stream);
        Self {
            world,
            ends: [near, far],
            directions: Default::default(),
        }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Write(side, len) => self.write(side, len),
            Step::Read(side, most) => drop(self.read(side, most)?),
            Step::EndSending(side) => {
                let guest = &mut self.world.nodes[side].guest;
                let ended = guest.shutdown(self.ends[side], ShutdownFlags::SEND);
                self.directions[side].ended |= ended.is_ok();
            }
            Step::Turn(side) => {
                let now = self.world.now;
                self.world.nodes[side].step(now);
            }
            Step::Settle => self.world.settle(),
            Step::Pass(millis) => self.world.pass(Duration::from_millis(millis)),
        }
        self.judge_credit()
    }

    /// Checks that no guest has more bytes in flight than the other guest's buffer holds.
    fn judge_credit(&self) -> Result<(), TestCaseError> {
        for (side, direction) in self.directions.iter().enumerate() {
            let under_way = direction.sent.len() - direction.read;
            let buffer = self.world.nodes[1 - side].guest.config().buf_alloc;
            prop_assert!(under_way <= buffer as usize, "{under_way} > {buffer}");
        }
        Ok(())
    }

    fn write(&mut self, side: usize, len: usize) {
        let direction = &mut self.directions[side];
        if direction.ended {
            return;
        }
        let begin = direction.sent.len();
        let bytes = (begin..begin + len).map(|at| u8::try_from(at % 251).unwrap());
        let bytes: Vec<u8> = bytes.collect();
        let guest = &mut self.world.nodes[side].guest;
        let taken = guest.write(self.ends[side], &bytes).unwrap_or(0);
        direction.sent.extend(&bytes[..taken]);
    }

    /// Reads and checks bytes; returns whether there were any.
    fn read(&mut self, side: usize, most: usize) -> Result<bool, TestCaseError> {
        let direction = &mut self.directions[1 - side];
        let guest = &mut self.world.nodes[side].guest;
        match guest.read(self.ends[side], most) {
            Ok(GuestRead::Bytes(bytes)) => {
                let end = direction.read + bytes.len();
                let expected = direction.sent.get(direction.read..end);
                prop_assert!(expected == Some(&bytes[..]), "other bytes");
                direction.read = end;
                Ok(true)
            }
            Ok(GuestRead::End) => {
                let whole = direction.ended && direction.read == direction.sent.len();
                prop_assert!(whole, "an end before the last byte: {}", direction.read);
                Ok(false)
            }
            Ok(GuestRead::Nothing) | Err(_) => Ok(false),
        }
    }

    /// Checks that all bytes arrive.
    fn arrive(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..100_000 {
            self.world.settle();
            let got = [self.read(0, usize::MAX)?, self.read(1, usize::MAX)?];
            if got.contains(&true) {
                continue;
            }
            let whole = self.directions.iter().all(|one| one.read == one.sent.len());
            if whole {
                return Ok(());
            }
            self.world.pass(Duration::from_millis(100));
        }
        prop_assert!(false, "bytes are missing: {:?}", self.reads());
        Ok(())
    }

    fn reads(&self) -> [(usize, usize); 2] {
        [0, 1].map(|side| (self.directions[side].read, self.directions[side].sent.len()))
    }

    /// Breaks the connection, and checks that the other guest learns of it and that no connection
    /// is left.
    fn break_off(&mut self, fault: Fault) -> Result<(), TestCaseError> {
        let now = self.world.now;
        let broken = match fault {
            Fault::None => return Ok(()),
            Fault::Reset(side) => {
                self.world.nodes[side].guest.reset(self.ends[side]);
                side
            }
            Fault::Reboot(side) => {
                self.world.nodes[side].reboot(now);
                side
            }
            Fault::Close(side) => {
                self.world.nodes[side].guest.close(now, self.ends[side]);
                // Bytes that it has sent still arrive, followed by the end.
                self.directions[side].ended = true;
                side
            }
        };
        let other = 1 - broken;
        // A close with unread bytes is a reset, which can discard bytes in flight.
        let cuts = self.directions[other].read < self.directions[other].sent.len();
        let mut idle = 0;
        while idle < 20 {
            self.world.settle();
            let mut got = false;
            while self.read_if_sound(other, fault)? {
                got = true;
            }
            idle = if got { 0 } else { idle + 1 };
            self.world.pass(Duration::from_millis(500));
        }
        prop_assert!(
            !matches!(fault, Fault::Close(_))
                || cuts
                || self.directions[broken].read == self.directions[broken].sent.len(),
            "bytes before a close are missing: {:?}",
            self.reads()
        );
        // After the end, a level-triggered loop gets no event for the drop. A write reveals it.
        let guest = &mut self.world.nodes[other].guest;
        let _may_have_ended = guest.write(self.ends[other], b"x");
        self.world.pass(Duration::from_secs(10));
        let state = self.world.nodes[other].guest.state(self.ends[other]);
        let over = !matches!(
            state,
            Some(SocketState::Connected | SocketState::Connecting)
        );
        prop_assert!(over, "the other guest has not learnt of it: {state:?}");
        for node in &self.world.nodes {
            prop_assert!(
                node.muxer.connections().count() == 0,
                "a connection is left"
            );
        }
        Ok(())
    }

    fn read_if_sound(&mut self, side: usize, fault: Fault) -> Result<bool, TestCaseError> {
        if matches!(fault, Fault::Close(_)) {
            return self.read(side, usize::MAX);
        }
        // A reset can discard bytes, but those that arrive must be the ones that were sent.
        let direction = &mut self.directions[1 - side];
        direction.ended = true;
        let guest = &mut self.world.nodes[side].guest;
        let Ok(GuestRead::Bytes(bytes)) = guest.read(self.ends[side], usize::MAX) else {
            return Ok(false);
        };
        let end = direction.read + bytes.len();
        prop_assert!(direction.sent.get(direction.read..end) == Some(&bytes[..]));
        direction.read = end;
        Ok(true)
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn bytes_between_guests_match_the_model(
        trigger in select(vec![Trigger::Edge, Trigger::Level]),
        capacity in select(vec![100, 5000, 70_000, 256 * 1024]),
        buf_alloc in select(vec![1000, 65_536, 256 * 1024]),
        kinds in [kind(), kind()],
        steps in vec(step(), 1..60),
        fault in fault(),
    ) {
        let mut life = Life::new(trigger, capacity, buf_alloc, &kinds);
        for step in &steps {
            life.run(step)?;
        }
        if fault == Fault::None {
            life.arrive()?;
        }
        life.break_off(fault)?;
    }
}
