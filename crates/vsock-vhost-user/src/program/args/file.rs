// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration file: a YAML list of virtual machines, each with the keys of `--vm`.
//!
//! The file is read as a stream of parser events. Values are never deeper than a list inside a
//! virtual machine, so neither deep nesting nor aliases can use up the stack or memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};
use thiserror::Error;

use super::vm::{KeysError, VmArgs};

/// The maximum length of a configuration file, in bytes.
const LIMIT: u64 = 1 << 20;

/// An error in a configuration file.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    #[error("cannot read the file; expected YAML")]
    Read(#[source] io::Error),
    #[error("the file is longer than 1 MiB; expected a list of virtual machines")]
    TooLong,
    #[error("line {0}: invalid YAML: {1}")]
    Yaml(usize, String),
    #[error("line {0}: expected {1}")]
    Expected(usize, &'static str),
    #[error("line {0}")]
    Keys(usize, #[source] KeysError),
}

/// Reads the virtual machines of a file.
pub(super) fn read(path: &Path) -> Result<Vec<VmArgs>, FileError> {
    let mut text = String::new();
    let file = File::open(path).map_err(FileError::Read)?;
    let read = file.take(LIMIT + 1).read_to_string(&mut text);
    read.map_err(FileError::Read)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > LIMIT) {
        return Err(FileError::TooLong);
    }
    Reader(Parser::new_from_str(&text)).file()
}

/// A reader of the parser's events, which accepts the one structure that is allowed.
struct Reader<'a>(Parser<'a, StrInput<'a>>);

/// An event and its line.
struct Next<'a> {
    line: usize,
    event: Event<'a>,
}

impl Next<'_> {
    fn expected<T>(&self, what: &'static str) -> Result<T, FileError> {
        Err(FileError::Expected(self.line, what))
    }
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Next<'a>, FileError> {
        let not_yaml =
            |error: ScanError| FileError::Yaml(error.marker().line(), error.info().to_owned());
        let next = self.0.next().transpose().map_err(not_yaml)?;
        Ok(next.map_or(
            Next {
                line: 0,
                event: Event::StreamEnd,
            },
            |(event, span)| Next {
                line: span.start.line(),
                event,
            },
        ))
    }

    fn file(mut self) -> Result<Vec<VmArgs>, FileError> {
        const VMS: &str = "`vms:` with a list of virtual machines and nothing else";
        // The start of the document, which may follow directives.
        let mut next = self.next()?;
        while matches!(next.event, Event::StreamStart | Event::DocumentStart(_)) {
            next = self.next()?;
        }
        let Event::MappingStart(..) = next.event else {
            return next.expected(VMS);
        };
        let next = self.next()?;
        if !matches!(&next.event, Event::Scalar(key, ..) if key == "vms") {
            return next.expected(VMS);
        }
        let next = self.next()?;
        let Event::SequenceStart(..) = next.event else {
            return next.expected("a list of virtual machines, each after a `-`");
        };
        let mut vms = Vec::new();
        loop {
            let next = self.next()?;
            match next.event {
                Event::MappingStart(..) => vms.push(self.vm(next.line)?),
                Event::SequenceEnd => break,
                _ => return next.expected("a virtual machine, with one KEY: VALUE per line"),
            }
        }
        // Nothing may follow the list: no other key, and no other document.
        for end in [Event::MappingEnd, Event::DocumentEnd, Event::StreamEnd] {
            let next = self.next()?;
            if next.event != end {
                return next.expected(VMS);
            }
        }
        Ok(vms)
    }

    /// Reads the rest of a virtual machine that begins on this line.
    fn vm(&mut self, line: usize) -> Result<VmArgs, FileError> {
        let mut pairs = Vec::new();
        loop {
            let next = self.next()?;
            let key = match next.event {
                Event::MappingEnd => break,
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return next.expected("a key, such as guest_cid"),
            };
            for value in self.values()? {
                // A quoted value can contain one, and no path can.
                if value.contains('\0') {
                    return Err(FileError::Expected(
                        next.line,
                        "a value without a NUL character",
                    ));
                }
                pairs.push((key.clone(), value));
            }
        }
        VmArgs::of_pairs(&pairs).map_err(|error| FileError::Keys(line, error))
    }

    /// Reads the value of a key, or the values of a list. A null value counts as none.
    fn values(&mut self) -> Result<Vec<String>, FileError> {
        const VALUE: &str = "a value, or a list of values";
        let next = self.next()?;
        match next.event {
            Event::Scalar(text, ScalarStyle::Plain, ..) if is_null(&text) => return Ok(Vec::new()),
            Event::Scalar(text, ..) => return Ok(vec![text.into_owned()]),
            Event::SequenceStart(..) => {}
            _ => return next.expected(VALUE),
        }
        let mut values = Vec::new();
        loop {
            let next = self.next()?;
            match next.event {
                Event::SequenceEnd => return Ok(values),
                Event::Scalar(text, ..) => values.push(text.into_owned()),
                _ => return next.expected(VALUE),
            }
        }
    }
}

