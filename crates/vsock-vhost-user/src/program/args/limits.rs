// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest, its VMM and host processes may use, and how the device meets them.

use clap::Args as ClapArgs;

/// The options that hold for each virtual machine that does not say otherwise.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Limits {
    /// Bytes that a guest may send on one connection before the host process has read them
    #[arg(
        long,
        visible_alias = "tx-buffer-size",
        value_name = "BYTES",
        default_value_t = 256 * 1024
    )]
    pub(crate) buf_alloc: u32,

    /// Connections that one guest may have at a time, both ways together
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub(crate) max_connections: usize,

    /// The longest queue that a VMM may set up, a power of two
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) queue_size: u16,

    /// Refuse a VMM whose memory may shrink during use, which would kill this program: set seal=on
    /// in QEMU
    #[arg(long)]
    pub(crate) sealed_memory: bool,

    /// Offer VIRTIO_F_ACCESS_PLATFORM, for guests with encrypted memory whose VMM requires it of
    /// the device. There is no address translation: a guest behind a virtual IOMMU is refused
    #[arg(long)]
    pub(crate) access_platform: bool,

    /// How many microseconds a guest's thread polls for more work before it sleeps; 0 turns polling
    /// off
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) poll_us: u32,
}
