use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::config::schema::PinOnEject;

const TERMS: PinTerms = PinTerms { idle: 10, limit: 60, on_eject: PinOnEject::Move };

fn key(n: u32) -> PinKey {
    PinKey::of(&n.to_be_bytes())
}

fn table() -> PinTable {
    let table = PinTable::default();
    assert_eq!(["v1", "v2", "v1"].map(|name| table.version(name).number), [0, 1, 0]);
    table
}

fn stays(_: Pin) -> Fate {
    Fate::Stays
}

#[test]
fn the_first_to_begin_decides_and_whoever_is_too_late_gets_its_version() {
    let table = table();
    assert_eq!(table.use_pin(key(1), 100, stays, Some(1)), None);
    assert_eq!(table.begin(key(1), 0, 100, 10), Some(0));
    assert_eq!(table.begin(key(1), 1, 100, 10), Some(0));
    assert_eq!(table.use_pin(key(1), 105, stays, Some(1)), Some(0));
    let seen = table.use_pin(
        key(1),
        106,
        |pin| {
            assert_eq!(pin, Pin { version: 0, began: 100, used: 105 });
            Fate::Moves
        },
        Some(1),
    );
    assert_eq!(seen, Some(1));
    assert_eq!(table.use_pin(key(1), 106, |_| Fate::Moves, None), Some(1), "nobody else");
    let live = |name| table.version(name).live();
    assert_eq!((live("v1"), live("v2"), table.len()), (0, 1, 1));
    table.end(key(1));
    table.end(key(1));
    assert_eq!((live("v2"), table.is_empty()), (0, true));
    assert_eq!(
        [PinEvent::Begun, PinEvent::Moved, PinEvent::Ended].map(|e| table.events(e)),
        [1; 3]
    );
}

#[test]
fn a_full_table_evicts_nobody() {
    let table = table();
    for n in 0..3 {
        assert_eq!(table.begin(key(n), 0, 100, 3), Some(0));
    }
    assert_eq!(table.begin(key(3), 1, 100, 3), None);
    assert_eq!(table.begin(key(2), 1, 100, 3), Some(0), "it is there");
    assert_eq!((table.len(), table.events(PinEvent::RefusedFull)), (3, 1));
    table.end(key(0));
    assert_eq!(table.begin(key(3), 1, 100, 3), Some(1));
}

#[test]
fn times_end_pins_by_sweeping_and_when_they_are_used() {
    let table = table();
    table.begin(key(1), 0, 100, 10);
    table.begin(key(2), 0, 105, 10);
    table.begin(key(3), 1, 105, 10);
    table.sweep(110, &TERMS);
    assert_eq!(table.len(), 3);
    table.sweep(111, &TERMS);
    assert_eq!((table.len(), table.events(PinEvent::Idle)), (2, 1));
    let ended = table.use_pin(
        key(2),
        120,
        |pin| TERMS.fate(pin, 120, crate::routing::pin::Host::Serves),
        None,
    );
    assert_eq!((ended, table.len(), table.events(PinEvent::Idle)), (None, 1, 2));
    for now in (105..=165).step_by(5) {
        assert_eq!(table.use_pin(key(3), now, stays, None), Some(1));
    }
    table.sweep(166, &TERMS);
    assert_eq!((table.len(), table.events(PinEvent::Limit)), (0, 1));
}

#[test]
fn pins_are_counted_by_version_with_the_age_of_the_oldest() {
    let table = table();
    table.begin(key(1), 0, 100, 10);
    table.begin(key(2), 0, 90, 10);
    let count = |version: &str, pins, oldest| PinCount { version: version.into(), pins, oldest };
    assert_eq!(table.counts(130), [count("v1", 2, Some(40)), count("v2", 0, None)]);
    assert_eq!(table.force(0, 1), 2);
    assert_eq!(table.force(0, 1), 0);
    assert_eq!(table.counts(130), [count("v1", 0, None), count("v2", 2, Some(40))]);
    assert_eq!((table.version("v2").live(), table.events(PinEvent::Forced)), (2, 2));
}

