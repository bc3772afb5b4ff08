//! Folders that cannot be written, and those in which nothing is to be left.

use std::process::Command;

use super::*;
use crate::support::lacks;

/// Runs `tidegate audit` with the folder mounted for reading only; `None` if nothing can be mounted here.
fn read_only(folder: &Path, arguments: &[&str]) -> Option<Output> {
    if lacks("unshare", "util-linux") {
        return None;
    }
    let mount = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" || exit 99; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", mount, "sh", text(folder)]);
    command.arg(program().get_program()).arg("audit").args(arguments);
    let output = command.args(["--state", text(folder)]).output().expect("it runs");
    let of = |bytes| String::from_utf8(bytes).expect("text");
    let output =
        Output { code: output.status.code(), out: of(output.stdout), error: of(output.stderr) };
    if output.code == Some(99) || output.error.contains("unshare: ") {
        assert!(std::env::var_os("CI").is_none(), "nothing can be mounted here");
        eprintln!("skipped: nothing can be mounted here");
        return None;
    }
    Some(output)
}

fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).expect("a folder");
    let name = |file: std::io::Result<fs::DirEntry>| file.expect("a file").file_name();
    let mut names: Vec<String> =
        files.map(|file| name(file).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_that_is_mounted_for_reading_is_read() {
    let fixture = Fixture::with(5);
    let crashed = fixture.beside("crashed");
    fs::create_dir(&crashed).expect("a folder");
    let journal = fixture.open();
    write(&journal, change(6));
    for file in ["journal.db", "journal.db-wal"] {
        fs::copy(fixture.folder.join(file), crashed.join(file)).expect("a file");
    }
    for folder in [&fixture.folder, &crashed] {
        // Of the first one a process writes.
        for (arguments, expected) in
            [(&["verify"][..], "intact: 7 entries"), (&["show"], "step 6"), (&["export"], "step 6")]
        {
            let Some(output) = read_only(folder, arguments) else { return };
            let out = output.done();
            assert!(out.contains(expected), "{arguments:?}: {out}");
        }
    }
    journal.close();
    let Some(output) = read_only(&fixture.folder, &["verify"]) else { return };
    assert!(output.done().contains("intact: 7 entries"));
}

#[test]
fn reading_leaves_nothing_behind() {
    let fixture = Fixture::with(3);
    let before = names(&fixture.folder);
    for arguments in
        [&["verify"][..], &["show"], &["report", "--from", "1h"], &["checkpoint", "--list"]]
    {
        fixture.run(&[&["audit"], arguments].concat()).done();
        assert_eq!(names(&fixture.folder), before, "{arguments:?}");
    }
}

#[test]
fn the_folder_is_found_by_the_configuration() {
    let fixture = Fixture::with(3);
    let file = fixture.beside("tidegate.yaml");
    let config = |state: &str| {
        // The token is in no file that this reader may read.
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nadmin: {{ address: 127.0.0.1:0, tokens: [ {{ name: ci, file: \
             /nowhere }} ] }}\n{state}services: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 \
             ] }} }} }} }}\nroutes: [ {{ service: a }} ]\n"
        );
        fs::write(&file, text).expect("a file");
    };
    config(&format!("state: '{}'\n", text(&fixture.folder)));
    let by_config = |command: &str| run(&["audit", command, "--config", text(&file)]);
    assert_eq!(
        numbers(&run(&["audit", "show", "--json", "--config", text(&file)]).done()),
        [1, 2, 3, 4]
    );
    assert!(by_config("verify").done().contains("intact: 4 entries"));
    let both = run(&["audit", "show", "--config", text(&file), "--state", text(&fixture.folder)]);
    assert_eq!(both.code, Some(2));
    config("");
    assert_says(&by_config("verify").fails(64), &["tidegate.yaml: it has no `state`"]);
    fs::write(&file, "listn: 1\n").expect("a file");
    assert!(by_config("show").fails(64).contains("did you mean `listen`?"));
}

#[test]
fn a_key_is_read_from_what_the_command_printed() {
    let fixture = Fixture::with(2);
    let made = fixture.run(&["audit", "checkpoint"]);
    let (note, key) = (fixture.beside("note"), fixture.beside("key"));
    fs::write(&note, &made.out).expect("a file");
    fs::write(&key, &made.error).expect("a file");
    let verified = fixture.run(&["audit", "verify", "--against", text(&note), "--key", text(&key)]);
    assert!(verified.done().contains("signed by the given key"));
    fs::write(&key, "nothing").expect("a file");
    let refused = fixture.run(&["audit", "verify", "--against", text(&note), "--key", text(&key)]);
    assert_says(&refused.fails(64), &["neither a public key"]);
}

#[test]
fn what_a_terminal_obeys_is_shown_escaped() {
    let fixture = Fixture::empty();
    let journal = fixture.open();
    let mut draft = change(1);
    draft.reason = "ok \u{202e}lla ot \u{2066}x\u{1b}[2J\nend".to_owned();
    write(&journal, draft);
    for command in [&["show"][..], &["report", "--from", "1h"]] {
        let out = fixture.run(&[&["audit"], command].concat()).done();
        assert!(out.contains(r"ok \u{202e}lla ot \u{2066}x\u{1b}[2J\nend"), "{out}");
    }
}

#[test]
fn a_name_that_no_entry_has_is_no_clean_record() {
    let fixture = Fixture::with(4);
    let show = |arguments: &[&str]| fixture.run(&[&["audit", "show"], arguments].concat());
    for (arguments, expected) in [
        (
            ["--kind", "weigths"],
            "is of the kind `weigths`; did you mean `weights`? there are: `genesis`, `weights`",
        ),
        (["--service", "walet"], "is about the service `walet`; did you mean `wallet`?"),
        (["--by", "eve"], "is by `eve`; "),
    ] {
        let shown = show(&arguments);
        assert!(shown.error.contains(expected), "{shown:?}");
        assert_eq!(shown.done(), "no entries\n");
    }
    assert_eq!(show(&["--kind", "weights", "--to", "1h"]).error, "");
}
