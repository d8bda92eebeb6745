// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The capture of all guests, from the start of the program to its end.

use std::io;

use vsock_vhost_user::{Capture, CaptureError};

use super::args::CaptureArgs;
use super::error::ProgramError;
use super::logging::Logging;

/// Begins it, if one is wanted. The thread that writes it does `first`.
pub(crate) fn begin(
    args: &CaptureArgs,
    first: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<Option<Capture>, ProgramError> {
    let Some(path) = &args.capture else {
        return Ok(None);
    };
    let capture = Capture::create_with(path, args.config(), first)?;
    log::info!("capturing packets to {}", path.display());
    Ok(Some(capture))
}

/// Ends it. If it has ended by itself, the log has told why.
pub(crate) fn end(capture: Option<Capture>, logging: &Logging) {
    if let Some(Err(error @ CaptureError::NotEnded)) = capture.map(Capture::stop) {
        logging.say(&ProgramError::Capture(error).text());
    }
}
