//! The identity of this process in its entries, and the clocks.

use std::{fs::File, io::Read, time::SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::{
    entry::{Binary, Identity, Stamp},
    hash::hex,
};

impl Identity {
    /// That of this process on the node called `node`. Reads all of the program's file, which takes some
    /// 10 ms.
    pub fn of_this_process(node: &str) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            node: node.to_owned(),
            boot: boot.map(|text| text.trim().to_owned()).unwrap_or_default(),
            binary: Binary {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                sha256: hash_of_program().unwrap_or_default(),
            },
        }
    }
}

impl Stamp {
    /// The present moment.
    pub fn now() -> Self {
        // Goes on while the machine sleeps, and is the same for all processes.
        let up = clock_gettime(ClockId::Boottime);
        let (seconds, nanoseconds) = (up.tv_sec.unsigned_abs(), up.tv_nsec.unsigned_abs());
        let mono_ms = seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000);
        Self { at: SystemTime::now(), mono_ms }
    }
}

/// SHA-256 of the program's file; `None` if it cannot be read.
fn hash_of_program() -> Option<String> {
    // The kernel's own way to the file, also after another one has taken its name.
    let mut file = File::open("/proc/self/exe").ok()?;
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut block = vec![0; 64 * 1024];
    loop {
        match file.read(&mut block).ok()? {
            0 => return Some(hex(context.finish().as_ref())),
            read => context.update(&block[..read]),
        }
    }
}
