use std::thread;

use super::*;
use crate::policy::idempotency::Spelling;

const RULES: KeyRules = KeyRules {
    window: 3600,
    most: 1000,
    memory: 1 << 20,
    waiting: 100,
    unsure: Unsure::Conflict,
    errors: ErrorAnswers::Unsure,
};

fn table() -> Arc<KeyTable> {
    Arc::new(KeyTable::new("game\nbet", None))
}

fn print(body: &[u8]) -> Fingerprint {
    Fingerprint::of("a", ("POST", "/bets", ""), body, Spelling::Bare)
}

fn begin(table: &Arc<KeyTable>, key: &[u8]) -> KeyLease {
    match table.enter(table.id(("client-ip", b"p"), key), print(b"x"), &RULES) {
        Entered::Begin(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn answer(body: &[u8]) -> Option<KeptAnswer> {
    Some(KeptAnswer { status: 200, fields: Box::default(), body: body.into() })
}

fn count(table: &KeyTable, event: KeyEvent) -> u64 {
    table.events().find(|(of, _)| *of == event).expect("a counter").1
}

#[test]
fn an_answered_key_replays_to_its_player_and_request_only() {
    let table = table();
    begin(&table, b"k").answered(200, || answer(b"won"));
    let enter = |player: &[u8], body: &[u8]| {
        table.enter(table.id(("client-ip", player), b"k"), print(body), &RULES)
    };
    assert!(matches!(enter(b"p", b"x"), Entered::Replay(kept) if *kept.body == *b"won"));
    assert!(matches!(enter(b"p", b"y"), Entered::Mismatch));
    assert!(matches!(enter(b"q", b"x"), Entered::Begin(_)), "another player");
    assert_eq!(count(&table, KeyEvent::Answered), 1);
}

#[test]
fn a_key_whose_request_was_not_sent_is_freed_and_one_that_was_is_unsure() {
    let table = table();
    drop(begin(&table, b"unsent"));
    drop(begin(&table, b"unsent"));
    let refused = begin(&table, b"refused");
    refused.attempting();
    refused.unprocessed();
    drop(refused);
    drop(begin(&table, b"refused"));
    let lost = begin(&table, b"lost");
    lost.attempting();
    lost.attempting();
    lost.unprocessed();
    drop(lost);
    let enter = |unsure| {
        table.enter(
            table.id(("client-ip", b"p"), b"lost"),
            print(b"x"),
            &KeyRules { unsure, ..RULES },
        )
    };
    assert!(matches!(enter(Unsure::Conflict), Entered::Unsure));
    let Entered::Begin(asked) = enter(Unsure::Ask) else { panic!("it is sent again") };
    assert!(asked.was_unsure());
    drop(asked);
    assert!(
        matches!(enter(Unsure::Conflict), Entered::Unsure),
        "it may have been processed before"
    );
    assert_eq!((table.len(), count(&table, KeyEvent::Freed)), (1, 4));
}

#[test]
fn of_many_threads_with_one_key_one_begins_and_the_others_get_its_answer() {
    let table = table();
    let first = begin(&table, b"k");
    let threads: Vec<_> = (0..100)
        .map(|_| {
            let table = Arc::clone(&table);
            let id = table.id(("client-ip", b"p"), b"k");
            let Entered::Wait(wait) = table.enter(id, print(b"x"), &RULES) else { panic!("begun") };
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let ended = std::future::poll_fn(|cx| wait.poll_ended(cx));
                runtime.expect("a runtime").block_on(ended);
                matches!(table.enter(id, print(b"x"), &RULES), Entered::Replay(_))
            })
        })
        .collect();
    let id = table.id(("client-ip", b"p"), b"k");
    assert!(matches!(table.enter(id, print(b"x"), &RULES), Entered::Crowded));
    assert_eq!(table.waiting(), 100);
    first.attempting();
    first.answered(201, || answer(b"ok"));
    assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")));
    assert_eq!(table.waiting(), 0);
}

#[test]
fn keys_and_responses_are_bounded_and_a_live_key_is_never_forgotten() {
    let table = table();
    let rules = KeyRules { memory: 16 * 1000, ..RULES };
    for n in 0u32..1000 {
        let id = table.id(("client-ip", b"p"), &n.to_be_bytes());
        let Entered::Begin(lease) = table.enter(id, print(b"x"), &rules) else { panic!("room") };
        lease.attempting();
        lease.answered(200, || answer(&[7; 100]));
    }
    assert!(table.bytes() <= rules.memory);
    let enter =
        |n: u32| table.enter(table.id(("client-ip", b"p"), &n.to_be_bytes()), print(b"x"), &rules);
    assert!(matches!(enter(1000), Entered::Full(_)));
    assert!(matches!(enter(0), Entered::NotKept), "its response was too old, and it is known");
    assert!(matches!(enter(999), Entered::Replay(_)));
    let again = (0..1000).filter(|n| matches!(enter(*n), Entered::Begin(_))).count();
    assert_eq!(again, 0);
}

#[test]
fn keys_whose_time_has_passed_make_room() {
    let table = table();
    let rules = KeyRules { most: 4, ..RULES };
    let enter = |n: u32| {
        let id = table.id(("client-ip", b"p"), &n.to_be_bytes());
        table.enter(id, print(b"x"), &rules)
    };
    for round in 0u32..25 {
        for n in 4 * round..4 * round + 4 {
            let Entered::Begin(lease) = enter(n) else { panic!("room") };
            lease.attempting();
            lease.answered(200, || answer(b"ok"));
        }
        table.time.set(table.time.now_ms() + 1000 * u64::from(rules.window) - 5_000);
        assert!(matches!(enter(4 * round), Entered::Replay(_)), "its window has not passed");
        assert!(matches!(enter(u32::MAX), Entered::Full(_)));
        table.time.set(table.time.now_ms() + 6_000);
    }
    assert!(table.len() <= 4 && table.bytes() <= 8, "{} {}", table.len(), table.bytes());
}

#[test]
fn a_request_to_another_host_is_another_request_however_the_host_is_written() {
    let table = table();
    begin(&table, b"k").answered(200, || answer(b"won"));
    let enter = |host| {
        let print = Fingerprint::of(host, ("POST", "/bets", ""), b"x", Spelling::Bare);
        table.enter(table.id(("client-ip", b"p"), b"k"), print, &RULES)
    };
    assert!(matches!(enter("a"), Entered::Replay(_)));
    assert!(matches!(enter("A"), Entered::Replay(_)));
    assert!(matches!(enter("b"), Entered::Mismatch));
    assert!(matches!(enter(""), Entered::Mismatch));
}

/// Regression: each end of the same key was noted and its memory counted, which was never given back.
#[test]
fn a_key_that_is_asked_about_again_and_again_takes_no_more_memory() {
    let rules = KeyRules { unsure: Unsure::Ask, ..RULES };
    let table = table();
    let id = table.id(("client-ip", b"p"), b"k");
    let ended = || table.shards.iter().map(|shard| lock(shard).ended.len()).sum::<usize>();
    for _ in 0..1000 {
        let Entered::Begin(lease) = table.enter(id, print(b"x"), &rules) else { panic!("asked") };
        lease.attempting();
        lease.answered(500, || None);
        assert_eq!((ended(), table.len(), table.bytes()), (1, 1, 0));
    }
    let Entered::Begin(lease) = table.enter(id, print(b"x"), &rules) else { panic!("asked") };
    lease.attempting();
    lease.answered(200, || answer(b"won"));
    assert_eq!((ended(), table.bytes()), (1, answer(b"won").expect("one").bytes() as u64));
    assert!(matches!(table.enter(id, print(b"x"), &rules), Entered::Replay(_)));
}
