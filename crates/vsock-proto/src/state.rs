// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The states of a connection, as pure functions.
//!
//! A connection is always in one [`Phase`] of its life. While it is
//! [`Connected`](Phase::Connected), each of its two directions has a state of its own,
//! [`ToHostState`] and [`ToGuestState`], because either can end before the other. Nothing here has
//! side effects or keeps state. The tables below are complete, and a test compares them with the
//! code: an event that is not listed for a state has no effect in that state.
//!
//! # The life of a connection
//!
//! A host-initiated connection begins as `Requesting`, a guest-initiated one as `Accepting`.
//!
//! | phase | events | next |
//! |---|---|---|
//! | `Requesting` | `RequestSent` | `Requested` |
//! | `Requesting` | `HostGone`, `Expired`, `GuestRequest`, `DeviceStops`, `Aborted` | `Closed` |
//! | `Requesting` | `Violation` | `Resetting` |
//! | `Requested` | `GuestResponse` | `Connected` |
//! | `Requested` | `GuestReset`, `GuestRequest`, `Aborted` | `Closed` |
//! | `Requested` | `HostGone`, `Expired`, `GuestClosed`, `Violation`, `DeviceStops` | `Resetting` |
//! | `Accepting` | `HostConnected` | `Responding` |
//! | `Accepting` | `GuestReset`, `GuestRequest`, `Aborted` | `Closed` |
//! | `Accepting` | `HostGone`, `Expired`, `GuestClosed`, `Violation`, `DeviceStops` | `Resetting` |
//! | `Responding` | `ResponseSent` | `Connected` |
//! | `Responding` | `GuestReset`, `GuestRequest`, `Aborted` | `Closed` |
//! | `Responding` | `Expired`, `GuestClosed`, `Violation`, `DeviceStops` | `Resetting` |
//! | `Connected` | `HalvesEnded` | `Finishing` |
//! | `Connected` | `HostClosed` | `Lingering` |
//! | `Connected` | `GuestLeft` | `Draining` |
//! | `Connected` | `GuestReset`, `GuestRequest`, `Aborted` | `Closed` |
//! | `Connected` | `HostGone`, `Expired`, `GuestClosed`, `Violation`, `DeviceStops` | `Resetting` |
//! | `Draining` | `Drained`, `HostGone`, `Expired`, `DeviceStops`, `Aborted` | `Closed` |
//! | `Lingering` | `HalvesEnded` | `Finishing` |
//! | `Lingering` | `GuestReset`, `GuestRequest`, `Aborted` | `Closed` |
//! | `Lingering` | `Expired`, `GuestClosed`, `Violation`, `DeviceStops` | `Resetting` |
//! | `Finishing` | `ShutdownSent`, `GuestClosed`, `Violation`, `DeviceStops` | `Resetting` |
//! | `Finishing` | `GuestReset`, `GuestRequest`, `Aborted` | `Closed` |
//! | `Resetting` | `ResetSent`, `GuestReset`, `GuestRequest`, `Aborted` | `Closed` |
//!
//! No row leads out of `Closed`, and `Resetting` leads only to `Closed`: after an RST nothing else
//! is sent. An RST from the guest leads to `Closed` or to `Draining`, neither of which sends
//! anything, so an RST is never answered with an RST.
//!
//! # From the guest to the host
//!
//! | to host | event | next |
//! |---|---|---|
//! | `Open` | `GuestEndsSending` | `Flushing` |
//! | `Open` | `HostStopsReading` | `Discarding` |
//! | `Flushing` | `Flushed` | `Ended` |
//! | `Flushing` | `HostStopsReading` | `Ended` |
//! | `Discarding` | `GuestEndsSending` | `Ended` |
//!
//! # From the host to the guest
//!
//! | to guest | event | next |
//! |---|---|---|
//! | `Open` | `HostEndsSending` | `Ended` |
//! | `Open` | `GuestStopsReading` | `Refused` |
//! | `Ended` | `GuestStopsReading` | `Refused` |
//!
//! # Both together
//!
//! The outlook of a connection follows from its two directions: the rows are the states to the
//! guest, the columns those to the host. `Finish` is an end in which both sides took part; one RST
//! completes it. `Linger` is an end that only the host has caused; the guest has yet to acknowledge
//! it.
//!
//! | to guest | `Open` | `Flushing` | `Ended` | `Discarding` |
//! |---|---|---|---|---|
//! | `Open` | `GoOn` | `GoOn` | `GoOn` | `GoOn` |
//! | `Ended` | `GoOn` | `GoOn` | `Finish` | `Linger` |
//! | `Refused` | `GoOn` | `FlushInTime` | `Finish` | `Finish` |

use core::time::Duration;

use crate::Config;

