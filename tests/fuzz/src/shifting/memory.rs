// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that changes while it is read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, Permissions};
use vsock_driver::{DriverQueue, Memory};

use super::change::Change;

/// The most changes that are pending.
const MOST: usize = 256;

/// How many bytes the host's stream has moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) to_host: usize,
    pub(super) to_guest: usize,
}

/// The pending changes, each with the number of lookups before it.
#[derive(Clone, Debug)]
pub(super) struct Script(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    guest: Option<(Memory, [DriverQueue; 3])>,
    changes: VecDeque<(u8, Change)>,
    moved: Moved,
    sends: usize,
    takes: usize,
}

impl Script {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Starts to change memory.
    pub(super) fn begin(&self, memory: &Memory, rings: &[DriverQueue; 3]) {
        self.state().guest = Some((memory.clone(), rings.clone()));
    }

    /// Stops changing memory.
    pub(super) fn end(&self) {
        self.state().guest = None;
    }

    pub(super) fn add(&self, looks: u8, change: Change) {
        let mut state = self.state();
        if state.changes.len() < MOST {
            state.changes.push_back((looks, change));
        }
    }

    /// Returns whether no change is pending.
    pub(super) fn is_over(&self) -> bool {
        self.state().changes.is_empty()
    }

    /// Counts a lookup, and makes the next change if it is due.
    pub(super) fn look(&self) {
        let mut state = self.state();
        let State { guest, changes, .. } = &mut *state;
        let (Some((memory, rings)), Some((looks, _))) = (guest, changes.front_mut()) else {
            return;
        };
        if *looks > 0 {
            *looks -= 1;
        } else if let Some((_, change)) = changes.pop_front() {
            change.apply(memory, rings);
        }
    }

    pub(super) fn host_sends(&self, bytes: u16) {
        self.state().sends += usize::from(bytes);
    }

    pub(super) fn host_takes(&self, bytes: u16) {
        self.state().takes += usize::from(bytes);
    }

    /// Returns how many bytes a read of the host's stream gets.
    pub(super) fn read(&self, room: usize) -> usize {
        let mut state = self.state();
        let len = room.min(state.sends);
        state.sends -= len;
        state.moved.to_guest += len;
        len
    }

    /// Returns how many bytes a write to the host's stream takes.
    pub(super) fn write(&self, len: usize) -> usize {
        let mut state = self.state();
        let len = len.min(state.takes);
        state.takes -= len;
        state.moved.to_host += len;
        len
    }

    pub(super) fn moved(&self) -> Moved {
        self.state().moved
    }

    pub(super) fn forget_moved(&self) {
        self.state().moved = Moved::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest's memory as its device sees it.
#[derive(Debug)]
pub(super) struct Shifting {
    memory: Memory,
    script: Script,
    mapped: bool,
}

impl Shifting {
    pub(super) const fn new(memory: Memory, script: Script, mapped: bool) -> Self {
        Self {
            memory,
            script,
            mapped,
        }
    }
}

/// Memory that does not change.
impl From<Memory> for Shifting {
    fn from(memory: Memory) -> Self {
        Self::new(memory, Script::new(), false)
    }
}

impl GuestMemory for Shifting {
    type PhysicalMemory = Memory;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.script.look();
        GuestMemory::check_range(&self.memory, addr, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        self.script.look();
        GuestMemory::get_slices(&self.memory, addr, count, access)
    }

    fn physical_memory(&self) -> Option<&Self::PhysicalMemory> {
        (!self.mapped).then_some(&self.memory)
    }
}
