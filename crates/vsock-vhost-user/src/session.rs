// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Decides whether the device continues with the driver that it served before, or starts with
//! another one, from the front-end's messages and the positions of the rings. This module touches
//! no file descriptor and no memory.
//!
//! When queues stop, the device does not learn why. QEMU sends the same messages for a paused guest
//! as for one that reboots, and other front-ends only disable the queues. So the decision between a
//! pause and a reset is made only when the queues run again:
//!
//! ```text
//!                start: Reset                      interrupt(Pause)
//!   Idle -------------------------> Serving ---------------------> Resting, bonds kept
//!    ^                               |  ^  ^                           |     |
//!    | interrupt            broken   |  |  |        start: GoOn        |     |
//!    +----------- Broken <-----------+  |  +---------------------------+     |
//!                   interrupt(Reset) |  | start: Cut                         | interrupt(Reset)
//!                                    v  |                                    v
//!                                   Resting, bonds cut <---------------------+
//! ```
//!
//! From either kind of rest, a start for another driver is a `Reset`. The *bonds* are the
//! connections of the resting driver. `docs/protocol.md` derives the rules from the specification.

use vhost::vhost_user::VhostUserVirtioFeatures;

/// The receive, transmit and event queue; some front-ends serve the last one themselves.
pub(crate) const QUEUES: usize = 3;

/// The number of queues that carry packets, which come first. The device serves a driver while all
/// of them run.
pub(crate) const PACKET_QUEUES: usize = 2;

/// Feature bits that the front-end and the device negotiate with each other. The driver does not
/// see them, and they can change while it runs.
const FRONT_END_FEATURES: u64 =
    VhostUserVirtioFeatures::LOG_ALL.bits() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// A ring's location in guest memory and its number of entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Layout {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
}

/// A ring's layout and position at some moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ring {
    pub(crate) layout: Layout,
    /// The used index, which only the device advances after the driver has set up the ring. The
    /// device holds no buffer between two calls, so this is also its position in the available
    /// ring.
    pub(crate) used_index: u16,
}

/// Why the device was detached from its rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interruption {
    /// A ring was stopped or disabled, or is being set up again. This may turn out to be a pause.
    Pause,
    /// The front-end sent `RESET_OWNER` or `RESET_DEVICE`, or has disconnected.
    Reset,
}

/// What an interruption does to the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    Nothing,
    /// The device keeps everything until the next start.
    Pause,
    /// The device closes the connections on the host; the driver learns this if it continues.
    Cut,
}

/// What the device does when its rings run again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// The same driver continues, with its connections.
    GoOn,
    /// The same driver continues, and learns that its connections were cut.
    Cut,
    /// The driver is another one. What is left of the previous one is closed.
    Reset {
        /// Whether the driver has already used its rings with another device. The connections that
        /// it believes to have are gone.
        owes_transport_reset: bool,
    },
}

/// The properties that identify a driver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Driver {
    features: u64,
    rings: [Ring; PACKET_QUEUES],
}

/// Whether the connections of a resting driver still exist.
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
    /// The rings are unusable. The device does not try them again until the front-end changes
    /// something.
    Broken,
}

/// The permission to start to serve a driver, with the resting driver that may continue.
#[derive(Debug)]
pub(crate) struct Beginning {
    before: Option<(Driver, Bonds)>,
}

/// What the front-end has set so far, and the driver that was served last.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    features: u64,
    /// Each ring's base from `SET_VRING_BASE`, if the ring has not run since.
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

    /// Returns the argument of [`start`](Self::start), if the device may start to serve a driver
    /// once its rings run.
    pub(crate) const fn beginning(&self) -> Option<Beginning> {
        let before = match self.state {
            State::Idle => None,
            State::Resting(driver, bonds) => Some((driver, bonds)),
            State::Serving(_) | State::Broken => return None,
        };
        Some(Beginning { before })
    }

    /// The accepted features, which take effect with the next start.
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

    /// The ring's base from `SET_VRING_BASE`, if the ring has not run since.
    pub(crate) fn base(&self, ring: usize) -> Option<u16> {
        self.bases.get(ring).copied().flatten()
    }

    /// Takes the base of a ring that now runs and no longer needs it.
    pub(crate) fn take_base(&mut self, ring: usize) -> Option<u16> {
        self.bases.get_mut(ring).and_then(Option::take)
    }

    /// Detaches the device from its rings, if it serves them. `used_indices` are the current
    /// positions of the rings.
    pub(crate) fn interrupt(
        &mut self,
        by: Interruption,
        used_indices: [u16; PACKET_QUEUES],
    ) -> Effect {
        let (mut driver, bonds) = match self.state {
            State::Idle | State::Resting(_, Bonds::Cut) => return Effect::Nothing,
            // The front-end has changed something, so the rings may be tried again.
            State::Broken => {
                self.state = State::Idle;
                return Effect::Nothing;
            }
            State::Resting(_, Bonds::Kept) if by == Interruption::Pause => return Effect::Nothing,
            // A pause that turns into a reset: the connections end now.
            State::Resting(driver, Bonds::Kept) => (driver, Bonds::Cut),
            State::Serving(driver) if by == Interruption::Pause => (driver, Bonds::Kept),
            State::Serving(driver) => (driver, Bonds::Cut),
        };
        // A resting driver keeps the positions of its first interruption: the front-end may reuse
        // the memory of the rings since.
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

    /// Forgets the front-end's settings, because it has disconnected or reset the device.
    pub(crate) const fn forget_set_up(&mut self) {
        self.features = 0;
        self.bases = [None; QUEUES];
    }

    /// Notes that the rings are unusable, and that every connection was closed because of this. The
    /// first start after the next interruption is a reset.
    pub(crate) const fn broken(&mut self) {
        self.state = State::Broken;
    }

    /// Starts to serve a driver, whose packet queues all run and have these rings.
    pub(crate) fn start(
        &mut self,
        Beginning { before }: Beginning,
        rings: [Ring; PACKET_QUEUES],
    ) -> Start {
        let driver = Driver {
            features: self.features & !FRONT_END_FEATURES,
            rings,
        };
        // A front-end that repeats the set-up after a pause passes the position where the ring
        // stopped. Any other base means a new beginning.
        let mut is_at_base = true;
        for (index, ring) in rings.iter().enumerate() {
            let base = self.take_base(index);
            is_at_base &= base.is_none_or(|base| base == ring.used_index);
        }
        let has_used_rings = rings.iter().any(|ring| ring.used_index != 0);
        let start = match before {
            Some((last, Bonds::Kept)) if last == driver && is_at_base => Start::GoOn,
            // A new front-end may pass any base, most likely the available index, so the base is no
            // criterion here. A driver that has not used its rings has no connections to lose.
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
