// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: its command line, and what it does for each command.

mod args;
mod descriptors;
mod error;
mod logging;
mod machine;
mod sandbox;
mod serve;
mod signals;
mod systemd;
mod thread;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;

use self::args::{Args, ArgsError, Vm};
use self::error::ProgramError;
use self::logging::Logging;
use self::sandbox::{Needs, Sandbox, ThreadKind};

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    let vms = args.vms().unwrap_or_else(|error| refuse(&error));
    let (sandbox, logging) = match start(&args, &vms) {
        Ok(started) => started,
        Err(error) => {
            // Nothing runs yet that could be kept waiting, and nothing can be done if it fails.
            let _told = writeln!(io::stderr(), "{}", error.text());
            return error.code();
        }
    };
    let code = match serve::run(&args, &vms, &sandbox, &logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging.say(&error.text());
            error.code()
        }
    };
    logging.finish();
    code
}

/// What is there before anything can be logged.
fn start(args: &Args, vms: &[Vm]) -> Result<(Arc<Sandbox>, Logging), ProgramError> {
    let sandbox = Arc::new(Sandbox::prepare(args.operation.sandbox, &Needs::of(vms))?);
    let begin = sandbox.begin(ThreadKind::Log);
    let logging = Logging::start(args.log.log_level, begin).map_err(ProgramError::Thread)?;
    sandbox.report();
    Ok((sandbox, logging))
}

/// Ends the program as it does for an argument that cannot be parsed.
fn refuse(error: &ArgsError) -> ! {
    let mut command = <Args as clap::CommandFactory>::command();
    command.error(ErrorKind::ValueValidation, error).exit()
}
