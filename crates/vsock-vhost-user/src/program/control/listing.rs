// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The list of connections as JSON: the program writes it, and `ctl` reads it.

use std::fmt;

use serde::{Deserialize, Serialize};
use vsock_vhost_user::{ConnectionInfo, ConnectionList, GuestCid, Initiator, SocketType, Tick};

use super::connection_name::ConnectionName;
use super::guests::Answers;

/// The answer to `GET /connections`.
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
    /// The side that opened the connection: `guest` or `host`.
    pub(crate) initiator: String,
    /// `stream` or `seqpacket`.
    #[serde(rename = "type")]
    pub(crate) socket_type: String,
    /// The phase of the connection's life, such as `connected`.
    pub(crate) phase: String,
    /// Milliseconds since the connection was opened, not counting time in which the guest was
    /// paused.
    pub(crate) age_ms: u64,
    pub(crate) bytes_from_guest: u64,
    pub(crate) bytes_to_guest: u64,
    /// Bytes from the guest that the host has not taken yet.
    pub(crate) waiting: u64,
    /// Bytes sent to the guest that it has not consumed yet.
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

/// The body of an answer to a request that failed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failure {
    pub(crate) error: String,
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
                cid: info.key.host_cid.into(),
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

/// Converts the name of a variant to snake case: `GuestReset` becomes `guest_reset`.
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
    fn variant_names_become_snake_case() {
        assert_eq!(snake_case("MessageTooLong"), "message_too_long");
        assert_eq!(snake_case("Clean"), "clean");
    }
}
