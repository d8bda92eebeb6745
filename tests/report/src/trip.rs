// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The job of a demo: bytes go to an echo service and come back, and are compared.

use std::fmt;
use std::io::{self, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use sha2::Digest as _;

use crate::process::{Usage, usage};
use crate::progress::Progress;

/// How much is in memory at a time, sent and received.
const PART: u64 = 64 << 20;
/// How much is written or read with one call.
const PIECE: usize = 64 * 1024;

/// A SHA-256 digest, which prints as hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Digest([u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest that every round of a demo must have.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommonDigest(Option<Digest>);

impl CommonDigest {
    /// Adds a round.
    ///
    /// # Errors
    ///
    /// The digest differs from that of the first round.
    pub fn add(&mut self, digest: Digest) -> anyhow::Result<()> {
        let first = *self.0.get_or_insert(digest);
        ensure!(
            first == digest,
            "the file changed between two rounds; send a file that does not change"
        );
        Ok(())
    }
}

/// The line that a demo prints after its rounds.
impl fmt::Display for CommonDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(digest) => write!(
                f,
                "Every byte came back unchanged in every round. SHA-256: {digest}"
            ),
            None => f.write_str("No round was made."),
        }
    }
}

/// What a trip there and back took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trip {
    /// The time in which bytes were under way.
    pub time: Duration,
    /// What this process has used in that time.
    pub usage: Usage,
    /// Of the bytes that came back, which are those that were sent.
    pub digest: Digest,
}

/// Sends all of `source`, and compares what comes back.
///
/// It goes in parts of 64 MiB, so a file of any size needs 128 MiB of memory. The clock stands
/// still while a part is read from the source, compared and digested.
///
/// # Errors
///
/// Reading or writing fails, fewer bytes come back, or other bytes.
pub fn there_and_back<W: Write + Send + ?Sized>(
    source: &mut dyn Read,
    writer: &mut W,
    reader: &mut dyn Read,
    progress: &Progress,
) -> anyhow::Result<Trip> {
    let (mut part, mut back) = (Vec::new(), Vec::new());
    let (mut time, mut used) = (Duration::ZERO, Usage::default());
    let mut digest = sha2::Sha256::new();
    let mut before = 0_u64;
    loop {
        part.clear();
        let mut rest = Read::take(&mut *source, PART);
        rest.read_to_end(&mut part)
            .context("cannot read the file")?;
        if part.is_empty() {
            let digest = Digest(digest.finalize().into());
            return Ok(Trip {
                time,
                usage: used,
                digest,
            });
        }
        back.clear();
        back.resize(part.len(), 1); // its pages are there before the clock starts
        let (usage_before, start) = (usage()?, Instant::now());
        let (sent, received) = thread::scope(|scope| {
            let sender = scope.spawn(|| send(writer, &part));
            let received = receive(reader, &mut back, progress);
            (sender.join(), received)
        });
        time += start.elapsed();
        used = used + (usage()? - usage_before);
        received.context("receiving failed")?;
        sent.map_err(|_| anyhow!("the sender has panicked"))?
            .context("sending failed")?;
        let same = part
            .iter()
            .zip(&back)
            .take_while(|(sent, back)| sent == back);
        ensure!(
            part == back,
            "byte {} did not come back as it was sent",
            before + same.count() as u64
        );
        digest.update(&back);
        before += part.len() as u64;
    }
}

fn send(writer: &mut (impl Write + ?Sized), bytes: &[u8]) -> io::Result<()> {
    bytes
        .chunks(PIECE)
        .try_for_each(|piece| writer.write_all(piece))
}

fn receive(reader: &mut dyn Read, back: &mut [u8], progress: &Progress) -> io::Result<()> {
    for mut piece in back.chunks_mut(PIECE) {
        while !piece.is_empty() {
            let read = reader.read(piece)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            progress.advance(read as u64);
            piece = piece.get_mut(read..).unwrap_or_default();
        }
    }
    Ok(())
}

/// Makes sure that the echo service ends its direction after the last byte.
///
/// # Errors
///
/// More bytes come, or the stream fails.
pub fn expect_end(reader: &mut dyn Read) -> anyhow::Result<()> {
    let more = reader
        .read(&mut [0])
        .context("waiting for the end failed")?;
    ensure!(more == 0, "more bytes came back than were sent");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trip(sent: &[u8], back: &[u8]) -> anyhow::Result<Trip> {
        let progress = Progress::of_bytes(sent.len() as u64);
        there_and_back(&mut &*sent, &mut io::sink(), &mut &*back, &progress)
    }

    #[test]
    fn the_digest_matches_the_standard() {
        let digest = trip(b"abc", b"abc").unwrap().digest.to_string();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest, expected);
    }

    #[test]
    fn a_round_with_another_digest_is_an_error() {
        let digest = |bytes| trip(bytes, bytes).unwrap().digest;
        let mut common = CommonDigest::default();
        common.add(digest(b"abc")).unwrap();
        common.add(digest(b"abc")).unwrap();
        common.add(digest(b"xyz")).unwrap_err();
        let line = common.to_string();
        assert!(line.ends_with(&digest(b"abc").to_string()), "{line}");
    }

    #[test]
    fn a_changed_byte_is_found_and_named() {
        let error = trip(b"abcd", b"abXd").unwrap_err().to_string();
        assert_eq!(error, "byte 2 did not come back as it was sent");
    }

    #[test]
    fn a_missing_byte_is_an_error() {
        let error = format!("{:#}", trip(b"abcd", b"abc").unwrap_err());
        assert!(error.starts_with("receiving failed: "), "{error}");
    }

    #[test]
    fn a_byte_after_the_last_is_an_error() {
        assert!(expect_end(&mut &b"x"[..]).is_err());
        expect_end(&mut &b""[..]).unwrap();
    }
}
