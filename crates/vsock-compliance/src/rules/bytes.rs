// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};

use crate::breach::{RuleBreach, Verdict, count, fails, hold, same, succeeds};
use crate::pattern::Pattern;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, read_expecting, write};
use crate::source::BoxedStream;
use crate::transfer::{Transfer, TransferPlan, WaitStyle};

sentences! {
    steps StreamCheck;

    "2.1" "Bytes arrive once, in order and unchanged, whatever the mix of modes, sizes and \
        threads, and even while the mode changes." {
        bytes_of_every_size_arrive_in_order: { every_size };
        directions_carry_their_own_bytes: [[
            Repeat(100, &[Write(Near, 1000), Write(Far, 1000), Drain(Far), Drain(Near)]),
        ]];
        vectored_calls_are_one_stream: { vectored };
        bytes_survive_threads_in_every_mix_of_modes: { every_mix };
    }

    "2.3" "`read` returns the bytes that are available, up to the buffer's length, from as many \
        writes as fit." {
        a_read_gathers_writes: { gathers };
        a_read_does_not_wait_for_a_full_buffer: [[
            SetMode(Far, Blocking), Write(Near, 1), Read(Far, ONE),
        ]];
        a_read_stops_at_its_buffer: { stops };
    }

    "2.3" "A peek is a read that removes nothing." {
        a_peek_takes_nothing: { peek };
    }
}

fn every_size(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let most = scene.some(64 * 1024);
    let mut sizes = vec![1, 2, 3, 7, 64, 255, 1000, 4095, 4096, 4097, 65_535];
    sizes.extend([most / 2 + 1, most - 1, most]);
    sizes.retain(|size| (1..=most).contains(size));
    let mut sent = Pattern::default();
    for size in sizes.iter().copied() {
        let pieces = sizes.iter().copied().filter(|piece| *piece <= size);
        for piece in pieces.take(6) {
            let bytes = sent.take(size);
            write(&mut near, &bytes)?;
            for piece in bytes.chunks(piece) {
                read_expecting(&mut far, piece)?;
            }
        }
    }
    Ok(())
}

fn vectored(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let size = scene.some(1000);
    let bytes = Pattern::default().take(size);
    let (head, tail) = bytes.split_at(size / 3);
    let slices = [IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(tail)];
    let len = succeeds("a vectored write", near.write_vectored(&slices))?;
    hold(
        len > 0 && len <= size,
        format!("a vectored write of {size} bytes to accept at least one"),
        format!("it returned {len}"),
    )?;
    write(&mut near, &bytes[len..])?;

    let mut got = vec![0; size];
    let (first, second) = got.split_at_mut(size / 2);
    let mut slices = [
        IoSliceMut::new(first),
        IoSliceMut::new(&mut []),
        IoSliceMut::new(second),
    ];
    let len = succeeds("a vectored read", far.read_vectored(&mut slices))?;
    hold(
        len > 0 && len <= size,
        format!("a vectored read of {size} bytes to return at least one"),
        format!("it returned {len}"),
    )?;
    same(&got[..len], &bytes[..len])?;
    read_expecting(&mut far, &bytes[len..])
}

fn every_mix(scene: &Scene<'_>) -> Verdict {
    let readers = |writer| WaitStyle::ALL.map(|reader| (writer, reader));
    for (writer, reader) in WaitStyle::ALL.into_iter().flat_map(readers) {
        let Pair { near, far } = scene.fresh()?;
        let bytes = (scene.some(256 * 1024) as u64 * 8).clamp(20_000, 2 << 20);
        let plan = |style, seed| TransferPlan {
            bytes,
            longest: 2 * scene.some(256 * 1024),
            style,
            stall_timeout: scene.timeout(),
            seed,
        };
        let (out, back) = (plan(writer, 0x1234_5678), plan(reader, 0x8765_4321));
        let passed = Transfer::start((near, far), out, back)?.finish();
        passed.map_err(|why| {
            let expected = format!("{bytes} bytes to pass from {writer:?} to {reader:?}");
            RuleBreach::unmet(expected, why)
        })?;
    }
    Ok(())
}

fn gathers(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let size = scene.some(100);
    let bytes = Pattern::default().take(size);
    for byte in &bytes {
        write(&mut near, std::slice::from_ref(byte))?;
    }
    let mut got = vec![0; size + 10];
    count("a read after many small writes", far.read(&mut got), size)?;
    same(&got[..size], &bytes)
}

fn stops(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let size = scene.some(100);
    let bytes = Pattern::default().take(size);
    write(&mut near, &bytes)?;
    let mut got = vec![0; size / 2 + 1];
    let want = got.len().min(size);
    count("a read into a smaller buffer", far.read(&mut got), want)?;
    read_expecting(&mut far, &bytes[want..])
}

fn peek(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let bytes = Pattern::default().take(scene.some(100));
    let mut got = vec![0; bytes.len() + 1];
    let mut look = |far: &mut BoxedStream| {
        let seen = scene.source().peek(&mut **far, &mut got);
        seen.map(|seen| seen.map(|len| got[..len].to_vec()))
    };
    let Some(nothing) = look(&mut far) else {
        return Err(RuleBreach::Inapplicable("the transport has no peek"));
    };
    fails("a peek at an empty stream", nothing, ErrorKind::WouldBlock)?;
    write(&mut near, &bytes)?;
    for _ in 0..3 {
        if let Some(seen) = look(&mut far) {
            same(&succeeds("a peek", seen)?, &bytes)?;
        }
    }
    read_expecting(&mut far, &bytes)
}