/// The stage of a connection's life.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// The host wants a connection; the REQUEST is not yet in a buffer of the guest.
    Requesting,
    /// The guest has the REQUEST and has not answered.
    Requested,
    /// The guest wants a connection; the host has not answered.
    Accepting,
    /// The host has accepted; the RESPONSE is not yet in a buffer of the guest.
    Responding,
    /// The connection is established, perhaps in one direction only.
    Connected,
    /// The guest ended its sending in order and then forgot the connection; the last of its bytes
    /// are being written to the host. The tuple is free.
    Draining,
    /// The host has closed and the guest has been told, or soon will be; its RST is awaited.
    Lingering,
    /// Both sides have ended; a SHUTDOWN and then an RST are pending for the guest.
    Finishing,
    /// An RST is pending for the guest.
    Resetting,
    /// The connection is over and holds no resources.
    Closed,
}

/// An event that moves a connection from one phase to another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub(crate) enum Event {
    /// The REQUEST is in a buffer of the guest.
    RequestSent,
    /// The RESPONSE is in a buffer of the guest.
    ResponseSent,
    /// The SHUTDOWN is in a buffer of the guest.
    ShutdownSent,
    /// The RST is in a buffer of the guest.
    ResetSent,
    /// The guest sent a REQUEST for this tuple: it has no record of the connection.
    GuestRequest,
    /// The guest sent a RESPONSE.
    GuestResponse,
    /// The guest sent an RST.
    GuestReset,
    /// The guest sent an RST or a REQUEST after it had ended its sending, while bytes still wait
    /// for the host.
    GuestLeft,
    /// The guest has closed both directions, and no work is left for it.
    GuestClosed,
    /// The host's stream is available.
    HostConnected,
    /// No stream could be obtained from the host, it was closed before the connection was
    /// established, or it is broken.
    HostGone,
    /// The host has closed both directions, and the guest neither.
    HostClosed,
    /// Both directions have ended, and the guest took part.
    HalvesEnded,
    /// The host has accepted the last byte.
    Drained,
    /// The deadline of the phase has passed.
    Expired,
    /// The guest violated the protocol.
    Violation,
    /// The device is about to stop: a guest that has a record of the connection must learn that it
    /// ended.
    DeviceStops,
    /// The device was reset: the guest's record of the connection is void.
    Aborted,
}

impl Phase {
    /// Returns the phase after `event`, or `None` if the event has no effect in this phase.
    #[must_use]
    pub(crate) const fn next(self, event: Event) -> Option<Self> {
        use Event as E;
        Some(match (self, event) {
            (Self::Requesting, E::RequestSent) => Self::Requested,
            (Self::Requested, E::GuestResponse) | (Self::Responding, E::ResponseSent) => {
                Self::Connected
            }
            (Self::Accepting, E::HostConnected) => Self::Responding,
            (Self::Connected, E::GuestLeft) => Self::Draining,
            (Self::Connected, E::HostClosed) => Self::Lingering,
            (Self::Connected | Self::Lingering, E::HalvesEnded) => Self::Finishing,

            // The guest has no record of the connection, or needs no further packet.
            (Self::Requesting, E::HostGone | E::Expired | E::DeviceStops)
            | (
                Self::Draining,
                E::Drained | E::HostGone | E::Expired | E::DeviceStops | E::Aborted,
            )
            | (Self::Resetting, E::ResetSent) => Self::Closed,

            // An RST is never answered, a REQUEST begins a new connection that an RST would reset,
            // and after a device reset the guest has no record of any connection.
            (Self::Requesting, E::GuestRequest | E::Aborted)
            | (
                Self::Requested
                | Self::Accepting
                | Self::Responding
                | Self::Connected
                | Self::Lingering
                | Self::Finishing
                | Self::Resetting,
                E::GuestReset | E::GuestRequest | E::Aborted,
            ) => Self::Closed,

            // The guest has a record of the connection and must learn that it ended.
            (Self::Requested | Self::Accepting | Self::Connected, E::HostGone)
            | (
                Self::Requested
                | Self::Accepting
                | Self::Responding
                | Self::Connected
                | Self::Lingering,
                E::Expired | E::GuestClosed | E::Violation | E::DeviceStops,
            )
            | (Self::Finishing, E::ShutdownSent | E::GuestClosed | E::Violation | E::DeviceStops)
            | (Self::Requesting, E::Violation) => Self::Resetting,
            _ => return None,
        })
    }

    /// Returns whether the host's stream belongs to the connection in this phase. When a connection
    /// leaves these phases, its stream is closed and its buffers are freed immediately.
    #[must_use]
    pub(crate) const fn has_stream(self) -> bool {
        matches!(
            self,
            Self::Requesting
                | Self::Requested
                | Self::Accepting
                | Self::Responding
                | Self::Connected
                | Self::Draining
        )
    }

