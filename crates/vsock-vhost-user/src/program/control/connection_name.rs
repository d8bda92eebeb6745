// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The names of connections in output and requests.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use vsock_vhost_user::ConnectionId;

/// The name of a connection: the guest's CID, and the connection's number in that guest's device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ConnectionName {
    pub(crate) guest: u64,
    pub(crate) id: ConnectionId,
}

/// The error for a text that is not the name of a connection.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("expected CID-NUMBER, such as 3-17, from the list of connections")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_parsed_and_formatted() {
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
}
