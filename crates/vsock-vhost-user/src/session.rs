// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whose driver the device serves: the one that it served before, or another. It decides between a
//! pause and a reset, from what the front-end says and from where the rings stand; it touches no
//! descriptor and no memory.
//!
//! Queues that stop do not say why. QEMU sends the same messages for a guest that is paused and for
//! one that reboots, and other front-ends do no more than disable the queues. So nothing is decided
//! when they stop. It is decided when they run again:
//!
//! ```text
//!                 start: Reset                        interrupt(Pause)
//!   Idle ----------------------------> Serving --------------------------> Resting, bonds kept
//!    ^                                  |  ^  ^                                |        |
//!    | interrupt            broken      |  |  |          start: GoOn           |        |
//!    +----------- Broken <--------------+  |  +--------------------------------+        |
//!                      interrupt(Reset) |  | start: Cut                                 | interrupt(Reset)
//!                                       v  |                                            v
//!                                      Resting, bonds cut <-----------------------------+
//! ```
//!
//! and from either kind of rest a start for another driver is a `Reset`. `docs/protocol.md` argues
//! the rules from the specification.

use vhost::vhost_user::VhostUserVirtioFeatures;

/// Receive, transmit and event queue; some front-ends keep the last one for themselves.
pub(crate) const QUEUES: usize = 3;

/// How many queues, from the first on, carry packets. The device serves a driver while all of them
/// run.
pub(crate) const PACKET_QUEUES: usize = 2;

/// Bits of the features by which the front-end and the device agree on how they work together. The
/// driver does not know of them, and they change while it runs.
const FRONT_END_FEATURES: u64 =
    VhostUserVirtioFeatures::LOG_ALL.bits() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Where a ring is in the guest's memory, and how many entries it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Layout {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
}

/// A ring at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ring {
    pub(crate) layout: Layout,
    /// The used index, which nothing but the device moves once a driver has set the ring up. The
    /// device holds no buffer between two calls, so this is also where it goes on in what is
    /// available.
    pub(crate) used_index: u16,
}

/// How the device was taken off its rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interruption {
    /// A ring was stopped or disabled, or is being set up anew: whether for a while, is not known
    /// yet.
    Pause,
    /// By `RESET_OWNER` or `RESET_DEVICE`, or because the front-end has gone.
    Reset,
}

/// What an interruption does to the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    Nothing,
    /// Everything stays as it is until the next start.
    Pause,
    /// The connections end on the host; the driver is told if it goes on.
    Cut,
}

/// What the device does when its rings run again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// The driver that was served goes on, and so do its connections.
    GoOn,
    /// The driver that was served goes on, and learns that its connections were cut.
    Cut,
    /// The driver is another one: whatever is left of the one before is closed.
    Reset {
        /// The driver has used its rings already, with another device: what it thinks is connected
        /// is not.
        owes_transport_reset: bool,
    },
}

/// What is known of a driver by its rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Driver {
    features: u64,
    rings: [Ring; PACKET_QUEUES],
}

/// Whether the connections of a driver that rests live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Bonds {
    Kept,
    Cut,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// There is no driver that could go on.
    Idle,
    Serving(Driver),
    Resting(Driver, Bonds),
    /// The rings cannot be used, and are not tried again before the front-end changes something.
    Broken,
}

/// The device is with no driver, and may begin with one: with the last one, if it rests.
#[derive(Debug)]
pub(crate) struct Beginning {
    before: Option<(Driver, Bonds)>,
}

/// What the front-end has said so far, and the driver that was served last.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    features: u64,
    /// What `SET_VRING_BASE` said since the ring ran last.
    bases: [Option<u16>; QUEUES],
}

