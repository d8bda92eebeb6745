// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: its command line, and what it does for each command.

mod args;
mod capabilities;
mod capture;
mod connect;
mod control;
mod ctl;
mod descriptors;
mod error;
mod generate;
mod inherited;
mod logging;
mod machine;
mod passed_fd;
mod sandbox;
mod serve;
mod signals;
mod systemd;
mod thread;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;

use self::args::{Args, ArgsError, Command, Vm};
use self::error::{ProgramError, with_causes};
use self::inherited::Inherited;
use self::logging::Logging;
use self::machine::Passed;
use self::sandbox::{Needs, Sandbox, ThreadKind};
use self::systemd::HandedOver;

/// Does what its arguments say.
pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) if args.print_capabilities => return capabilities::print(),
        Ok(args) => args,
        Err(_) if capabilities::asked_for(env::args_os()) => return capabilities::print(),
        Err(error) => error.exit(),
    };
    let ended = match &args.command {
        None => return serve(&args),
        Some(Command::Connect(options)) => connect::run(options).map_err(ProgramError::from),
        Some(Command::Generate(options)) => generate::run(options).map_err(ProgramError::from),
        Some(Command::Ctl(options)) => ctl::run(options).map_err(ProgramError::from),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Serves the virtual machines.
fn serve(args: &Args) -> ExitCode {
    let vms = args.vms().unwrap_or_else(|error| refuse(&error));
    if args.check {
        return checked(&vms);
    }
    let (passed, sandbox, logging) = match start(args, &vms) {
        Ok(started) => started,
        // Nothing runs yet that could be kept waiting.
        Err(error) => return fail(&error),
    };
    let code = match serve::run(args, &vms, passed, &sandbox, &logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging.say(&error.text());
            error.code()
        }
    };
    logging.finish();
    code
}

/// What is there before anything can be logged. First the descriptors that were passed: nothing
/// that the program opens may have their numbers.
fn start(args: &Args, vms: &[Vm]) -> Result<(Passed, Arc<Sandbox>, Logging), ProgramError> {
    let passed = Passed {
        inherited: Inherited::take(vms)?,
        handed_over: HandedOver::from_env()?,
    };
    let needs = Needs::of(vms, args.control.control.as_deref());
    let sandbox = Arc::new(Sandbox::prepare(args.operation.sandbox, &needs)?);
    let begin = sandbox.begin(ThreadKind::Log);
    let logging = Logging::start(args.log.log_level, begin).map_err(ProgramError::Thread)?;
    sandbox.report();
    Ok((passed, sandbox, logging))
}

/// Ends the program as it does for an argument that cannot be parsed.
fn refuse(error: &ArgsError) -> ! {
    let mut command = <Args as clap::CommandFactory>::command();
    command
        .error(ErrorKind::ValueValidation, with_causes(error))
        .exit()
}

/// Says what failed, on standard error.
fn fail(error: &ProgramError) -> ExitCode {
    // Nothing can be done if it fails.
    let _told = writeln!(io::stderr(), "{}", error.text());
    error.code()
}

/// Says that the arguments are right, and for whom.
fn checked(vms: &[Vm]) -> ExitCode {
    let cids: Vec<_> = vms.iter().map(|vm| vm.guest_cid.to_string()).collect();
    let said = writeln!(
        io::stdout(),
        "vsock-vhost-user: the arguments are right; they start a device for each guest: {}",
        cids.join(", ")
    );
    ExitCode::from(u8::from(said.is_err()))
}
