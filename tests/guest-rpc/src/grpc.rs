// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! gRPC over tonic, with the paths and codecs that a generator would emit.

pub(crate) mod client;
pub(crate) mod server;

const NAME: &str = "vsock.test.Load";
const ECHO: &str = "/vsock.test.Load/Echo";
const UPLOAD: &str = "/vsock.test.Load/Upload";
const DOWNLOAD: &str = "/vsock.test.Load/Download";
const CHAT: &str = "/vsock.test.Load/Chat";
const WAIT: &str = "/vsock.test.Load/Wait";
const REFUSE: &str = "/vsock.test.Load/Refuse";
const MISSING: &str = "/vsock.test.Load/Missing";

/// The window of an HTTP/2 stream and connection, and the size of a frame.
const WINDOW: u32 = 4 << 20;
const FRAME: u32 = 1 << 20;
/// The most cancelled calls that may wait for the service. With more, the service ends the
/// connection. The default is 20.
const CANCELLED: usize = 1_000;
/// How many messages a stream prepares before its reader takes them.
const READY: usize = 4;
