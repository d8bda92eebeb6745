// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grammar of the command line.

use std::ffi::OsString;

xflags::xflags! {
    /// The tasks of this repository.
    cmd xtask {
        /// All that a change must pass. Runs every step, also after one has failed, and ends with
        /// a table.
        cmd ci {
            /// A step that was left out, for want of a tool, counts as failed.
            optional --strict
        }
        /// Formatting and clippy, for every crate with all of its features and with none.
        cmd lint {
            /// Formats, and applies what clippy can mend.
            optional --fix
        }
        /// All tests of the workspace, and the examples in the documentation.
        cmd test {}
        /// The rules of this repository that no common tool knows.
        cmd tidy {}
        /// Every interleaving of the lock-free parts, explored by loom.
        cmd model {
            /// Only the models whose name contains this.
            optional filter: String
            /// Preemptions of a thread that are explored (LOOM_MAX_PREEMPTIONS).
            optional --preemptions n: usize
            /// Branches per execution (LOOM_MAX_BRANCHES).
            optional --branches n: usize
            /// Seconds after which a model stops, unfinished (LOOM_MAX_DURATION).
            optional --seconds n: u64
        }
        /// The tests of unsafe code, and those in which somebody else's code panics, under valgrind.
        cmd memcheck {}
        /// All tests, and the lines of each crate that they reach; fails under a crate's floor.
        cmd cover {
            /// Writes a report to target/llvm-cov/html, line by line.
            optional --html
            /// Lists the lines that no test reaches.
            optional --missed
        }
        /// Licences, sources and versions of all that is built in, with cargo-deny.
        cmd deny {
            /// Asks the database of advisories too, which needs its server.
            optional --advisories
        }
        /// Random inputs for the fuzz targets.
        cmd fuzz {
            /// Only this target.
            optional target: String
            /// Seconds for each target.
            optional --seconds n: u64
            /// Where the random numbers begin.
            optional --seed n: u64
            /// By libFuzzer, which follows what an input reaches.
            optional --guided
        }
        /// The documentation of every crate, without a warning.
        cmd doc {}
        /// The main job: a file through the transport and back, with a table of figures.
        cmd demo {
            /// The file, and what else the demo understands.
            repeated args: OsString
        }
        /// A stock Linux guest under QEMU on our device: the guest suite.
        cmd guest {
            /// What the suite understands: `cargo xtask guest --help`.
            repeated args: OsString
        }
        /// The transport beside its peers, in one run.
        cmd bench {
            /// What the bench understands: `cargo xtask bench --help`.
            repeated args: OsString
        }
        /// Finds misspelled words, with typos.
        cmd spell {}
        /// Checks the workflows of the forge with actionlint.
        cmd workflows {}
        /// Installs what the other commands need, or says the line to run.
        cmd setup {}
        /// This text.
        cmd help {}
    }
}

/// What `cargo xtask help` prints.
pub(crate) const HELP: &str = "\
Usage: cargo xtask COMMAND

Before a change is sent
  ci [--strict]     All of setup, tidy, spell, workflows, deny, lint, test (as cover), fuzz (a replay), doc,
                    model, a short demo and the guest suite. Goes on after a failure and ends with a table.
                    A step whose tool cannot be had is left out; with --strict it fails.
  lint [--fix]      Formatting and clippy. --fix formats, and mends what clippy can.
  test              All tests of the workspace, and the examples in the documentation.
  tidy              The rules of this repository that no common tool knows.
  model [NAME]      Every interleaving of the lock-free parts, explored by loom; only the models
                    with NAME in their names. Deeper: --preemptions N, --branches N; shorter:
                    --seconds N for each.
  memcheck          The tests of unsafe code, and those in which somebody else's code panics in the middle of
                    a call, under valgrind: no memory is read that was not written. Not a part of ci.
  cover             All tests, and the share of lines that they reach, per crate; fails under a crate's
                    floor. --missed lists the lines that they do not reach, --html makes pages.
  deny              Licences, sources and versions of all that is built in. --advisories: those too, which
                    needs their server. Not a part of ci.
  fuzz [TARGET]     Random inputs for the fuzz targets (tests/fuzz), 30 s for each; --seconds N, --seed N.
                    An input that does harm is kept in tests/fuzz/corpus. --guided: by libFuzzer,
                    which follows what an input reaches (needs a compiler for C++).
  doc               The documentation of every crate, without a warning.
  spell             Misspelled words, found by typos.
  workflows         Checks the workflows of the forge with actionlint.

To see it at work
  demo [FILE]       The main job: a file through the transport and back, with a table of figures.
                    With --guest: to an echo service in a Linux guest and back.
  bench [ARGS]      The transport beside its peers, in one run. With --guest: our devices beside
                    vhost-device-vsock, with a Linux guest.
  guest [NAME]      A stock Linux guest under QEMU on our device: the guest suite, or the tests with
                    NAME in their names. --list shows them; --kernel 6.1, 6.12, 7 or all: on
                    other kernels than this system's.

Besides
  setup             Installs what the others need, where it may; else says the line to run.
  help              This text.

Examples
  cargo xtask demo some.iso
  cargo xtask model --preemptions 6 drop
  cargo xtask cover --html && xdg-open target/llvm-cov/html/index.html
  cargo xtask bench --help
  cargo xtask demo --guest some.iso
  cargo xtask guest 8000 --kernel all
  cargo test -p vsock-inner NAME        one test, without any xtask";

#[cfg(test)]
mod tests {
    use super::{HELP, Xtask};

    #[test]
    fn the_help_text_has_every_command() {
        let commands = Xtask::HELP_
            .lines()
            .filter_map(|line| line.strip_prefix("xtask "));
        let missing: Vec<_> = commands
            .filter(|name| !HELP.contains(&format!("\n  {name} ")))
            .collect();
        assert_eq!(missing, [""; 0]);
    }
}