/// Returns whether a plain scalar is null (YAML 1.2.2, 10.2.1.1).
fn is_null(text: &str) -> bool {
    ["", "~", "null", "Null", "NULL"].contains(&text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::program::error::with_causes;

    /// Reads a file with these bytes; returns its virtual machines or the error's text.
    fn read_bytes(bytes: &[u8]) -> Result<Vec<VmArgs>, String> {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        read(file.path()).map_err(|error| with_causes(&error))
    }

    fn keys(text: &str) -> VmArgs {
        VmArgs::of_keys(text).unwrap()
    }

    #[test]
    fn each_entry_is_a_virtual_machine_with_the_keys_of_an_option() {
        let text = "\
%YAML 1.2
---
# Two guests.
vms:
    - guest_cid: 4
      socket: \"/tmp/a b\"
      uds-path: '/tmp/u'
      tx_buffer_size: 64KiB
      groups: a+b
      forward: [5=unix:/s, 6=tcp:127.0.0.1:7]
      no_connect: true
    - { socket: /t, uds_path: /v, groups: , queue_size: null, expose: [] }
...
";
        let first = "guest-cid=4,socket=/tmp/a b,uds-path=/tmp/u,buf-alloc=65536,groups=a+b,\
                     forward=5=unix:/s,forward=6=tcp:127.0.0.1:7,no-connect=true";
        let expected = [keys(first), keys("socket=/t,uds-path=/v")];
        assert_eq!(read_bytes(text.as_bytes()).unwrap(), expected);
        assert_eq!(read_bytes(b"vms: []").unwrap(), []);
    }

    #[test]
    fn an_error_names_the_line() {
        for (text, expected) in [
            ("", "line 1: expected `vms:`"),
            ("- a", "line 1: expected `vms:`"),
            ("vm:\n- a: b", "line 1: expected `vms:`"),
            ("vms:", "line 1: expected a list"),
            ("vms:\n  a: b", "line 2: expected a list"),
            ("vms:\n- a", "line 2: expected a virtual machine"),
            ("vms:\n- - a", "line 2: expected a virtual machine"),
            ("vms:\n- [a]: b", "line 2: expected a key"),
            ("vms:\n- socket: {a: b}", "line 2: expected a value"),
            ("vms:\n- groups: [a, [b]]", "line 2: expected a value"),
            (
                "vms:\n- &x {socket: /a}\n- *x",
                "line 3: expected a virtual machine",
            ),
            (
                "vms:\n- socket: /s\n\n- cid: 4",
                "line 4: unknown key \"cid\"",
            ),
            (
                "vms:\n- queue_size: 5",
                "line 2: invalid value '5' for '--queue-size <N>'",
            ),
            (
                "vms:\n- socket: /s\n  socket: /t",
                "line 2: the argument '--socket <PATH>' cannot",
            ),
            (
                "vms:\n- socket: /s\n  uds_path: \"/a\\0b\"",
                "line 3: expected a value without a NUL",
            ),
            ("vms: []\nmore: []", "line 2: expected `vms:`"),
            ("vms: []\n---\nvms: []", "line 2: expected `vms:`"),
            ("vms:\n- socket: \"/s", ": invalid YAML: "),
            ("vms:\n\t- a", "line 2: invalid YAML: "),
        ] {
            let said = read_bytes(text.as_bytes()).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
        let said = read_bytes(b"vms: \xff").unwrap_err();
        assert!(said.contains("UTF-8"), "{said}");
    }

    #[test]
    fn a_file_that_is_large_or_deep_is_refused() {
        let long = vec![b'#'; 2 << 20];
        assert!(read_bytes(&long).unwrap_err().contains("1 MiB"));
        for nesting in ["- ", "[", "? ", "{a: "] {
            let deep = nesting.repeat(100_000);
            for text in [format!("vms:\n- a: {deep}"), deep] {
                let refused = read_bytes(text.as_bytes()).unwrap_err();
                assert!(refused.starts_with("line "), "{refused}");
            }
        }
    }
}
