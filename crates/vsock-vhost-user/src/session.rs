// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which driver the device serves: the one that it served before, or another. This module decides
//! between a pause and a reset, from the front-end's messages and the positions of the rings; it
//! touches no descriptor and no memory.
//!
//! When queues stop, the device does not learn why. QEMU sends the same messages for a guest that
//! is paused as for one that reboots, and other front-ends only disable the queues. So nothing is
//! decided when the queues stop. It is decided when they run again:
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
//! and from either kind of rest, a start for another driver is a `Reset`. `docs/protocol.md`
//! derives the rules from the specification.

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
    /// The used index, which only the device moves once a driver has set the ring up. The device
    /// holds no buffer between two calls, so this is also its position in the available ring.
    pub(crate) used_index: u16,
}

/// How the device was taken off its rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interruption {
    /// A ring was stopped or disabled, or is being set up anew. It is not known yet whether this is
    /// only a pause.
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
    /// The connections end on the host; the driver learns this if it continues.
    Cut,
}

/// What the device does when its rings run again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// The driver that was served goes on, and so do its connections.
    GoOn,
    /// The driver that was served goes on, and learns that its connections were cut.
    Cut,
    /// The driver is another one: what is left of the previous one is closed.
    Reset {
        /// The driver has already used its rings, with another device: the connections that it
        /// believes to have are gone.
        owes_transport_reset: bool,
    },
}

/// What the rings tell about a driver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Driver {
    features: u64,
    rings: [Ring; PACKET_QUEUES],
}

/// Whether the connections of a resting driver are alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Bonds {
    Kept,
    Cut,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// There is no driver that could continue.
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

/// What the front-end has set so far, and the driver that was served last.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    features: u64,
    /// The base from `SET_VRING_BASE`, if the ring has not run since.
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

    /// Whether the device serves a driver.
    pub(crate) const fn serves(&self) -> bool {
        matches!(self.state, State::Serving(_))
    }

    /// What [`start`](Self::start) needs, if the device should start to serve a driver once its
    /// rings run.
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

    /// The base from `SET_VRING_BASE` of a ring that has not run since.
    pub(crate) fn base(&self, ring: usize) -> Option<u16> {
        self.bases.get(ring).copied().flatten()
    }

    /// Takes the base of a ring that now runs and no longer needs it.
    pub(crate) fn take_base(&mut self, ring: usize) -> Option<u16> {
        self.bases.get_mut(ring).and_then(Option::take)
    }

    /// Takes the device off its rings, if it serves them.
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

    /// Forgets what the front-end has set: it has gone, or it has reset the device.
    pub(crate) const fn forget_set_up(&mut self) {
        self.features = 0;
        self.bases = [None; QUEUES];
    }

    /// The rings cannot be used, and every connection was closed because of this: what runs after
    /// the next interruption starts anew.
    pub(crate) const fn broken(&mut self) {
        self.state = State::Broken;
    }

    /// Starts: all rings that carry packets run, in this place and state.
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
            // Another session may pass any base, most likely the available index. A driver that has
            // not used its rings has no connections to hear of.
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
