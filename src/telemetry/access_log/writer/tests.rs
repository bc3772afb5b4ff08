use std::{fs, os::unix::fs::MetadataExt, sync::Mutex};

use super::{super::line::tests::entry, *};

fn lines(count: usize) -> Lines {
    let mut lines = Lines::default();
    (0..count).for_each(|_| lines.push(&entry(b"/")));
    lines
}

fn ends(log: AccessLog) {
    assert!(log.shutdown(Duration::from_secs(10)), "the writer did not end");
}

/// Waits until another thread has made `done` true.
fn soon(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        thread::yield_now();
    }
}

#[test]
fn lines_are_appended_and_flushed_at_shutdown() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let text = path.to_str().expect("UTF-8");
    for _ in 0..2 {
        let log = AccessLog::start(text).expect("the log opens");
        let sender = log.sender();
        let mut batch = lines(3);
        sender.try_send(&mut batch);
        assert_eq!((batch.count(), batch.text().len()), (0, 0));
        sender.try_send(&mut batch);
        ends(log);
    }
    assert_eq!(fs::read_to_string(&path).expect("the log").lines().count(), 6);
    assert_eq!(fs::metadata(&path).expect("the log").mode() & 0o137, 0);
}

#[test]
fn a_renamed_file_is_left_behind_on_reopen() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let log = AccessLog::start(path.to_str().expect("UTF-8")).expect("the log opens");
    log.sender().try_send(&mut lines(2));
    soon("the first lines", || fs::metadata(&path).is_ok_and(|file| file.len() > 0));
    fs::rename(&path, &old).expect("renamed");
    log.reopen();
    soon("the new file", || path.exists());
    log.sender().try_send(&mut lines(1));
    ends(log);
    let count = |path| fs::read_to_string(path).expect("the log").lines().count();
    assert_eq!((count(&old), count(&path)), (2, 1));
}

#[test]
fn a_missing_folder_or_a_fifo_without_reader_is_an_error_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |path: &Path| AccessLog::start(path.to_str().expect("UTF-8")).err();
    assert!(start(&folder.path().join("missing/access.log")).is_some());
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    assert!(start(&fifo).is_some());
}

#[test]
fn a_pipe_nobody_reads_costs_lines_and_no_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    // Opened for both, so that the log finds a reader; nothing is read.
    let _reader = OpenOptions::new().read(true).write(true).open(&fifo).expect("the FIFO");
    let log = AccessLog::start(fifo.to_str().expect("UTF-8")).expect("the log opens");
    let sender = log.sender();
    let batch = lines(1000).text().len();
    assert!(batch > 64 << 10, "a batch fills the pipe");
    for _ in 0..QUEUE + 5 {
        sender.try_send(&mut lines(1000));
    }
    // The writer holds one batch and the queue the rest; the writer may not have taken its batch
    // yet.
    let lost = log.lost();
    assert!(lost.queue_full >= 4000 && lost.queue_full.is_multiple_of(1000), "{lost:?}");
    log.reopen();
    let since = Instant::now();
    assert!(!log.shutdown(Duration::from_millis(50)));
    assert!(since.elapsed() < Duration::from_secs(5));
}

/// A disk that accepts some bytes and is full then, until it is cleared.
#[derive(Clone)]
struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().expect("the disk");
        let room = disk.1.saturating_sub(disk.0.len()).min(bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.0.extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_tears_one_line_and_counts_what_is_lost() {
    let line = lines(1).text().len();
    let disk = Disk(Arc::new(Mutex::new((Vec::new(), line * 2 + 10))));
    let (opened, written) = (disk.clone(), Arc::clone(&disk.0));
    let log = AccessLog::start_with(Box::new(move || Ok(Box::new(opened.clone()))), 4)
        .expect("the log opens");
    let sender = log.sender();
    sender.try_send(&mut lines(5));
    soon("the loss", || log.lost().write_error == 3);
    written.lock().expect("the disk").1 = usize::MAX;
    sender.try_send(&mut lines(1));
    ends(log);
    let text = String::from_utf8(written.lock().expect("the disk").0.clone()).expect("UTF-8");
    let whole: Vec<bool> =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).collect();
    assert_eq!(whole, [true, true, false, true]);
}
