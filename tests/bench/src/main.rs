// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Baseline.
mod transport;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use transport::{BareRing, Pipe, Transport, UnixPair};

fn stream<T: Transport>(t: &T, size: usize, total: u64) -> io::Result<Duration> {
    let (mut w, mut r) = t.pair()?;
    let gate = Barrier::new(2);
    std::thread::scope(|s| {
        let gate = &gate;
        let h = s.spawn(move || -> io::Result<Instant> {
            let msg = vec![0x5a; size];
            gate.wait();
            let start = Instant::now();
            for _ in 0..total / size as u64 {
                w.write_all(black_box(&msg))?;
            }
            Ok(start)
        });
        let mut buf = vec![0u8; 65536];
        let mut left = total / size as u64 * size as u64;
        gate.wait();
        while left > 0 {
            let n = r.read(&mut buf)?;
            black_box(&mut buf[..n]);
            left -= n as u64;
        }
        let end = Instant::now();
        Ok(end - h.join().unwrap()?)
    })
}
struct Slow(transport::BareRing);
struct SlowEnd(<BareRing as Transport>::End);
impl Transport for Slow { type End = SlowEnd; fn pair(&self) -> io::Result<(SlowEnd, SlowEnd)> { let (a,b)=self.0.pair()?; Ok((SlowEnd(a),SlowEnd(b))) } }
impl Read for SlowEnd { fn read(&mut self, b: &mut [u8]) -> io::Result<usize> { loop { match self.0.incoming.read(b) { Err(_) => for _ in 0..48 { std::hint::spin_loop() }, x => return x } } } }
impl Write for SlowEnd { fn write(&mut self, b: &[u8]) -> io::Result<usize> { self.0.write(b) } fn flush(&mut self) -> io::Result<()> { Ok(()) } }
fn slow(capacity: usize, s: usize, n: u64) -> io::Result<Duration> { stream(&Slow(BareRing { capacity }), s, n) }
type Run = Box<dyn Fn(usize, u64) -> io::Result<Duration>>;
fn main() -> io::Result<()> {
    let rows: Vec<(&str, Run)> = vec![
        ("unix", Box::new(|s, n| stream(&UnixPair, s, n))),
        ("pipe", Box::new(|s, n| stream(&Pipe, s, n))),
        ("rtrb 256K", Box::new(|s, n| stream(&BareRing { capacity: 256 << 10 }, s, n))),
        ("rtrb 256K p48", Box::new(|s, n| slow(256 << 10, s, n))),
        ("rtrb 1M p48", Box::new(|s, n| slow(1 << 20, s, n))),
        ("rtrb 1M", Box::new(|s, n| stream(&BareRing { capacity: 1 << 20 }, s, n))),
    ];
    for size in [64usize, 1024, 4096, 65536] {
        let vol: Vec<u64> = rows.iter().map(|r| {
            let mut v = 4u64 << 20;
            loop {
                let d = (r.1)(size, v).unwrap();
                if d > Duration::from_millis(40) { break (v as f64 * 0.15 / d.as_secs_f64()) as u64 }
                v *= 2;
            }
        }).collect();
        let mut got = vec![vec![]; rows.len()];
        for _ in 0..15 {
            for (i, r) in rows.iter().enumerate() {
                got[i].push(vol[i] as f64 / (r.1)(size, vol[i])?.as_secs_f64() / 1e6);
            }
        }
        for (i, r) in rows.iter().enumerate() {
            let mut ratio: Vec<f64> = got[i].iter().zip(&got[0]).map(|(a, b)| a / b).collect();
            ratio.sort_by(f64::total_cmp);
            let mut v = got[i].clone(); v.sort_by(f64::total_cmp);
            println!("{:>6} {:10} {:9.0} MB/s (min {:.0} max {:.0})  {:6.2} x unix (min {:.2} max {:.2})", size, r.0, v[7], v[0], v[14], ratio[7], ratio[0], ratio[14]);
        }
    }
    Ok(())
}
