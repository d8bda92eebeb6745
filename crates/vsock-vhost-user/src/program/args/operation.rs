// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options for the program as a service: who can connect to its sockets, and how it confines
//! itself.

use clap::{Args as ClapArgs, ValueEnum};
use nix::unistd::Group;
use thiserror::Error;
use vsock_vhost_user::SocketAccess;

/// Options for the program as a service.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct OperationArgs {
    /// The permissions of the sockets that the program creates, in octal, such as 0660 [default:
    /// 0777 less the umask]
    ///
    /// A process needs write permission to connect.
    #[arg(long, value_name = "MODE", value_parser = mode)]
    socket_mode: Option<u32>,

    /// The group of the sockets that the program creates, by name or number [default: the
    /// program's own group]
    #[arg(long, value_name = "GROUP", value_parser = group)]
    socket_group: Option<u32>,

    /// Confine the program to the system calls and files that it needs while it serves guests
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub(crate) sandbox: SandboxMode,
}

/// The way in which the program is confined.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum SandboxMode {
    /// Do not confine the program
    Off,
    /// Let the kernel log the system calls that would be forbidden
    Log,
    /// Kill the program if it makes a forbidden system call, and deny access to other files
    #[default]
    Enforce,
}

/// The error for an invalid mode.
#[derive(Debug, Error)]
#[error("expected an octal number from 0 to 0777, such as 0660")]
struct ModeError;

/// The error for an invalid group.
#[derive(Debug, Error)]
enum GroupError {
    #[error("no such group: expected a name from /etc/group, or a number")]
    Unknown,
    #[error("cannot look up the group")]
    Failed(#[source] nix::Error),
}

impl OperationArgs {
    /// Returns the permissions and the group of the program's sockets.
    pub(crate) fn access(&self) -> SocketAccess {
        let mut access = SocketAccess::default();
        if let Some(mode) = self.socket_mode {
            access = access.mode(mode);
        }
        if let Some(group) = self.socket_group {
            access = access.group(group);
        }
        access
    }
}

fn mode(text: &str) -> Result<u32, ModeError> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = digits.bytes().all(|digit| digit.is_ascii_digit());
    let mode = u32::from_str_radix(digits, 8).ok();
    mode.filter(|mode| is_octal && *mode <= 0o777)
        .ok_or(ModeError)
}

fn group(text: &str) -> Result<u32, GroupError> {
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        found => match (text.parse(), found) {
            // `chown` takes the largest number as "no group".
            (Ok(number), _) if number != u32::MAX => Ok(number),
            (_, Err(error)) => Err(GroupError::Failed(error)),
            _ => Err(GroupError::Unknown),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal() {
        for (text, expected) in [("0660", 0o660), ("660", 0o660), ("0o600", 0o600), ("0", 0)] {
            assert_eq!(mode(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "rw",
            "0680",
            "1777",
            "-1",
            "+7",
            "0x1ff",
            "77777777777777",
        ] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_group_has_a_name_or_a_number() {
        assert_eq!(group("root").unwrap(), 0);
        assert_eq!(group("12345").unwrap(), 12345);
        for text in ["", "no such group", "-1", "4294967295", "4294967296"] {
            assert!(group(text).is_err(), "{text}");
        }
    }
}
