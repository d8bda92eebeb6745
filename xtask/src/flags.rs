// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grammar of the command line.

use std::ffi::OsString;

xflags::xflags! {
    /// The tasks of this repository.
    cmd xtask {
        /// Runs everything that a change must pass: setup, tidy, spell, workflows, deny, unused,
        /// lint, the tests under coverage, a replay of the fuzz targets, the documentation, the
        /// public interface, models, a short demo, the guest suite and the package. Steps run side
        /// by side; the output of each is shown when it ends, and until then is in target/ci.
        /// Continues after a failure and ends with a table. A step is left out if its tool is not
        /// available.
        cmd ci {
            /// Counts a step that was left out as failed.
            optional --strict
            /// Runs only this step.
            optional --step name: String
        }
        /// Checks formatting, and runs clippy on every crate with all of its features and with
        /// none.
        cmd lint {
            /// Formats the code, and applies clippy's suggestions.
            optional --fix
        }
        /// Runs all tests of the workspace, and the examples in the documentation.
        cmd test {}
        /// Checks the rules of this repository that no common tool checks.
        cmd tidy {}
        /// Explores every interleaving of the lock-free code, with loom.
        cmd model {
            /// Only the models whose name contains this.
            optional filter: String
            /// The number of preemptions of a thread to explore (LOOM_MAX_PREEMPTIONS).
            optional --preemptions n: usize
            /// The number of branches per execution (LOOM_MAX_BRANCHES).
            optional --branches n: usize
            /// The seconds after which a model stops unfinished (LOOM_MAX_DURATION).
            optional --seconds n: u64
        }
        /// Runs the tests of unsafe code, and those in which an embedder's code panics, under
        /// valgrind, which finds reads of uninitialised memory. Not part of ci.
        cmd memcheck {}
        /// Builds the workspace, and tests its crates, with the oldest compiler that the manifests
        /// promise. Not part of ci.
        cmd msrv {}
        /// Runs the tests that need no system under Miri, which finds undefined behaviour. Needs a
        /// nightly compiler. Not part of ci.
        cmd miri {}
        /// Runs the tests of the published crates under a sanitizer. Needs a nightly compiler. Not
        /// part of ci.
        cmd sanitize {
            /// The sanitizer: address or thread.
            required sanitizer: String
        }
        /// Compiles every published crate without features, and with each feature alone, which
        /// takes about three minutes. Not part of ci.
        cmd features {}
        /// Compiles the published crates with the oldest versions of their dependencies that the
        /// manifests allow. Not part of ci.
        cmd minimal {}
        /// Makes the packages for the registry and builds them. Uploads nothing. ci only checks
        /// which files they contain.
        cmd publish {}
        /// Runs all tests, and counts the lines of each crate that they reach. Fails if a crate is
        /// under its floor.
        cmd cover {
            /// Writes a report to target/llvm-cov/html, line by line.
            optional --html
            /// Lists the lines that no test reaches.
            optional --missed
        }
        /// Checks licences, sources and versions of all dependencies, with cargo-deny.
        cmd deny {
            /// Checks the database of advisories too, which needs network access.
            optional --advisories
        }
        /// Runs the fuzz targets on random inputs, 30 s each. An input that makes a target fail is
        /// kept in tests/fuzz/corpus.
        cmd fuzz {
            /// Only this target.
            optional target: String
            /// The seconds for each target.
            optional --seconds n: u64
            /// The seed of the random numbers.
            optional --seed n: u64
            /// Uses libFuzzer, which is guided by coverage.
            optional --guided
        }
        /// Builds the documentation of every crate. A warning is an error.
        cmd doc {}
        /// Writes the public interface of each crate to docs/api. ci compares the two.
        cmd api {}
        /// Sends a file through the transport and back, and prints a table of figures. With
        /// --guest: sends it to an echo service in a Linux guest and back.
        cmd demo {
            /// The file, and other options: `cargo xtask demo --help` lists them.
            repeated args: OsString
        }
        /// Runs the guest suite: a stock Linux guest under QEMU on our device. With --kernel-tests:
        /// runs Linux's own vsock tests between two guests.
        cmd guest {
            /// A part of a test's name, --list, --kernel all, and other options: `cargo xtask guest
            /// --help` lists them.
            repeated args: OsString
        }
        /// Tries the documented command lines of vhost-device-vsock with that program, which it
        /// installs, and with ours.
        cmd drop-in {}
        /// Builds the Debian package of vsock-vhost-user in target/debian, installs it into a
        /// directory, tries it and removes it.
        cmd package {}
        /// Compares the transport with Unix sockets and others. With --guest: compares our devices
        /// with vhost-device-vsock, with a Linux guest. With --native: does so without an emulator,
        /// with our own driver.
        cmd bench {
            /// The options of the bench: `cargo xtask bench --help` lists them.
            repeated args: OsString
        }
        /// Finds misspelled words, with typos.
        cmd spell {}
        /// Finds dependencies that no source uses, with cargo-shear.
        cmd unused {}
        /// Checks the CI workflows, with actionlint and zizmor.
        cmd workflows {}
        /// Installs what the other commands need, or prints the line to run.
        cmd setup {}
        /// Prints this text.
        cmd help {}
    }
}

/// What `cargo xtask help` prints.
pub(crate) const HELP: &str = Xtask::HELP_;
