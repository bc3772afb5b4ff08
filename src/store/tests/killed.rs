//! A process that writes is killed at random moments, again and again, and goes on in the same folder.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

/// The folder for the process that is killed.
const FOLDER: &str = "TIDEGATE_TEST_KILLED_FOLDER";

/// Number of kills, if it is not 30.
const ROUNDS: &str = "TIDEGATE_TEST_KILLS";

/// The process that is killed; nothing otherwise.
#[test]
fn process_that_writes() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let journal = open(Path::new(&folder));
    let round = journal.health().head.seq;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (journal, actor) = (&journal, format!("thread-{thread}"));
            scope.spawn(move || {
                for n in round + 1.. {
                    if n % 7 == 0 {
                        journal.write_late(draft(&actor, n), state(&actor, n));
                        continue;
                    }
                    let head = write(journal, &actor, n).unwrap();
                    println!("kept {} {} {actor} {n} .", head.seq, head.hash);
                }
            });
        }
    });
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there() {
    let rounds = std::env::var(ROUNDS).map_or(30, |rounds| rounds.parse().expect("a number"));
    let mut folder = tempfile::tempdir().unwrap();
    let mut kept: BTreeMap<u64, (String, String, u64)> = BTreeMap::new();
    let mut count = 0;
    let mut random = fastrand::Rng::new();
    for round in 0..rounds {
        // All of a journal is read in each round.
        if kept.len() > 2000 {
            count += kept.len();
            kept.clear();
            folder = tempfile::tempdir().unwrap();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::tests::killed::process_that_writes", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut take = |line: String| {
            let words: Vec<&str> = line.split(' ').collect();
            if let ["kept", seq, hash, actor, n, "."] = words[..] {
                let what = (hash.to_owned(), actor.to_owned(), n.parse().unwrap());
                assert_eq!(kept.insert(seq.parse().unwrap(), what), None, "{line}");
            }
        };
        for _ in 0..random.usize(0..60) {
            if let Some(line) = lines.next() {
                take(line.unwrap());
            }
        }
        // At any moment within a commit, too.
        std::thread::sleep(Duration::from_micros(random.u64(0..3000)));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| take(line.unwrap()));

        // Opening looks for damage, since the end was not a clean one.
        drop(open(folder.path()));
        let verification = assert_intact(folder.path());
        let reader = Reader::open(folder.path()).unwrap();
        let mut last: BTreeMap<String, (u64, serde_json::Value)> = BTreeMap::new();
        let (mut after, mut found) = (0, 0);
        loop {
            let filter = Filter { after, limit: Some(MOST_SHOWN), ..Filter::default() };
            let shown = reader.show(&filter).unwrap();
            let Some(end) = shown.last() else { break };
            after = end.entry.seq;
            for Stored { entry, hash, .. } in shown {
                if let Some((known, actor, n)) = kept.get(&entry.seq) {
                    assert_eq!((known, actor), (&hash.to_string(), &entry.actor.name));
                    assert_eq!(entry.after, json!({ "n": n }));
                    found += 1;
                }
                last.insert(entry.actor.name, (entry.seq, entry.after));
            }
        }
        assert_eq!(found, kept.len(), "round {round}: acknowledged changes are missing");
        assert_eq!(after, verification.head.seq);
        // No entry without its state, no state without its entry.
        last.remove("tidegate");
        let state = reader.state().unwrap();
        let state = state.into_iter().map(|(actor, value)| (actor, (value.seq, value.value)));
        assert_eq!(state.collect::<BTreeMap<_, _>>(), last, "round {round}");
    }
    count += kept.len();
    println!("measured: {rounds} kills, {count} acknowledged changes");
    assert!(rounds < 30 || count > rounds, "hardly anything was acknowledged");
}
