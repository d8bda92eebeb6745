// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command with which a client passes a descriptor: `passfd\n`, then `PORT` or `PORT keep`
//! together with the descriptor.

use thiserror::Error;

/// The first line of a client that passes a descriptor, in upper or lower case.
pub(super) const KEYWORD: &[u8] = b"passfd\n";

/// The maximum length of the rest of the command, including its newline.
pub(super) const REST: usize = 32;

/// Whether the stream continues after the other end of a pipe is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Keep {
    /// The stream ends.
    No,
    /// The stream waits until another process opens that end.
    Yes,
}

/// The meaning of a client's first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opening {
    /// The beginning of the keyword.
    Part,
    /// The whole keyword.
    Keyword,
    /// Something else, such as `CONNECT`.
    Other,
}

/// A client's request for its descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Command {
    pub(super) port: u32,
    pub(super) keep: Keep,
}

/// The error for an invalid command.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "expected a port from 0 to 4294967294, optionally followed by \"keep\", on a line of at most \
     32 bytes"
)]
pub(super) struct CommandError;

impl Opening {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let len = bytes.len().min(KEYWORD.len());
        let (said, keyword) = (bytes.split_at(len).0, KEYWORD.split_at(len).0);
        match said.eq_ignore_ascii_case(keyword) {
            false => Self::Other,
            true if len < KEYWORD.len() => Self::Part,
            true => Self::Keyword,
        }
    }
}

impl Command {
    /// Parses the text after the keyword. The newline is optional, because the descriptor arrives
    /// with the last bytes anyway and Kata's runtime sends no newline.
    pub(super) fn parse(text: &[u8]) -> Result<Self, CommandError> {
        let text = std::str::from_utf8(text).map_err(|_| CommandError)?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains(['\n', '\r']) {
            return Err(CommandError);
        }
        let mut words = line.split_ascii_whitespace();
        let port = words.next().ok_or(CommandError)?;
        let keep = match words.next() {
            None => Keep::No,
            Some("keep") => Keep::Yes,
            Some(_) => return Err(CommandError),
        };
        if words.next().is_some() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CommandError);
        }
        match port.parse() {
            Ok(port) if port != u32::MAX => Ok(Self { port, keep }),
            _ => Err(CommandError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_show_whether_the_keyword_can_follow() {
        for (bytes, opening) in [
            (&b""[..], Opening::Part),
            (b"pass", Opening::Part),
            (b"PassFd\n", Opening::Keyword),
            (b"passfd\n52", Opening::Keyword),
            (b"passfd ", Opening::Other),
            (b"C", Opening::Other),
        ] {
            assert_eq!(Opening::of(bytes), opening, "{bytes:?}");
        }
    }

    #[test]
    fn a_command_has_a_port_and_optionally_keep_and_a_newline() {
        for (text, port, keep) in [
            ("52", 52, Keep::No),
            ("52\n", 52, Keep::No),
            ("52 keep", 52, Keep::Yes),
            ("4294967294  keep\r\n", u32::MAX - 1, Keep::Yes),
        ] {
            assert_eq!(Command::parse(text.as_bytes()), Ok(Command { port, keep }));
        }
        for text in [
            "",
            "\n",
            "keep",
            "+52",
            "-1",
            "4294967295",
            "52 keeps",
            "52 keep 1",
            "52\n52",
            "52\n\n",
            "5 2",
        ] {
            assert_eq!(
                Command::parse(text.as_bytes()),
                Err(CommandError),
                "{text:?}"
            );
        }
        assert_eq!(Command::parse(b"52\xff"), Err(CommandError));
    }
}
