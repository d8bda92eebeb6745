// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest changes its rings, descriptors and headers while the device reads them. The device must
//! use only what it has checked, and return every chain once.
//!
//! Nearly all runs are deterministic: the memory counts the device's lookups, and the input says
//! which change happens before which lookup, or within a call of a stream. Only if the first byte
//! asks for it, a second thread makes random changes as well.

pub(crate) mod change;
mod host;
mod memory;

use std::array;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use virtio_queue::{Queue, QueueT};
use vsock_backend_api::VsockBackend;
use vsock_driver::{DriverQueue, Memory, bytes, filled};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, Queues};

use self::change::Change;
use self::host::Meddler;
use self::memory::{Script, Shifting};
use crate::bytes::Bytes;
use crate::rig::{BUDGET, PAUSES, RINGS, Rig, SIZES};

const RX: usize = 0;
const TX: usize = 1;
/// The port of the stream whose calls change memory.
const MEDDLED: u32 = 2;
/// The most bytes of a packet.
const PACKET: usize = 64 * 1024;
/// The least that a packet from the guest costs of a call's budget, and the least that a header
/// costs.
const LEAST_COSTS: [usize; 2] = [2048, 44];
/// Memory to which no descriptor ever points: start, size, and the byte that fills it.
const GUARDED: [(u64, usize); 2] = [(0x2_1000, 0xf000), (0x8_0000, 0x1_0000)];
const GUARD: u8 = 0x5a;
/// The most changes of the second thread, in case the first thread waits for it.
const MOST_CHANGES: usize = 1 << 20;

/// The options that the first byte selects.
#[derive(Clone, Copy, Debug)]
struct Asked {
    event_idx: bool,
    /// Look up each field of a ring separately, as through an IOMMU.
    mapped: bool,
    direct: bool,
    /// Allow indirect tables in memory that the device writes, so that a descriptor can point
    /// anywhere.
    indirect: bool,
    thread: bool,
    budget: usize,
}

/// Interprets the bytes as the actions of a guest, and as changes during the device's work.
pub fn fuzz(data: &[u8]) {
    let mut data = Bytes(data);
    let first = data.byte();
    let asked = Asked {
        event_idx: first & 1 != 0,
        mapped: first & 2 != 0,
        direct: first & 4 != 0,
        indirect: first & 8 != 0,
        thread: first & 0xf0 == 0xf0,
        budget: if first & 0x10 == 0 { BUDGET } else { 16 * 1024 },
    };
    let size = SIZES[usize::from(data.byte()) % SIZES.len()];
    let rings = RINGS.map(|base| DriverQueue::new(base, size));
    if !asked.thread {
        return play(&mut data, asked, rings, |_| ());
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        play(&mut data, asked, rings.clone(), |memory| {
            let (memory, done) = (memory.clone(), &done);
            scope.spawn(move || hammer(&memory, rings, asked.indirect, done));
        });
        // ORDER: Relaxed; it guards no data.
        done.store(true, Ordering::Relaxed);
    });
}

/// Changes memory at random until `done` is set.
fn hammer(memory: &Memory, mut rings: [DriverQueue; 3], indirect: bool, done: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..MOST_CHANGES {
        // ORDER: Relaxed; it guards no data.
        if done.load(Ordering::Relaxed) {
            return;
        }
        let bytes: [u8; 48] = array::from_fn(|_| random.u8(..));
        Change::read(&mut Bytes(&bytes), indirect).apply(memory, &mut rings);
    }
}

