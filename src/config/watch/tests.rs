use std::{fs, os::unix::fs::symlink, sync::mpsc};

use notify::ErrorKind;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    content::{GONE_AFTER, hash},
    *,
};

const DEADLINE: Duration = Duration::from_secs(10);
/// Longer than the longest burst.
const NOTHING: Duration = Duration::from_millis(400);

fn start(path: &Path) -> (WatchGuard, mpsc::Receiver<String>) {
    start_after(path, &fs::read(path).unwrap())
}

fn start_after(path: &Path, seen: &[u8]) -> (WatchGuard, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let read = path.to_owned();
    let guard = watch(path, &format!("{:016x}", xxh3_64(seen)), move || {
        let _ = tell.send(fs::read_to_string(&read).unwrap_or_default());
    });
    (guard.unwrap(), told)
}

/// Waits until the content is `text`; calls for content between are allowed.
fn wait_for(told: &mpsc::Receiver<String>, text: &str) {
    while told.recv_timeout(DEADLINE).unwrap() != text {}
}

#[test]
fn a_write_and_a_rename_over_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, "1").unwrap();
    let (_guard, told) = start(&file);
    fs::write(&file, "2").unwrap();
    wait_for(&told, "2");
    for text in ["3", "4"] {
        let new = folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &file).unwrap();
        wait_for(&told, text);
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, "5").unwrap();
    wait_for(&told, "5");
}

#[test]
fn a_change_between_reading_and_watching_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, "2").unwrap();
    let (_guard, told) = start_after(&file, b"1");
    wait_for(&told, "2");
}

#[test]
fn what_changes_no_content_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, "1").unwrap();
    let (_guard, told) = start(&file);
    let other = folder.path().join("other");
    // Renamed over the file: a write would empty it first, and that is a change, told if the writer
    // is paused there.
    fs::write(&other, "1").unwrap();
    fs::rename(&other, &file).unwrap();
    fs::write(&other, "x").unwrap();
    fs::read(&file).unwrap();
    assert!(told.recv_timeout(NOTHING).is_err());
}

#[test]
fn each_of_several_files_is_told_of() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let files = ["a", "b"].map(|name| folders[usize::from(name == "b")].path().join(name));
    fs::write(&files[0], "1").unwrap();
    let (tell, told) = mpsc::channel();
    let read = files.clone();
    let _guard = watch_files(files.clone(), move || {
        let text = read.iter().map(|file| fs::read_to_string(file).unwrap_or_default());
        let _ = tell.send(text.collect::<Vec<_>>().join(" "));
    });
    wait_for(&told, "1 ");
    fs::write(&files[1], "2").unwrap();
    wait_for(&told, "1 2");
    fs::write(&files[0], "3").unwrap();
    wait_for(&told, "3 2");
}

#[test]
fn a_burst_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, "0").unwrap();
    let (_guard, told) = start(&file);
    for n in 1..=50 {
        fs::write(&file, n.to_string()).unwrap();
    }
    wait_for(&told, "50");
    assert!(told.recv_timeout(NOTHING).is_err());
}

#[test]
fn swaps_of_a_mounted_config_map_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let publish = |name: &str, text: &str| {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("config.yaml"), text).unwrap();
        symlink(name, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    publish("..1", "1");
    symlink("..data/config.yaml", at("config.yaml")).unwrap();
    let (_guard, told) = start(&at("config.yaml"));
    publish("..2", "2");
    fs::remove_dir_all(at("..1")).unwrap();
    wait_for(&told, "2");
    publish("..3", "3");
    fs::remove_dir_all(at("..2")).unwrap();
    wait_for(&told, "3");
    // The new folder is watched as well.
    fs::write(at("..3").join("config.yaml"), "3b").unwrap();
    wait_for(&told, "3b");
}