#[test]
fn what_changed_is_taken_once_and_can_be_put_back() {
    let table = table();
    table.begin(key(1), 0, 100, 10);
    assert!(table.take_changes(10).is_empty(), "nobody keeps it");
    let kept = |n, version: &str, began| KeptPin { key: key(n), version: version.into(), began };
    // On disk are one that has moved since and one that has ended.
    table.keep(Some(&[kept(1, "v2", 100), kept(7, "v1", 50)]));
    let first = table.take_changes(10);
    assert_eq!(first, PinChanges { set: vec![kept(1, "v1", 100)], gone: vec![key(7)] });
    assert!(table.take_changes(10).is_empty());
    table.put_back(first.clone());
    assert_eq!(table.take_changes(10), first);
    table.use_pin(key(1), 105, stays, None);
    assert!(table.take_changes(10).is_empty(), "a use is no change");
    for n in 2..7 {
        table.begin(key(n), 1, 100, 10);
    }
    assert_eq!([3, 3, 3].map(|most| table.take_changes(most).set.len()), [3, 2, 0]);
    let lost = {
        table.force(1, 0);
        table.take_changes(10)
    };
    table.end(key(2));
    table.put_back(lost);
    let again = table.take_changes(10);
    assert_eq!((again.set.len(), again.gone.iter().all(|gone| *gone == key(2))), (4, true));
    table.keep(Some(&table.all()));
    assert!(table.take_changes(10).is_empty());
}

#[test]
fn another_process_goes_on_with_the_same_pins() {
    let (old, new) = (table(), PinTable::default());
    for n in 0..100 {
        old.begin(key(n), (n % 2) as u16, 1_000 + n, 1_000);
    }
    new.load(old.all(), 5_000, 90);
    assert_eq!((new.len(), new.events(PinEvent::RefusedFull)), (90, 10));
    let seen = new.use_pin(
        key(7),
        5_000,
        |pin| {
            assert_eq!((pin.began, pin.used), (1_007, 5_000));
            Fate::Stays
        },
        None,
    );
    let name = |number: u16| new.versions()[usize::from(number)].name.clone();
    assert_eq!(seen.map(name).as_deref(), Some("v2"));
    assert_eq!(new.use_pin(key(99), 5_000, stays, None), None, "the youngest are left out");
    new.load(old.all(), 5_000, 1_000);
    assert_eq!((new.len(), new.version("v1").live(), new.version("v2").live()), (100, 50, 50));
    new.clear();
    assert_eq!((new.len(), new.version("v1").live()), (0, 0));
}

#[test]
fn workers_agree_on_a_pin_that_all_begin_at_once() {
    let table = table();
    let versions: Vec<Vec<Option<u16>>> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4_u16)
            .map(|worker| {
                let table = &table;
                scope.spawn(move || {
                    (0..2_000).map(|n| table.begin(key(n), worker % 2, 100, 1_500)).collect()
                })
            })
            .collect();
        all.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    for n in 0..2_000_u32 {
        let got: Vec<u16> = versions.iter().filter_map(|seen| seen[n as usize]).collect();
        assert!(got.windows(2).all(|pair| pair[0] == pair[1]), "{n}: {got:?}");
    }
    let live = table.version("v1").live() + table.version("v2").live();
    assert_eq!((table.len(), live), (1_500, 1_500));
}

#[test]
fn a_version_holds_cookies_until_the_last_one_that_was_seen_has_ended() {
    let version = table().version("v1");
    let now = PinTable::default().now();
    assert!(!version.holds());
    version.seen_until(now + 100);
    version.seen_until(now + 50);
    assert!(version.holds() && version.cookies_end_in().is_some_and(|left| left > 90));
    assert_eq!(version.live(), 0);
}

#[test]
fn the_clock_counts_seconds_since_1970() {
    let table = PinTable::default();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    assert!(wall.abs_diff(Duration::from_secs(table.now().into())) < Duration::from_secs(10));
}