fn play(
    data: &mut Bytes<'_>,
    asked: Asked,
    mut rings: [DriverQueue; 3],
    at_start: impl FnOnce(&Memory),
) {
    let script = Script::new();
    let host = Meddler(script.clone());
    let others: Vec<(Box<dyn VsockBackend>, u32)> = vec![(Box::new(host), MEDDLED)];
    let Some(mut rig) = Rig::<Shifting>::new(asked.direct, asked.budget, others) else {
        return;
    };
    rig.seen = Shifting::new(rig.memory.clone(), script.clone(), asked.mapped);
    script.begin(&rig.memory, &rings);
    for (addr, len) in GUARDED {
        filled(&rig.memory, addr, &vec![GUARD; len]);
    }
    let event_idx = if asked.event_idx { F_EVENT_IDX } else { 0 };
    let acked = rig.device.ack_features(F_VERSION_1 | event_idx);
    acked.expect("all of these features are offered");
    at_start(&rig.memory);
    let [mut rx, mut tx, mut event] = rings.each_ref().map(DriverQueue::queue);
    let mut queues = Queues {
        rx: &mut rx,
        tx: &mut tx,
        event: Some(&mut event),
    };
    let active = rig.device.activate(rig.now, &rig.seen, &mut queues);
    while active.is_ok() && !data.is_empty() {
        let Some(pause) = step(data, asked.indirect, &mut rings, (&rig.memory, &script)) else {
            continue;
        };
        rig.pass(pause);
        // An available index more than a queue's size ahead breaks the ring. While a change is
        // pending, the index could still become valid during the turn, so such a ring does not
        // count.
        let broken = [&*queues.rx, &*queues.tx].map(|queue| {
            // ORDER: Relaxed; no other thread is running.
            let index = queue.avail_idx(&rig.memory, Ordering::Relaxed);
            let ahead = index
                .expect("the ring is in memory")
                .0
                .wrapping_sub(queue.next_avail());
            ahead > queue.size() && script.is_over() && !asked.thread
        });
        if !turn(&mut rig, &mut queues, asked.budget, (&script, broken)) {
            break;
        }
    }
    for (addr, len) in GUARDED {
        let intact = bytes(&rig.memory, addr, len)
            .iter()
            .all(|byte| *byte == GUARD);
        assert!(
            intact || asked.indirect,
            "the device wrote to memory that no descriptor named"
        );
    }
    script.end();
    rig.device.reset(rig.now);
    rig.pass(Duration::from_nanos(1));
    rig.serves_again();
}

/// Runs one turn of the device. Returns whether the device continues.
fn turn(
    rig: &mut Rig<Shifting>,
    queues: &mut Queues<'_>,
    budget: usize,
    (script, broken): (&Script, [bool; 2]),
) -> bool {
    let before = [&*queues.rx, &*queues.tx].map(Queue::next_used);
    script.forget_moved();
    let goes_on = rig.turn(queues).is_some();
    let moved = script.moved();
    assert!(moved.to_host < budget + PACKET, "to the host: {moved:?}");
    assert!(moved.to_guest < budget + PACKET, "to the guest: {moved:?}");
    let after = [&*queues.rx, &*queues.tx].map(Queue::next_used);
    for index in [RX, TX] {
        let used = usize::from(after[index].wrapping_sub(before[index]));
        // Every chain costs a part of the budget, so the budget bounds the chains of a call.
        let most = budget / LEAST_COSTS[1 - index] + 1;
        assert!(used <= most, "{used} chains of queue {index} in a call");
        assert!(
            used == 0 || !broken[index],
            "the device took chains from a broken ring"
        );
    }
    if goes_on {
        let event = queues.event.as_deref().expect("the rig has an event queue");
        for queue in [&*queues.rx, &*queues.tx, event] {
            let (taken, used) = (queue.next_avail(), queue.next_used());
            assert_eq!(taken, used, "every chain is returned once");
        }
    }
    goes_on
}

/// Performs or schedules one action of the guest. If that is a kick, returns how long the guest
/// waits before it.
fn step(
    data: &mut Bytes<'_>,
    indirect: bool,
    rings: &mut [DriverQueue; 3],
    (memory, script): (&Memory, &Script),
) -> Option<Duration> {
    let what = data.byte();
    match what & 0xf {
        0..=1 => Change::read(data, indirect).apply(memory, rings),
        2..=6 => script.add(data.byte(), Change::read(data, indirect)),
        7..=9 => change::send(data, memory, &mut rings[1]),
        10..=11 => change::offer_buffers(data, memory, &mut rings[0]),
        12 => script.host_sends(data.short()),
        13 => script.host_takes(data.short()),
        _ => return Some(PAUSES[usize::from(what >> 4) % PAUSES.len()]),
    }
    None
}