    /// Returns whether the connection occupies its tuple in this phase.
    #[must_use]
    pub const fn has_tuple(self) -> bool {
        !matches!(self, Self::Draining | Self::Closed)
    }

    /// Returns whether the guest, as far as is known, has an established connection, so that credit
    /// can be reported to it.
    #[must_use]
    pub(crate) const fn has_credit(self) -> bool {
        matches!(self, Self::Connected | Self::Lingering)
    }

    /// Returns whether the guest has reported the size of its buffer, so that later credit can be
    /// interpreted.
    #[must_use]
    pub(crate) const fn knows_window(self) -> bool {
        self.has_credit() || matches!(self, Self::Accepting | Self::Responding)
    }

    /// Returns how long the phase may last. A connection may stay `Connected` indefinitely, and the
    /// phases that only have a packet to send hold nothing but the tuple.
    #[must_use]
    pub(crate) fn timeout(self, config: &Config) -> Option<Duration> {
        match self {
            Self::Requesting | Self::Responding => Some(config.deliver_timeout()),
            Self::Requested | Self::Accepting => Some(config.response_timeout()),
            Self::Draining => Some(config.linger_timeout()),
            Self::Lingering => Some(config.close_timeout()),
            Self::Connected | Self::Finishing | Self::Resetting | Self::Closed => None,
        }
    }
}

/// The state of the direction from the guest to the host.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ToHostState {
    /// The guest may send.
    Open,
    /// The guest has ended its sending; bytes still wait for the host.
    Flushing,
    /// The guest has ended its sending, and nothing waits for the host.
    Ended,
    /// The host reads no more, and the guest has not yet ended its sending: its payload is
    /// discarded and credited.
    Discarding,
}

/// An event that changes [`ToHostState`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ToHostEvent {
    /// The guest announced that it will send no more.
    GuestEndsSending,
    /// The host has accepted the last byte.
    Flushed,
    /// A write to the host's stream has failed, or would fail.
    HostStopsReading,
}

impl ToHostState {
    /// Returns the state after `event`, or `None` if it has no effect.
    #[must_use]
    pub(crate) const fn next(self, event: ToHostEvent) -> Option<Self> {
        use ToHostEvent as E;
        Some(match (self, event) {
            (Self::Open, E::GuestEndsSending) => Self::Flushing,
            (Self::Open, E::HostStopsReading) => Self::Discarding,
            (Self::Flushing, E::Flushed | E::HostStopsReading)
            | (Self::Discarding, E::GuestEndsSending) => Self::Ended,
            _ => return None,
        })
    }
}

/// The state of the direction from the host to the guest.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ToGuestState {
    /// The host may send.
    Open,
    /// The host has ended its sending; the guest has been told, or soon will be.
    Ended,
    /// The guest receives no more.
    Refused,
}

/// An event that changes [`ToGuestState`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ToGuestEvent {
    /// A read from the host's stream found its end.
    HostEndsSending,
    /// The guest announced that it will receive no more.
    GuestStopsReading,
}

impl ToGuestState {
    /// Returns the state after `event`, or `None` if it has no effect.
    #[must_use]
    pub(crate) const fn next(self, event: ToGuestEvent) -> Option<Self> {
        use ToGuestEvent as E;
        Some(match (self, event) {
            (Self::Open, E::HostEndsSending) => Self::Ended,
            (Self::Open | Self::Ended, E::GuestStopsReading) => Self::Refused,
            _ => return None,
        })
    }
}

/// The outlook of a connection, as determined by the states of both directions.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Outlook {
    /// The connection continues without a deadline: a half-close may last, and a host may read
    /// slowly.
    GoOn,
    /// The guest has closed and waits; the host must keep reading the rest, or the connection is
    /// reset after a timeout.
    FlushInTime,
    /// The connection is over.
    Finish,
    /// The connection is over for the host only.
    Linger,
}

impl Outlook {
    /// Returns the outlook of a connection whose directions are in these states.
    #[must_use]
    pub(crate) const fn of(to_guest: ToGuestState, to_host: ToHostState) -> Self {
        match (to_guest, to_host) {
            (ToGuestState::Open, _)
            | (_, ToHostState::Open)
            | (ToGuestState::Ended, ToHostState::Flushing) => Self::GoOn,
            (ToGuestState::Refused, ToHostState::Flushing) => Self::FlushInTime,
            (ToGuestState::Ended, ToHostState::Discarding) => Self::Linger,
            (ToGuestState::Ended | ToGuestState::Refused, ToHostState::Ended)
            | (ToGuestState::Refused, ToHostState::Discarding) => Self::Finish,
        }
    }
}

#[cfg(test)]
mod tests;