impl Session {
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Idle,
            features: 0,
            bases: [None; QUEUES],
        }
    }

    /// Whether the device is with a driver.
    pub(crate) const fn serves(&self) -> bool {
        matches!(self.state, State::Serving(_))
    }

    /// What [`start`](Self::start) needs, if the device is to begin with a driver once its rings
    /// run.
    pub(crate) const fn beginning(&self) -> Option<Beginning> {
        let before = match self.state {
            State::Idle => None,
            State::Resting(driver, bonds) => Some((driver, bonds)),
            State::Serving(_) | State::Broken => return None,
        };
        Some(Beginning { before })
    }

    /// What the driver accepts, from the next start on.
    pub(crate) const fn features(&self) -> u64 {
        self.features
    }

    /// `SET_FEATURES`.
    pub(crate) const fn accept_features(&mut self, features: u64) {
        self.features = features;
    }

    /// `SET_VRING_BASE`.
    pub(crate) fn set_base(&mut self, ring: usize, base: u16) {
        if let Some(told) = self.bases.get_mut(ring) {
            *told = Some(base);
        }
    }

    /// What `SET_VRING_BASE` said of a ring that has not run since.
    pub(crate) fn base(&self, ring: usize) -> Option<u16> {
        self.bases.get(ring).copied().flatten()
    }

    /// The ring runs: what was said of it has served its purpose.
    pub(crate) fn take_base(&mut self, ring: usize) -> Option<u16> {
        self.bases.get_mut(ring).and_then(Option::take)
    }

    /// The device is taken off its rings, if it was on them; these are their used indices.
    pub(crate) fn interrupt(
        &mut self,
        by: Interruption,
        used_indices: [u16; PACKET_QUEUES],
    ) -> Effect {
        let (mut driver, bonds) = match self.state {
            State::Idle | State::Resting(_, Bonds::Cut) => return Effect::Nothing,
            State::Broken => {
                self.state = State::Idle;
                return Effect::Nothing;
            }
            State::Resting(_, Bonds::Kept) if by == Interruption::Pause => return Effect::Nothing,
            State::Resting(driver, Bonds::Kept) => (driver, Bonds::Cut),
            State::Serving(driver) if by == Interruption::Pause => (driver, Bonds::Kept),
            State::Serving(driver) => (driver, Bonds::Cut),
        };
        if self.serves() {
            for (ring, index) in driver.rings.iter_mut().zip(used_indices) {
                ring.used_index = index;
            }
        }
        self.state = State::Resting(driver, bonds);
        match bonds {
            Bonds::Kept => Effect::Pause,
            Bonds::Cut => Effect::Cut,
        }
    }

    /// What the front-end has said counts no longer: it has gone, or the device is as it was made.
    pub(crate) const fn forget_set_up(&mut self) {
        self.features = 0;
        self.bases = [None; QUEUES];
    }

    /// The rings cannot be used, and every connection was closed for that: whatever runs next
    /// begins anew, after the next interruption.
    pub(crate) const fn broken(&mut self) {
        self.state = State::Broken;
    }

    /// Every ring that carries packets runs, and is in the guest's memory like this.
    pub(crate) fn start(
        &mut self,
        Beginning { before }: Beginning,
        rings: [Ring; PACKET_QUEUES],
    ) -> Start {
        let driver = Driver {
            features: self.features & !FRONT_END_FEATURES,
            rings,
        };
        let mut stands_there = true;
        for (index, ring) in rings.iter().enumerate() {
            let base = self.take_base(index);
            stands_there &= base.is_none_or(|base| base == ring.used_index);
        }
        let has_used_rings = rings.iter().any(|ring| ring.used_index != 0);
        let start = match before {
            Some((last, Bonds::Kept)) if last == driver && stands_there => Start::GoOn,
            // Another session passes whatever it likes as the base, most likely the available
            // index. A driver that has not used its rings has no connections to hear of.
            Some((last, Bonds::Cut)) if last == driver && has_used_rings => Start::Cut,
            _ => Start::Reset {
                owes_transport_reset: has_used_rings,
            },
        };
        self.state = State::Serving(driver);
        start
    }
}

#[cfg(test)]
mod tests;
