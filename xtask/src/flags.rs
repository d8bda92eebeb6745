// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grammar of the command line.

use std::ffi::OsString;

xflags::xflags! {
    /// Run a task of this repository.
    cmd xtask {
        /// Run everything that a change must pass: setup, tidy, spell, workflows, deny, unused,
        /// lint, the tests with coverage, the documentation, the public interface, models, a short
        /// demo, the guest suite and the package. Steps run side by side. The output of each step
        /// is printed when it ends; until then it is in target/ci. Continues after a failure and
        /// prints a table at the end. A step is left out if its tool is missing.
        cmd ci {
            /// Count a step that was left out as failed.
            optional --strict
            /// Run only this step.
            optional --step name: String
        }
        /// Check formatting, and run clippy on every crate with all of its features and with
        /// none.
        cmd lint {
            /// Format the code, and apply clippy's suggestions.
            optional --fix
        }
        /// Run all tests of the workspace, and the examples in the documentation.
        cmd test {}
        /// Check the rules of this repository that no common tool checks.
        cmd tidy {}
        /// Explore every interleaving of the lock-free code, with loom.
        cmd model {
            /// Run only the models whose name contains this.
            optional filter: String
            /// The number of preemptions of a thread to explore (LOOM_MAX_PREEMPTIONS).
            optional --preemptions n: usize
            /// The number of branches per execution (LOOM_MAX_BRANCHES).
            optional --branches n: usize
            /// The seconds after which a model stops unfinished (LOOM_MAX_DURATION).
            optional --seconds n: u64
        }
        /// Run the tests of unsafe code, and those in which an embedder's code panics, under
        /// valgrind, which finds reads of uninitialised memory. Not part of ci.
        cmd memcheck {}
        /// Build the workspace, and test its crates, with the oldest compiler that the manifests
        /// promise. Not part of ci.
        cmd msrv {}
        /// Run the tests that make no system calls under Miri, which finds undefined behaviour.
        /// Needs a nightly compiler. Not part of ci.
        cmd miri {}
        /// Run the tests of most published crates under a sanitizer. Needs a nightly compiler. Not
        /// part of ci.
        cmd sanitize {
            /// The sanitizer: address or thread.
            required sanitizer: String
        }
        /// Compile every published crate without features, and with each feature alone, which
        /// takes about three minutes. Not part of ci.
        cmd features {}
        /// Compile the published crates with the oldest versions of their dependencies that the
        /// manifests allow. Not part of ci.
        cmd minimal {}
        /// Make the packages for the registry and build them, without uploading them. ci only
        /// checks which files they contain.
        cmd publish {}
        /// Run all tests, and count the lines of each crate that they reach. Fails if a crate is
        /// below its minimum.
        cmd cover {
            /// Write a report to target/llvm-cov/html, line by line.
            optional --html
            /// List the lines that no test reaches.
            optional --missed
        }
        /// Check licences, sources and versions of all dependencies, with cargo-deny.
        cmd deny {
            /// Also check the database of advisories. Needs network access.
            optional --advisories
        }
        /// Run the fuzz targets on random inputs, 30 s each. An input that makes a target fail is
        /// kept in tests/fuzz/corpus.
        cmd fuzz {
            /// Run only this target.
            optional target: String
            /// The seconds for each target.
            optional --seconds n: u64
            /// The seed of the random numbers.
            optional --seed n: u64
            /// Use libFuzzer, which is guided by coverage.
            optional --guided
        }
        /// Build the documentation of every crate. A warning is an error.
        cmd doc {}
        /// Write the public interface of each crate to docs/api. ci compares the code with it.
        cmd api {}
        /// Send a file through the transport and back, and print a table of figures. With
        /// --guest: send it to an echo service in a Linux guest and back.
        cmd demo {
            /// The file and the options: `cargo xtask demo --help` lists them.
            repeated args: OsString
        }
        /// Run the guest suite: a stock Linux guest under QEMU on our device. With --kernel-tests:
        /// run Linux's own vsock tests between two guests.
        cmd guest {
            /// A part of a test's name, and options: `cargo xtask guest --help` lists them.
            repeated args: OsString
        }
        /// Test the documented command lines of vhost-device-vsock with that program, which is
        /// installed first, and with ours.
        cmd drop-in {}
        /// Build the Debian package of vsock-vhost-user in target/debian, install it into a
        /// directory, test it and remove it.
        cmd package {}
        /// Compare the transport with Unix sockets and others. With --guest: compare our devices
        /// with vhost-device-vsock, in a Linux guest. With --native: compare them without an
        /// emulator, with our own driver.
        cmd bench {
            /// The options of the bench: `cargo xtask bench --help` lists them.
            repeated args: OsString
        }
        /// Find misspelled words, with typos.
        cmd spell {}
        /// Find dependencies that no source uses, with cargo-shear.
        cmd unused {}
        /// Check the CI workflows, with actionlint and zizmor.
        cmd workflows {}
        /// Install the tools that the other commands need, or print the command to run.
        cmd setup {}
        /// Print this text.
        cmd help {}
    }
}

/// What `cargo xtask help` prints.
pub(crate) const HELP: &str = Xtask::HELP_;
