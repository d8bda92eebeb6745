// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ttrpc, with the handlers that a generator would emit.

pub(crate) mod client;
pub(crate) mod server;

const NAME: &str = "vsock.test.Load";
const ECHO: &str = "Echo";
const UPLOAD: &str = "Upload";
const DOWNLOAD: &str = "Download";
const CHAT: &str = "Chat";
const WAIT: &str = "Wait";
const REFUSE: &str = "Refuse";
const MISSING: &str = "Missing";
