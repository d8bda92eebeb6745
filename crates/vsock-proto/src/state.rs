// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The states of a connection, as pure functions.
//!
//! A connection is in one [`Phase`] of its life. While it is [`Connected`](Phase::Connected), each
//! of its two directions has a state of its own, [`ToHostState`] and [`ToGuestState`], because
//! either may end before the other. Nothing here has a side effect, or a memory. The tables below
//! are complete, and a test reads them: a pair that is not listed is an event that means nothing in
//! this state and changes nothing.
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
//! No row leads out of `Closed`, and none out of `Resetting` but to `Closed`: after an RST nothing
//! else is sent. A guest's RST leads to `Closed` or to `Draining`, which both send nothing: an RST
//! is never answered by an RST.
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
//! What follows from the two directions: the row is the one to the guest, the column the one to the
//! host. `Finish` is the end that both sides have a part in: one RST completes it. `Linger` is the
//! end that the host alone has made: the guest still has to say that it has seen it.
//!
//! | to guest | `Open` | `Flushing` | `Ended` | `Discarding` |
//! |---|---|---|---|---|
//! | `Open` | `GoOn` | `GoOn` | `GoOn` | `GoOn` |
//! | `Ended` | `GoOn` | `GoOn` | `Finish` | `Linger` |
//! | `Refused` | `GoOn` | `FlushInTime` | `Finish` | `Finish` |

use core::time::Duration;

use crate::Config;

/// Where a connection is in its life.
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
    /// The connection is there, perhaps in one direction only.
    Connected,
    /// The guest has forgotten the connection after it ended its sending properly; the last of its
    /// bytes go to the host. The tuple is free.
    Draining,
    /// The host has closed and the guest has been told, or soon will be; its RST is awaited.
    Lingering,
    /// Both sides have ended; the guest is owed our SHUTDOWN and then an RST.
    Finishing,
    /// The guest is owed an RST.
    Resetting,
    /// It is over, and nothing is left of it.
    Closed,
}

/// What moves a connection from one phase to another.
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
    /// The guest sent a REQUEST for this tuple: it knows nothing of the connection.
    GuestRequest,
    /// The guest sent a RESPONSE.
    GuestResponse,
    /// The guest sent an RST.
    GuestReset,
    /// The guest sent an RST or a REQUEST after it had ended its sending, and the host has not yet
    /// taken all.
    GuestLeft,
    /// The guest has closed both directions, and nothing is left to do for it.
    GuestClosed,
    /// The host's stream is there.
    HostConnected,
    /// The host's stream could not be had, has gone before the connection was there, or is broken.
    HostGone,
    /// The host has closed both directions, and the guest none.
    HostClosed,
    /// Both directions have ended, and the guest had a part in it.
    HalvesEnded,
    /// The host has taken the last byte.
    Drained,
    /// The deadline of the phase has passed.
    Expired,
    /// The guest broke the protocol.
    Violation,
    /// The device is about to stop: a guest that knows of the connection is to learn of its end.
    DeviceStops,
    /// The device was reset: nothing that the guest knew counts any more.
    Aborted,
}

impl Phase {
    /// The phase after `event`, or `None` if the event means nothing in this phase.
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

            // Nothing was said to the guest, or nothing is left to say.
            (Self::Requesting, E::HostGone | E::Expired | E::DeviceStops)
            | (
                Self::Draining,
                E::Drained | E::HostGone | E::Expired | E::DeviceStops | E::Aborted,
            )
            | (Self::Resetting, E::ResetSent) => Self::Closed,

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

            (Self::Requested | Self::Accepting | Self::Connected, E::HostGone)
            | (
                Self::Requested
                | Self::Accepting
                | Self::Responding
                | Self::Connected
                | Self::Lingering,
                E::Expired | E::GuestClosed | E::Violation | E::DeviceStops,
            )
            | (Self::Requesting, E::Violation)
            | (Self::Finishing, E::ShutdownSent | E::GuestClosed | E::Violation | E::DeviceStops) => {
                Self::Resetting
            }
            _ => return None,
        })
    }

    /// Whether the host's stream belongs to the connection in this phase. When a connection leaves
    /// these phases its stream is closed and its buffers are freed immediately.
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

    /// Whether the tuple of ports belongs to the connection in this phase.
    #[must_use]
    pub const fn has_tuple(self) -> bool {
        !matches!(self, Self::Draining | Self::Closed)
    }

    /// Whether the guest, as far as is known, has the connection open: so it may be told of credit.
    #[must_use]
    pub(crate) const fn has_credit(self) -> bool {
        matches!(self, Self::Connected | Self::Lingering)
    }

    /// Whether the guest has told the size of its buffer, so that what else it tells counts.
    #[must_use]
    pub(crate) const fn knows_window(self) -> bool {
        self.has_credit() || matches!(self, Self::Accepting | Self::Responding)
    }

    /// How long the phase may last. A connection may stay `Connected` for ever, and the phases that
    /// only owe a packet hold nothing but the tuple.
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

/// The direction from the guest to the host.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ToHostState {
    /// The guest may send.
    Open,
    /// The guest has ended its sending; the host has not yet taken all.
    Flushing,
    /// The guest has ended its sending, and nothing waits for the host.
    Ended,
    /// The host does not read any more, and the guest has not yet ended its sending: what it sends
    /// is thrown away, and credited.
    Discarding,
}

/// What moves [`ToHostState`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ToHostEvent {
    /// The guest said that it will send no more.
    GuestEndsSending,
    /// The host has taken the last byte.
    Flushed,
    /// A write to the host's stream has failed, or would.
    HostStopsReading,
}

impl ToHostState {
    /// The state after `event`, or `None` if it changes nothing.
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

/// The direction from the host to the guest.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ToGuestState {
    /// The host may send.
    Open,
    /// The host has ended its sending; the guest has been told, or will be.
    Ended,
    /// The guest does not receive any more.
    Refused,
}

/// What moves [`ToGuestState`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ToGuestEvent {
    /// A read from the host's stream has found its end.
    HostEndsSending,
    /// The guest said that it will receive no more.
    GuestStopsReading,
}

impl ToGuestState {
    /// The state after `event`, or `None` if it changes nothing.
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

/// What follows from the states of both directions.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Outlook {
    /// The connection goes on, with no deadline: a half-close may last, and a host may read slowly.
    GoOn,
    /// The guest has closed and waits; the host must take the rest, and not stop taking it.
    FlushInTime,
    /// The connection is over.
    Finish,
    /// The connection is over for the host.
    Linger,
}

impl Outlook {
    /// The outlook of a connection whose directions are in these states.
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
