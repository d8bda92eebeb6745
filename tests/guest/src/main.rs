// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Boots a stock Linux guest under QEMU on one of our devices, and runs the guest suite, the demo
//! or the benchmarks against it.

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

/// The exit status of a run that lacks a prerequisite. automake uses the same number for a skipped
/// test.
const LEFT_OUT: u8 = 77;

/// Boot a stock Linux guest on a device and test the device
#[derive(Debug, Parser)]
#[command(name = "cargo xtask guest")]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// The accelerator that executes the guest's instructions
    #[arg(long, global = true, value_enum, default_value_t)]
    accelerator: Accelerator,
    /// The directory that contains our device's program and the guest's [default: build them]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    programs: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the guest suite
    #[command(override_usage = "cargo xtask guest [OPTIONS] [FILTER]")]
    Suite(Suite),
    /// Send a file to an echo service in the guest and back
    #[command(override_usage = "cargo xtask demo --guest [OPTIONS] [FILE]")]
    Demo {
        /// The file to send [default: 64 MiB of random bytes]
        file: Option<PathBuf>,
        /// How many times the file goes each way
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// The device that carries the file
        #[arg(long, value_enum, default_value = "ours")]
        device: Kind,
    },
    /// Download the kernel and build the guest's programs
    Prepare,
    /// Install vhost-device-vsock, with which the benchmarks compare our devices
    Peer,
    /// Compare our devices with vhost-device-vsock
    #[command(override_usage = "cargo xtask bench --guest [OPTIONS] [FILTER]")]
    Bench {
        /// Run only the workloads whose names contain this text
        #[arg(default_value = "")]
        filter: String,
        /// How many times each device runs each workload
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// The devices to measure [default: all]
        #[arg(long, value_enum)]
        device: Vec<Kind>,
    },
}

/// The tests, the devices and the kernels of a run.
#[derive(Debug, clap::Args)]
struct Suite {
    /// Run only the tests whose names contain this text
    #[arg(default_value = "")]
    filter: String,
    /// Skip the tests whose names contain this text (repeatable)
    #[arg(long, value_name = "PART", conflicts_with = "kernel_tests")]
    skip: Vec<String>,
    /// Run Linux's own vsock tests (`vsock_test`) between two guests instead of our suite, on
    /// Debian's backports kernel unless `--kernel` names another
    #[arg(long, conflicts_with = "list")]
    kernel_tests: bool,
    /// The devices to test [default: both of ours]
    #[arg(long, value_enum)]
    device: Vec<Kind>,
    /// The kernels to boot, in this order
    #[arg(long, value_enum)]
    kernel: Vec<Version>,
    /// Debian's archive, if this machine's own sources do not name one: `http://HOST/debian`
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// List the tests without running them
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
    /// Runs the selected tests. Returns whether none failed.
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

    /// Calls `run` for every kernel and every device in turn. Returns whether all runs passed.
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

/// Prepares the image of each kernel. With `--kernel all`, a kernel that cannot be downloaded is
/// reported and left out.
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

/// What the user named, or the default if that is nothing.
fn named<'a, T>(named: &'a [T], usual: &'a [T]) -> &'a [T] {
    if named.is_empty() { usual } else { named }
}

/// Raises the limit to the hard limit, for 8,000 connections here and in the device, which inherits
/// it.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of descriptors")
}