#[test]
fn a_swapped_folder_and_one_made_anew_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["r1", "r2"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("config.yaml"), name).unwrap();
    }
    symlink(at("r1"), at("current")).unwrap();
    let (_guard, told) = start(&at("current/config.yaml"));
    symlink(at("r2"), at("tmp")).unwrap();
    fs::rename(at("tmp"), at("current")).unwrap();
    wait_for(&told, "r2");
    fs::remove_dir_all(at("r2")).unwrap();
    fs::create_dir(at("r2")).unwrap();
    fs::write(at("r2").join("config.yaml"), "again").unwrap();
    wait_for(&told, "again");
    fs::write(at("r2").join("config.yaml"), "and again").unwrap();
    wait_for(&told, "and again");
}

#[test]
fn a_folder_that_is_gone_for_a_while_is_found_again() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("etc");
    let file = folder.join("config.yaml");
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "1").unwrap();
    let (_guard, told) = start(&file);
    fs::remove_dir_all(&folder).unwrap();
    assert!(told.recv_timeout(NOTHING).is_err());
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "2").unwrap();
    wait_for(&told, "2");
    fs::write(&file, "3").unwrap();
    wait_for(&told, "3");
}

#[test]
fn a_file_that_is_gone_is_told_once_and_again_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    fs::write(&path, "1").unwrap();
    let mut file = File { path: path.clone(), content: hash(&path), gone: None };
    let begun = Instant::now();
    let mut look = |after: Duration| file.look(begun + after);
    assert!(!look(Duration::ZERO));
    fs::remove_file(&path).unwrap();
    assert!(!look(GONE_AFTER) && !look(GONE_AFTER * 3 / 2), "an editor may be at work");
    assert!(look(GONE_AFTER * 2) && !look(GONE_AFTER * 4));
    fs::write(&path, "1").unwrap();
    assert!(look(GONE_AFTER * 5) && !look(GONE_AFTER * 6));
}

/// Once a process without an inotify instance noticed changes only at SIGHUP.
#[test]
fn without_events_of_the_system_the_content_is_read_at_an_interval() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    fs::write(&path, "1").unwrap();
    let (tell, told) = mpsc::channel();
    let read = path.clone();
    let changed = move || {
        let _ = tell.send(fs::read_to_string(&read).unwrap_or_default());
    };
    let file = File { path: path.clone(), content: hash(&path), gone: None };
    let full = notify::Error::io(io::Error::from_raw_os_error(24));
    let _guard =
        super::start(vec![file], Arc::default(), Err(full), sync_channel(1), changed).unwrap();
    fs::write(&path, "2").unwrap();
    wait_for(&told, "2");
    fs::write(&path, "3").unwrap();
    wait_for(&told, "3");
}

/// Once the log had the message of a library: `OS file watch limit reached. about ["/etc"]`.
#[test]
fn a_limit_of_the_system_is_named_with_what_to_raise() {
    let said = |error: notify::Error| match Unseen::from(&error) {
        Unseen::NoEvents(why) => why,
        Unseen::Gone => "gone".to_owned(),
    };
    let system = |number| notify::Error::io(io::Error::from_raw_os_error(number));
    let watches = said(notify::Error::new(ErrorKind::MaxFilesWatch));
    assert!(watches.ends_with("raise fs.inotify.max_user_watches"), "{watches}");
    let instances = said(system(24));
    assert!(instances.ends_with("raise fs.inotify.max_user_instances"), "{instances}");
    assert_eq!(
        (said(notify::Error::path_not_found()), said(system(2))),
        ("gone".into(), "gone".into())
    );
    assert!(said(system(13)).contains("denied"));
}

#[test]
fn nothing_is_told_after_the_guard() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, "1").unwrap();
    let (guard, told) = start(&file);
    fs::write(&file, "2").unwrap();
    drop(guard);
    while told.try_recv().is_ok() {}
    fs::write(&file, "3").unwrap();
    assert!(told.recv_timeout(DEADLINE).is_err_and(|e| e == mpsc::RecvTimeoutError::Disconnected));
}
