// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grammar of the command line.

use std::ffi::OsString;

xflags::xflags! {
    /// The tasks of this repository.
    cmd xtask {
        /// Everything that a change must pass: setup, tidy, spell, workflows, deny, unused, lint,
        /// the tests under coverage, a replay of the fuzz targets, the documentation, the public
        /// interface, models, a short demo, the guest suite and the package. Steps run side by
        /// side; the output of each is shown when it ends, and until then is in target/ci.
        /// Continues after a failure and ends with a table. A step is left out if its tool is not
        /// available.
        cmd ci {
            /// Counts a step that was left out as failed.
            optional --strict
            /// Runs only this step.
            optional --step name: String
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
        /// The tests of unsafe code, and those in which an embedder's code panics, under valgrind:
        /// no memory is read that was not written. Not a part of ci.
        cmd memcheck {}
        /// The workspace built, and its crates tested, with the oldest compiler that the manifests
        /// promise. Not a part of ci.
        cmd msrv {}
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
        /// Random inputs for the fuzz targets, 30 s for each. An input that does harm is kept in
        /// tests/fuzz/corpus.
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
        /// Writes the public interface of each crate to docs/api. ci compares.
        cmd api {}
        /// The main job: a file through the transport and back, with a table of figures. With
        /// --guest: to an echo service in a Linux guest and back.
        cmd demo {
            /// The file, and what else the demo understands: `cargo xtask demo --help`.
            repeated args: OsString
        }
        /// A stock Linux guest under QEMU on our device: the guest suite. With --kernel-tests:
        /// Linux's own tests of vsock between two guests.
        cmd guest {
            /// A part of a test's name, --list, --kernel all, and what else the suite understands:
            /// `cargo xtask guest --help`.
            repeated args: OsString
        }
        /// The documented command lines of vhost-device-vsock, tried with that program, which it
        /// installs, and with ours.
        cmd drop-in {}
        /// Debian's package of vsock-vhost-user, in target/debian: built, then installed below a
        /// directory, tried and removed.
        cmd package {}
        /// The transport compared with its peers, in one run. With --guest: our devices compared
        /// with vhost-device-vsock, with a Linux guest. With --native: the same without an
        /// emulator, under a driver of our own.
        cmd bench {
            /// What the bench understands: `cargo xtask bench --help`.
            repeated args: OsString
        }
        /// Finds misspelled words, with typos.
        cmd spell {}
        /// Finds dependencies that no source uses, with cargo-shear.
        cmd unused {}
        /// Checks the workflows of the forge with actionlint and zizmor.
        cmd workflows {}
        /// Installs what the other commands need, or says the line to run.
        cmd setup {}
        /// This text.
        cmd help {}
    }
}

/// What `cargo xtask help` prints.
pub(crate) const HELP: &str = Xtask::HELP_;
