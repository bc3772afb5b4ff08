//! Whatever stands in the place of the configuration file: the process serves, hears signals, holds no more
//! memory, and takes a good file afterwards.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use rustix::process::Signal;

use crate::support::{Origin, Proxy, eventually, process::Process, proxy::Builder};

/// Puts something in the place of a file.
type Put = fn(&Path);

fn pipe(file: &Path) {
    fs::remove_file(file).expect("a file");
    assert!(Command::new("mkfifo").arg(file).status().expect("mkfifo runs").success());
}

fn device(file: &Path) {
    fs::remove_file(file).expect("a file");
    symlink("/dev/zero", file).expect("a link");
}

fn large(file: &Path) {
    // Sparse: it has no blocks.
    fs::File::create(file).and_then(|file| file.set_len(2 << 30)).expect("a file");
}

const ALL: [(&str, Put); 3] = [
    ("it is a pipe; name a regular file", pipe),
    ("it is a device; name a regular file", device),
    ("it has more than 8 MiB", large),
];

fn two_versions(origins: &[Origin; 2]) -> Builder {
    Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1])
}

#[test]
fn what_is_no_file_is_told_and_a_good_file_is_taken_afterwards() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let builder = two_versions(&origins);
    let with = |weights: &str, address| {
        builder.clone().listen(address).service(&format!("weights: {{ {weights} }}")).text()
    };
    let process = Process::spawn(|address| with("v1: 1", address));
    let before = process.peak_kib();
    for (why, put) in ALL {
        put(&process.file);
        process.signal(Signal::HUP);
        eventually(why, || process.log().contains(why));
        assert_eq!(process.connect().get("/").send().status, 200);
        for (weights, served) in [("v2: 1", "v2"), ("v1: 1", "v1")] {
            process.write(&with(weights, process.address));
            eventually("a good file is taken", || {
                process.connect().get("/").send().text() == served
            });
        }
    }
    let more = process.peak_kib() - before;
    assert!(more < 64 << 10, "{more} KiB more than before");
}

#[test]
fn a_signal_ends_the_process_whatever_stands_in_the_place_of_the_file() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    for (why, put) in ALL {
        let mut process = two_versions(&origins).spawn();
        put(&process.file);
        process.signal(Signal::HUP);
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0), "{why}: {}", process.log());
    }
}
