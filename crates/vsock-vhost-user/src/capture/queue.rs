// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A bounded queue of packets between devices and the writer thread. Adding a packet never waits
//! for the file: a packet that finds no room is dropped and counted, and the file contains the
//! count.

use std::mem;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock;
use super::pcapng::{self, Kind, Packet};

/// Blocks that wait for the writer, and counters.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Tells the writer that there are blocks.
    filled: Condvar,
    /// Tells the owner that the writer has ended.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    /// Complete blocks, in the order of the file.
    blocks: Vec<u8>,
    capacity: usize,
    interfaces: Vec<Interface>,
    phase: Phase,
    /// Whether the writer waits for blocks and must be woken.
    writer_sleeps: bool,
    file_bytes: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Open,
    /// The queue takes no more packets. Blocks that wait are still written.
    Closing,
    Ended,
}

/// The counters of one device.
#[derive(Clone, Copy, Debug, Default)]
struct Interface {
    passed: u64,
    dropped: u64,
    /// The value of `dropped` in the last statistics in the file.
    told: u64,
    /// How many packets were dropped since the last one that was not.
    gap: u64,
}

/// Sums over all interfaces.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Sums {
    pub(super) passed: u64,
    pub(super) dropped: u64,
    pub(super) file_bytes: u64,
}

/// Information for the writer about the blocks that it has taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Taken {
    /// The number of interfaces.
    pub(super) interfaces: usize,
    /// How many dropped packets these blocks report for the first time.
    pub(super) newly_dropped: u64,
    /// Whether these are the last blocks.
    pub(super) is_last: bool,
}

impl State {
    /// Appends the statistics of the selected interfaces. Returns how many dropped packets they
    /// report for the first time.
    fn append_statistics(
        &mut self,
        out: &mut Vec<u8>,
        which: impl Fn(usize, &Interface) -> bool,
    ) -> u64 {
        let now = clock::now();
        let mut newly = 0;
        for (number, interface) in self.interfaces.iter_mut().enumerate() {
            if which(number, interface) {
                let Interface {
                    passed, dropped, ..
                } = *interface;
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                pcapng::statistics(out, number, now, passed, dropped);
                newly += dropped - interface.told;
                interface.told = dropped;
            }
        }
        newly
    }

    fn drop_packet(&mut self, interface: u32) {
        let index = usize::try_from(interface).unwrap_or(usize::MAX);
        if let Some(interface) = self.interfaces.get_mut(index) {
            interface.dropped += 1;
        }
    }
}

