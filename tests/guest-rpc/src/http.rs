// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! HTTP over axum and hyper.

pub(crate) mod client;
pub(crate) mod server;

const ECHO: &str = "/echo";
const UPLOAD: &str = "/upload";
const DOWNLOAD: &str = "/download";
const CHAT: &str = "/chat";
const WAIT: &str = "/wait";
const REFUSE: &str = "/refuse";
const MISSING: &str = "/missing";

/// A refusal's status is this plus its code.
const REFUSED: u16 = 400;
