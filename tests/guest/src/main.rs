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
mod ends;
mod guest;
mod image;
mod kernel;
mod machine;
mod monitor;
mod qemu;
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
use crate::kernel::Version;
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
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The guest suite.
    Suite {
        /// Only the tests whose names contain this.
        #[arg(default_value = "")]
        filter: String,
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
    },
    /// A file goes to an echo service in the guest and comes back.
    Demo {
        /// The file; this program's own if none is named.
        file: Option<PathBuf>,
        /// How often it goes each way.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// The device that it goes through.
        #[arg(long, value_enum, default_value = "ours")]
        device: Kind,
    },
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
    let place = Place::new()?;
    raise_descriptor_limit()?;
    match &args.command {
        Command::Suite { list: true, .. } => {
            suite::tests()
                .iter()
                .for_each(|test| println!("{}", test.name));
            Ok(true)
        }
        Command::Suite {
            filter,
            device,
            kernel,
            mirror,
            ..
        } => {
            let images = images(&place, kernel, mirror.as_deref())?;
            let mut passed = true;
            for image in &images {
                for kind in named(device, &[Kind::Ours, Kind::InProcess]) {
                    let parts = Parts::prepare(&place, *kind, image, args.accelerator)?;
                    passed &= suite::run(&parts, filter)?;
                }
            }
            Ok(passed)
        }
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

/// What the guests boot from. If all kernels are asked for, one that cannot be had is left out and said.
fn images(place: &Place, kernels: &[Version], mirror: Option<&str>) -> anyhow::Result<Vec<Image>> {
    let mut images = Vec::new();
    let mut missing = None;
    for version in Version::chosen(kernels) {
        match Image::prepare(place, version, mirror) {
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
fn named<'a>(devices: &'a [Kind], usual: &'a [Kind]) -> &'a [Kind] {
    if devices.is_empty() { usual } else { devices }
}

/// For 8,000 connections, here and in the device, which inherits the limit.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of descriptors")
}