impl Queue {
    /// Creates a queue for this many bytes of packets.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                blocks: Vec::with_capacity(capacity),
                capacity,
                interfaces: Vec::new(),
                phase: Phase::Open,
                writer_sleeps: false,
                file_bytes: 0,
            }),
            filled: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    /// Adds the first block of the file.
    pub(super) fn begin(&self, application: &str) {
        pcapng::section_header(&mut self.state().blocks, application);
    }

    /// Adds an interface, and returns its number. This ignores the capacity, because there are few
    /// interfaces.
    pub(super) fn add_interface(&self, name: &str, description: &str, snap_len: u32) -> u32 {
        let mut state = self.state();
        let number = u32::try_from(state.interfaces.len()).unwrap_or(u32::MAX);
        state.interfaces.push(Interface::default());
        if state.phase == Phase::Open {
            pcapng::interface(&mut state.blocks, name, description, snap_len);
        }
        self.wake_writer(&mut state);
        number
    }

    /// Adds a packet, or counts it if there is no room. Returns `Break` if the queue takes no more
    /// packets.
    pub(super) fn push(&self, mut packet: Packet<'_>) -> ControlFlow<()> {
        let mut state = self.state();
        if state.phase != Phase::Open {
            return ControlFlow::Break(());
        }
        let State {
            blocks,
            capacity,
            interfaces,
            ..
        } = &mut *state;
        let index = usize::try_from(packet.interface).unwrap_or(usize::MAX);
        let Some(interface) = interfaces.get_mut(index) else {
            return ControlFlow::Break(());
        };
        interface.passed += 1;
        // Set this before measuring the block, because it makes the block longer.
        packet.dropped = interface.gap;
        if blocks.len().saturating_add(packet.block_len()) > *capacity {
            interface.dropped += 1;
            interface.gap += 1;
        } else {
            interface.gap = 0;
            packet.append(blocks);
            self.wake_writer(&mut state);
        }
        ControlFlow::Continue(())
    }

    /// Waits for blocks and takes all of them, in exchange for the empty buffer of the previous
    /// `batch`.
    pub(super) fn exchange(&self, batch: &mut Vec<u8>) -> Taken {
        // Allocate without the lock, so that devices neither wait for this nor allocate themselves.
        batch.clear();
        let capacity = self.state().capacity;
        batch.reserve_exact(capacity);
        let mut state = self.state();
        while state.blocks.is_empty() && state.phase == Phase::Open {
            state.writer_sleeps = true;
            let waited = self.filled.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.writer_sleeps = false;
        }
        mem::swap(&mut state.blocks, batch);
        // No packet is added after the queue closes, so these are all. The last statistics cover
        // every interface; earlier ones only those with new drops.
        let is_last = state.phase != Phase::Open;
        let newly_dropped = state.append_statistics(batch, |_, interface| {
            is_last || interface.dropped > interface.told
        });
        Taken {
            interfaces: state.interfaces.len(),
            newly_dropped,
            is_last,
        }
    }

    /// Sets the size of the file, for the counters.
    pub(super) fn set_file_bytes(&self, bytes: u64) {
        self.state().file_bytes = bytes;
    }

    /// Closes the queue because no more blocks can be written. Counts the packets in `lost` and
    /// those that wait as dropped. Returns the statistics of all interfaces that the file
    /// describes.
    pub(super) fn give_up(&self, lost: &[u8]) -> Vec<u8> {
        let mut state = self.state();
        state.phase = Phase::Closing;
        let waiting = mem::take(&mut state.blocks);
        // Interfaces whose description is lost have the highest numbers.
        let mut described = state.interfaces.len();
        // `lost` are the blocks that the writer took and could not write, `waiting` the later ones.
        for mut blocks in [lost, &waiting] {
            while let Some(block) = pcapng::first(blocks) {
                match block.kind {
                    Kind::Packet(interface) => state.drop_packet(interface),
                    Kind::Interface => described -= 1,
                    Kind::Other => {}
                }
                blocks = blocks.get(block.len..).unwrap_or_default();
            }
        }
        let mut statistics = Vec::new();
        state.append_statistics(&mut statistics, |number, _| number < described);
        statistics
    }

    /// Takes no more packets from now on.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        self.wake_writer(&mut state);
    }

    /// Notes that the writer has ended.
    pub(super) fn set_ended(&self) {
        self.state().phase = Phase::Ended;
        self.ended.notify_all();
    }

    /// Waits until the writer has ended, at most for `timeout`. Returns whether it has.
    pub(super) fn wait_until_ended(&self, timeout: Duration) -> bool {
        let runs = |state: &mut State| state.phase != Phase::Ended;
        let waited = self.ended.wait_timeout_while(self.state(), timeout, runs);
        let (_state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// Whether the queue takes packets.
    pub(super) fn is_open(&self) -> bool {
        self.state().phase == Phase::Open
    }

    pub(super) fn sums(&self) -> Sums {
        let state = self.state();
        let begin = Sums {
            file_bytes: state.file_bytes,
            ..Sums::default()
        };
        state.interfaces.iter().fold(begin, |sums, one| Sums {
            passed: sums.passed + one.passed,
            dropped: sums.dropped + one.dropped,
            ..sums
        })
    }

    /// Wakes the writer if it sleeps. Otherwise it looks at the queue again before it does.
    fn wake_writer(&self, state: &mut State) {
        if mem::take(&mut state.writer_sleeps) {
            self.filled.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave this inconsistent: the code that appends blocks cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
