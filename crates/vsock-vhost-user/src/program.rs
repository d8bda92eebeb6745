// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: it parses the command line, then runs a subcommand or the devices.

mod args;
mod capabilities;
mod capture;
mod connect;
mod control;
mod counted;
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
use self::counted::counted;
use self::error::{ProgramError, with_causes};
use self::inherited::Inherited;
use self::logging::Logging;
use self::machine::Passed;
use self::sandbox::{Needs, Sandbox, ThreadKind};
use self::systemd::HandedOver;

/// Runs the program, as its arguments ask; returns its exit code.
pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) if args.print_capabilities => return capabilities::print(),
        Ok(args) => args,
        // QEMU's conventions: the option works whatever the other arguments are.
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

/// Runs the devices of the virtual machines, or only checks the arguments.
fn serve(args: &Args) -> ExitCode {
    let vms = args.vms().unwrap_or_else(|error| refuse(&error));
    if args.check {
        return checked(&vms);
    }
    let (passed, sandbox, logging) = match start(args, &vms) {
        Ok(started) => started,
        // No device runs yet, so it does not matter if standard error blocks.
        Err(error) => return fail(&error),
    };
    let code = match serve::run(args, &vms, passed, &sandbox, &logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging.write_line(&with_causes(&error));
            error.code()
        }
    };
    logging.finish();
    code
}

/// Takes what was passed to the program, and starts the sandbox and the log.
///
/// Passed descriptors come first: once the program opens files of its own, those could have the
/// number of a descriptor that was announced and not passed.
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

/// Ends the program in the same way as for an argument that cannot be parsed.
fn refuse(error: &ArgsError) -> ! {
    let mut command = <Args as clap::CommandFactory>::command();
    command
        .error(ErrorKind::ValueValidation, with_causes(error))
        .exit()
}

/// Reports an error on standard error.
fn fail(error: &ProgramError) -> ExitCode {
    let text = with_causes(error);
    // There is nowhere else to report it if this fails.
    let _written = writeln!(io::stderr(), "vsock-vhost-user: {text}");
    error.code()
}

/// Reports that the arguments are valid, and which guests they describe.
fn checked(vms: &[Vm]) -> ExitCode {
    let cids: Vec<_> = vms.iter().map(|vm| vm.guest_cid.to_string()).collect();
    let guests = counted(cids.len(), "guest");
    let written = writeln!(
        io::stdout(),
        "vsock-vhost-user: the arguments are valid and describe {guests}: CID {}",
        cids.join(", ")
    );
    ExitCode::from(u8::from(written.is_err()))
}
