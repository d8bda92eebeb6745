// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The values of `--forward` and `--expose`.

use std::str::FromStr;

use thiserror::Error;
use vsock_vhost_user::{ExposedAt, ExposedAtError, ForwardTarget, ForwardTargetError};

/// A target for the guest's connections to a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Forward {
    pub(crate) port: u32,
    pub(crate) target: ForwardTarget,
}

/// An address at which a port of the guest is exposed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Expose {
    pub(crate) at: ExposedAt,
    pub(crate) port: u32,
}

/// The error for an invalid value.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum RouteError {
    #[error("expected PORT=TARGET, such as 5432=unix:/run/db.sock")]
    NoTarget,
    #[error("expected ADDRESS=PORT, such as tcp:127.0.0.1:2222=22")]
    NoPort,
    #[error("expected a port from 0 to 4294967294")]
    Port,
    #[error(transparent)]
    Target(#[from] ForwardTargetError),
    #[error(transparent)]
    Address(#[from] ExposedAtError),
}

impl FromStr for Forward {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let (port, target) = text.split_once('=').ok_or(RouteError::NoTarget)?;
        Ok(Self {
            port: parse_port(port)?,
            target: target.parse()?,
        })
    }
}

impl FromStr for Expose {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        // A path can contain `=` and a port cannot, so the last one separates the two.
        let (at, port) = text.rsplit_once('=').ok_or(RouteError::NoPort)?;
        Ok(Self {
            at: at.parse()?,
            port: parse_port(port)?,
        })
    }
}

/// Parses a port. `VMADDR_PORT_ANY` is not a port.
pub(super) fn parse_port(text: &str) -> Result<u32, RouteError> {
    let port = text.parse().ok();
    port.filter(|port| *port != u32::MAX)
        .ok_or(RouteError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_port_and_an_address() {
        let forward: Forward = "5432=unix:/run/a=b".parse().unwrap();
        assert_eq!(
            (forward.port, forward.target.to_string()),
            (5432, "unix:/run/a=b".to_owned())
        );
        let expose: Expose = "unix:/run/a=b=22".parse().unwrap();
        assert_eq!(
            (expose.at.to_string(), expose.port),
            ("unix:/run/a=b".to_owned(), 22)
        );
    }

    #[test]
    fn the_error_for_an_invalid_route_says_what_was_expected() {
        for (text, error) in [
            ("5432", RouteError::NoTarget),
            ("unix:/a=5", RouteError::Port),
            ("4294967295=unix:/a", RouteError::Port),
            ("-1=unix:/a", RouteError::Port),
            ("1=/a", ForwardTargetError::Kind.into()),
        ] {
            assert_eq!(text.parse::<Forward>(), Err(error), "{text}");
        }
        for (text, error) in [
            ("unix:/a", RouteError::NoPort),
            ("unix:/a=", RouteError::Port),
            ("unix:/a=4294967295", RouteError::Port),
            ("22=unix:/a", ExposedAtError.into()),
        ] {
            assert_eq!(text.parse::<Expose>(), Err(error), "{text}");
        }
    }
}
