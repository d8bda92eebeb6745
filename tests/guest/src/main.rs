// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stock Linux guest under QEMU talks to a device of ours: the suite that the device must pass.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

mod bench;
mod bytes;
mod demo;
mod emulator;
mod ends;
mod guest;
mod image;
mod kernel;
mod kernel_tests;
mod machine;
mod monitor;
mod packages;
mod processes;
mod qemu;
mod sshd;
mod suite;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vsock_guest::{child, device, place, tool, usage};

use crate::device::Kind;
use crate::image::Image;
use crate::kernel::{Version, VsockTest};
use crate::machine::Parts;
use crate::place::Place;
use crate::qemu::Accelerator;
use crate::tool::Missing;

/// What a program answers that could not run for want of something: as automake has it.
const LEFT_OUT: u8 = 77;

/// Boots a stock Linux guest on a device, and tries it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask guest")]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// What runs the guest's instructions.
    #[arg(long, global = true, value_enum, default_value_t)]
    accelerator: Accelerator,
    /// Takes our device's program from this directory instead of building it.
    #[arg(long, global = true, value_name = "DIRECTORY")]
    programs: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The guest suite.
    Suite(Suite),
    /// A file goes to an echo service in the guest and comes back.
    Demo {
        /// The file; 64 MiB of random bytes if none is named.
        file: Option<PathBuf>,
        /// How often it goes each way.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// The device that it goes through.
        #[arg(long, value_enum, default_value = "ours")]
        device: Kind,
    },
    /// Fetches the kernel, and builds what the guest runs.
    Prepare,
    /// Installs the peer.
    Peer,
    /// Our devices beside the peer.
    Bench {
        /// Only the workloads whose names contain this.
        #[arg(default_value = "")]
        filter: String,
        /// How often each device does each workload.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// The devices; all of them if none is named.
        #[arg(long, value_enum)]
        device: Vec<Kind>,
    },
}

/// What is tested, on what.
#[derive(Debug, clap::Args)]
struct Suite {
    /// Only the tests whose names contain this.
    #[arg(default_value = "")]
    filter: String,
    /// Leaves out the tests whose names contain this. May be repeated.
    #[arg(long, value_name = "PART", conflicts_with = "kernel_tests")]
    skip: Vec<String>,
    /// Linux's own tests of vsock (`vsock_test`), between two guests, in place of ours. The kernel
    /// is that of Debian's backports if none is named.
    #[arg(long, conflicts_with = "list")]
    kernel_tests: bool,
    /// The devices that are tested; both of ours if none is named.
    #[arg(long, value_enum)]
    device: Vec<Kind>,
    /// The kernels that the guest boots, each of them in turn.
    #[arg(long, value_enum)]
    kernel: Vec<Version>,
    /// Debian's archive, where this machine's own sources name none: as `http://HOST/debian`.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Shows the names of the tests and runs none.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guest: {error:#}");
            if error.is::<Missing>() {
                ExitCode::from(LEFT_OUT)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let place = Place::new()?.with_programs(args.programs.clone());
    raise_descriptor_limit()?;
    match &args.command {
        Command::Suite(suite) => suite.run(&place, args.accelerator),
        Command::Demo {
            file,
            rounds,
            device,
        } => {
            let image = Image::prepare(&place, Version::default(), None)?;
            let parts = Parts::prepare(&place, *device, &image, args.accelerator)?;
            demo::run(&parts, file.as_deref(), *rounds)?;
            Ok(true)
        }
        Command::Prepare => {
            Image::prepare(&place, Version::default(), None)?;
            Ok(true)
        }
        Command::Peer => {
            device::daemon::program(Kind::Peer, &place)?;
            Ok(true)
        }
        Command::Bench {
            filter,
            rounds,
            device,
        } => {
            let image = Image::prepare(&place, Version::default(), None)?;
            let parts = named(device, &Kind::MEASURED)
                .iter()
                .map(|kind| Parts::prepare(&place, *kind, &image, args.accelerator))
                .collect::<anyhow::Result<Vec<Parts>>>()?;
            bench::run(&place, &parts, *rounds, filter)?;
            Ok(true)
        }
    }
}

impl Suite {
    /// Runs what was asked for; says whether nothing has failed.
    fn run(&self, place: &Place, accelerator: Accelerator) -> anyhow::Result<bool> {
        if self.list {
            let tests = suite::tests();
            tests.iter().for_each(|test| println!("{}", test.name));
            return Ok(true);
        }
        let mirror = self.mirror.as_deref();
        if !self.kernel_tests {
            let prepare = |version| Image::prepare(place, version, mirror);
            let images = images(&self.kernel, prepare)?;
            return self.each(place, &images, accelerator, |parts| {
                suite::run(parts, &self.filter, &self.skip)
            });
        }
        let tests = VsockTest::prepare(place, mirror)?;
        let kernels = named(&self.kernel, &[Version::NEWEST]);
        let prepare = |version| Image::of_kernel_tests(place, version, mirror, &tests);
        let images = images(kernels, prepare)?;
        self.each(place, &images, accelerator, |parts| {
            kernel_tests::run(parts, &tests, &self.filter)
        })
    }

    /// On every kernel and every device in turn.
    fn each(
        &self,
        place: &Place,
        images: &[Image],
        accelerator: Accelerator,
        run: impl Fn(&Parts) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let mut passed = true;
        for image in images {
            for kind in named(&self.device, &[Kind::Ours, Kind::InProcess]) {
                passed &= run(&Parts::prepare(place, *kind, image, accelerator)?)?;
            }
        }
        Ok(passed)
    }
}

/// What the guests boot from. If all kernels are asked for, one that cannot be had is left out and
/// said.
fn images(
    kernels: &[Version],
    prepare: impl Fn(Version) -> anyhow::Result<Image>,
) -> anyhow::Result<Vec<Image>> {
    let mut images = Vec::new();
    let mut missing = None;
    for version in Version::chosen(kernels) {
        match prepare(version) {
            Ok(image) => images.push(image),
            Err(error) if kernels.contains(&Version::All) && error.is::<Missing>() => {
                eprintln!("guest: kernel {} is left out: {error:#}", version.name());
                missing = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if images.is_empty() => Err(error),
        _ => Ok(images),
    }
}

/// What the user has named, else what is usual.
fn named<'a, T>(named: &'a [T], usual: &'a [T]) -> &'a [T] {
    if named.is_empty() { usual } else { named }
}

/// For 8,000 connections, here and in the device, which inherits the limit.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of descriptors")
}
