//! The real program, with a file of its own.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Client, PATIENCE, eventually};

/// Ports to try: below those that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A running program; dropped, it is killed.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    /// The configuration file.
    pub(crate) file: PathBuf,
    child: Child,
    folder: TempDir,
}

/// An address of loopback at which nobody listens now.
pub(crate) fn free_address() -> SocketAddr {
    let address = || SocketAddr::from(([127, 0, 0, 1], fastrand::u16(PORTS)));
    std::iter::repeat_with(address)
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("some port is free")
}

/// The program, to be run with arguments.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
}

impl Process {
    /// Starts the program with the file that `text` writes for an address to listen at, and waits until
    /// it listens.
    #[track_caller]
    pub(crate) fn spawn(text: impl Fn(SocketAddr) -> String) -> Self {
        for _ in 0..10 {
            let address = free_address();
            let mut process = Self::begin(address, &text(address));
            if process.listens() {
                return process;
            }
        }
        panic!("the program does not start");
    }

    /// As [`Process::spawn`], with no more than `count` descriptors.
    #[track_caller]
    pub(crate) fn spawn_with_descriptors(count: u32, text: impl Fn(SocketAddr) -> String) -> Self {
        let limited = move |program: Command| {
            let mut command = Command::new("sh");
            let script = format!("ulimit -n {count} && exec \"$0\" \"$@\"");
            command.args(["-c", &script]).arg(program.get_program()).args(program.get_args());
            command
        };
        for _ in 0..10 {
            let address = free_address();
            let mut process = Self::begin_as(address, &text(address), limited);
            if process.listens() {
                return process;
            }
        }
        panic!("the program does not start");
    }

    /// Starts the program with the file `text`, which has it listen at `address`.
    #[track_caller]
    pub(crate) fn spawn_at(address: SocketAddr, text: &str) -> Self {
        let mut process = Self::begin(address, text);
        assert!(process.listens(), "{}", process.log());
        process
    }

    /// Starts the program with the file `text` at an address where somebody listens already; `change`
    /// may add arguments and the like to the command.
    #[track_caller]
    pub(crate) fn spawn_beside(
        address: SocketAddr,
        text: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Self {
        Self::begin_as(address, text, change)
    }

    fn begin(address: SocketAddr, text: &str) -> Self {
        Self::begin_as(address, text, |command| command)
    }

    fn begin_as(address: SocketAddr, text: &str, change: impl FnOnce(Command) -> Command) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("tidegate.yaml");
        fs::write(&file, text).expect("a file");
        let log = File::create(folder.path().join("log")).expect("a file");
        let mut command = program();
        command.args(["run", "--config"]).arg(&file).stdin(Stdio::null());
        let mut command = change(command);
        command.stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("the program starts");
        Self { address, file, child, folder }
    }

    /// Waits until the program listens; false if it ended, since somebody else took the port first.
    fn listens(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert_eq!(status.code(), Some(69), "{}", self.log());
                return false;
            }
            assert!(Instant::now() < deadline, "the program does not listen: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// What the program wrote to standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("a file")
    }

    /// Replaces the configuration file as editors do, by renaming.
    pub(crate) fn write(&self, text: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, &self.file).expect("a file");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the program runs");
    }

    /// Numbers of the processes that served, in their order: the program, and those that took over.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.pids_in_log(|line| line["message"] == "serving")
    }

    fn pids_in_log(&self, which: impl Fn(&serde_json::Value) -> bool) -> Vec<i32> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let chosen = lines.filter(|line| which(line));
        chosen.filter_map(|line| line["pid"].as_i64()?.try_into().ok()).collect()
    }

    /// Waits until the program has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Kills the program, and those that took over from it, and waits until nobody listens any more.
    #[track_caller]
    pub(crate) fn kill_all(&mut self) {
        let others = self.pids().into_iter().filter_map(Pid::from_raw);
        // Also one that does not serve yet.
        for pid in others.chain([Pid::from_child(&self.child)]) {
            let _ = kill_process(pid, Signal::KILL);
        }
        self.wait();
        // Those that took over are no children of this one.
        eventually("nobody listens", || TcpStream::connect(self.address).is_err());
    }

    /// Whether the program has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Processor time of the program's threads called `name` so far.
    pub(crate) fn cpu(&self, name: &str) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("Linux");
        let tasks = tasks.map(|task| task.expect("a folder").path());
        let named = |task: &PathBuf| {
            fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let spent = |task: PathBuf| {
            let stat = fs::read_to_string(task.join("schedstat")).expect("schedstat");
            let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
            Duration::from_nanos(ns.expect("nanoseconds"))
        };
        tasks.filter(named).map(spent).sum()
    }

    /// The most memory that the program has held so far.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the program runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Those that it started to take over write to the same log. Others have tests of their own, or
        // the number by now.
        for pid in self.pids_in_log(|_| true) {
            let log = fs::read_link(format!("/proc/{pid}/fd/2"));
            let ours = log.is_ok_and(|log| log == self.folder.path().join("log"));
            if let Some(pid) = Pid::from_raw(pid).filter(|_| ours) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
