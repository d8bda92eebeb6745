// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections as JSON, for both ends of the control socket.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vsock_vhost_user::{
    Cid, ConnectionId, ConnectionInfo, ConnectionList, GuestCid, Initiator, SocketType, Tick,
};

use super::guests::Answers;

/// What `GET /connections` answers.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Listing {
    pub(crate) connections: Vec<Connection>,
    /// The CIDs of guests whose devices did not answer in time: their connections are missing.
    pub(crate) silent_guests: Vec<u64>,
}

/// One connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Connection {
    /// A [`ConnectionName`], for `DELETE /connections/ID`.
    pub(crate) id: String,
    pub(crate) guest: Address,
    pub(crate) host: Address,
    /// The side that has begun it: `guest` or `host`.
    pub(crate) initiator: String,
    /// `stream` or `seqpacket`.
    #[serde(rename = "type")]
    pub(crate) socket_type: String,
    /// Where it is in its life, as `connected`.
    pub(crate) phase: String,
    /// Milliseconds since it was begun, without those in which the guest was paused.
    pub(crate) age_ms: u64,
    pub(crate) bytes_from_guest: u64,
    pub(crate) bytes_to_guest: u64,
    /// Bytes of the guest that the host component has not taken.
    pub(crate) waiting: u64,
    /// Bytes that the guest was sent and has not taken.
    pub(crate) in_flight: u64,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Address {
    pub(crate) cid: u64,
    pub(crate) port: u32,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.cid, self.port)
    }
}

/// Why something could not be done, as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failure {
    pub(crate) error: String,
}

/// A connection of one of several guests: the guest's CID, and the number of the connection there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ConnectionName {
    pub(crate) guest: u64,
    pub(crate) id: ConnectionId,
}

/// A text that names no connection.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("expected CID-NUMBER, as 3-17, from the list of connections")]
pub(crate) struct ConnectionNameError;

impl FromStr for ConnectionName {
    type Err = ConnectionNameError;

    fn from_str(text: &str) -> Result<Self, ConnectionNameError> {
        let (guest, id) = text.split_once('-').ok_or(ConnectionNameError)?;
        Ok(Self {
            guest: guest.parse().map_err(|_| ConnectionNameError)?,
            id: id.parse().map_err(|_| ConnectionNameError)?,
        })
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.guest, self.id)
    }
}

impl Listing {
    pub(super) fn of(answers: &Answers<ConnectionList>) -> Self {
        let mut listing = Self::default();
        for (guest, answer) in answers {
            match answer {
                Ok(list) => {
                    let connections = list.connections.iter();
                    let connections = connections.map(|info| Connection::of(*guest, list.at, info));
                    listing.connections.extend(connections);
                }
                Err(_) => listing.silent_guests.push((*guest).into()),
            }
        }
        listing
    }
}

impl Connection {
    fn of(guest: GuestCid, at: Tick, info: &ConnectionInfo) -> Self {
        let name = ConnectionName {
            guest: guest.into(),
            id: info.id,
        };
        Self {
            id: name.to_string(),
            guest: Address {
                cid: guest.into(),
                port: info.key.peer.into(),
            },
            host: Address {
                cid: Cid::HOST.into(),
                port: info.key.local.into(),
            },
            initiator: match info.initiator {
                Initiator::Guest => "guest",
                Initiator::Host => "host",
            }
            .to_owned(),
            socket_type: match info.socket_type {
                SocketType::Stream => "stream",
                SocketType::SeqPacket => "seqpacket",
            }
            .to_owned(),
            phase: snake_case(&format!("{:?}", info.phase)),
            age_ms: u64::try_from(info.age(at).as_millis()).unwrap_or(u64::MAX),
            bytes_from_guest: info.bytes_from_guest,
            bytes_to_guest: info.bytes_to_guest,
            waiting: u64::try_from(info.waiting).unwrap_or(u64::MAX),
            in_flight: info.in_flight.into(),
        }
    }
}

/// The name of a variant, as machines want it: `GuestReset` is `guest_reset`.
pub(super) fn snake_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_nothing_else_is_one() {
        let name: ConnectionName = "3-17".parse().unwrap();
        assert_eq!((name.guest, u64::from(name.id)), (3, 17));
        assert_eq!(name.to_string(), "3-17");
        for text in [
            "",
            "3",
            "3-",
            "-17",
            "3-17-1",
            "3:17",
            "3-99999999999999999999",
            "a-b",
        ] {
            let parsed: Result<ConnectionName, _> = text.parse();
            assert_eq!(parsed, Err(ConnectionNameError), "{text}");
        }
    }

    #[test]
    fn variants_have_names_for_machines() {
        assert_eq!(snake_case("MessageTooLong"), "message_too_long");
        assert_eq!(snake_case("Clean"), "clean");
    }
}
