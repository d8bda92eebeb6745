// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the program runs: who may connect to its sockets, and what it may do itself.

use clap::{Args as ClapArgs, ValueEnum};
use nix::unistd::Group;
use thiserror::Error;
use vsock_vhost_user::SocketAccess;

/// The options of the program as a service.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct OperationArgs {
    /// The permissions of every socket that the program makes, in octal as 0660: to connect, a
    /// process must be allowed to write. Without it they are 0777 less the umask
    #[arg(long, value_name = "MODE", value_parser = mode)]
    socket_mode: Option<u32>,

    /// The group of every socket that the program makes, by name or number. Without it, it is the
    /// program's own
    #[arg(long, value_name = "GROUP", value_parser = group)]
    socket_group: Option<u32>,

    /// What becomes of system calls and files that the program does not need once it serves: with
    /// enforce a system call kills it and files cannot be opened, with log the kernel logs the
    /// system calls, with off nothing is confined
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub(crate) sandbox: SandboxMode,
}

/// How the program is confined.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum SandboxMode {
    Off,
    Log,
    #[default]
    Enforce,
}

/// What is wrong with a mode.
#[derive(Debug, Error)]
#[error("expected an octal number from 0 to 0777, as 0660")]
struct ModeError;

/// What is wrong with a group.
#[derive(Debug, Error)]
enum GroupError {
    #[error("no group has this name: expected one of /etc/group, or a number")]
    Unknown,
    #[error("cannot look up the group")]
    Failed(#[source] nix::Error),
}

impl OperationArgs {
    /// Who may connect to a socket.
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
            // The largest number means no group.
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
