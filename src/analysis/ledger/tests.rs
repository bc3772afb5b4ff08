use proptest::prelude::*;

use super::{
    super::{
        counts::Tally,
        latency::{LATENCY_BUCKETS, Quantile, latency_bucket},
        slots::SlotCounts,
    },
    *,
};

const CANARY: usize = 1;
/// A player without requests.
const NOBODY: u16 = u16::MAX;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// A ledger of a baseline and a canary, filled by hand.
struct Book {
    ledger: Ledger,
    look: u32,
    started: [u64; 2],
    now: Duration,
}

impl Book {
    fn new() -> Self {
        let now = MS(7_000);
        let mut ledger = Ledger::new(2, 0, false, 1, now);
        ledger.look(1, [0; 2].into_iter(), now);
        Self { ledger, look: 1, started: [0; 2], now }
    }

    fn look_after(&mut self, pause: Duration) {
        self.now += pause;
        self.look += 1;
        self.ledger.look(self.look, self.started.iter().copied(), self.now);
    }

    fn ending(&self, player: u16, what: What, head_us: u32) -> Ending {
        let (look, arm, whole_us) = (self.look, 0, NO_TIME);
        let (network, group, fresh) = (player / 4, 2, false);
        let (endpoint, split) = (0, 0);
        Ending {
            look,
            split,
            arm,
            player,
            network,
            endpoint,
            group,
            fresh,
            what,
            head_us,
            whole_us,
        }
    }

    fn ask(&mut self, player: u16, what: What) {
        self.started[CANARY] += 1;
        let ending = self.ending(player, what, 1_000);
        self.ledger.add(CANARY, &ending, self.now);
    }

    /// The counts of the slot that began at `began`.
    fn slot(&self, began: Duration) -> SlotCounts {
        let mut slots = self.ledger.slots(CANARY, began);
        slots
            .next()
            .map(|(at, (_, counts))| (at, counts.canary))
            .filter(|(at, _)| *at == began)
            .expect("it is kept")
            .1
    }
}

#[test]
fn what_began_before_a_stop_has_ended_and_counts_nowhere() {
    let mut book = Book::new();
    let began = book.now;
    book.ask(1, What::Served);
    let ending = |book: &Book, player, what| book.ending(player, what, 1_000);
    let before = [What::TimedOut, What::Failed, What::Left, What::Served, What::Void];
    let before: Vec<_> = (2..).zip(before).map(|(n, what)| ending(&book, n, what)).collect();
    let later = [What::Broke, What::LeftLater, What::Whole].map(|what| ending(&book, 1, what));
    book.started[CANARY] += before.len() as u64;
    book.look_after(MS(3_000));
    book.ledger.forget_before(book.look);
    let mut add = |ending: &Ending| book.ledger.add(CANARY, ending, book.now);
    for ending in before.iter().chain(&later) {
        assert_eq!(add(ending), Counter::default(), "{:?}", ending.what);
    }
    let arm = &book.ledger.arms[CANARY];
    assert_eq!((arm.requests.trials, arm.requests.failures, arm.timed_out.len()), (1, 0, 0));
    let counts = book.slot(began);
    assert_eq!((counts.ended, counts.pending, counts.served), (6, 0, Tally::new(1, 0)));
    // Players who failed before count again.
    let after = book.now;
    book.ask(2, What::Failed);
    book.look_after(MS(10));
    assert_eq!(book.slot(after).players, Tally::new(1, 1));
}

#[test]
fn a_player_fails_once_and_is_one_trial_a_second() {
    let mut book = Book::new();
    let began = book.now;
    book.ask(1, What::Served);
    book.ask(1, What::Served);
    (0..5).for_each(|_| book.ask(1, What::Failed));
    book.ask(2, What::Served);
    book.ask(2, What::TimedOut);
    book.look_after(MS(1_000));
    let counts = book.slot(began);
    assert_eq!((counts.pending, counts.ended), (0, 9));
    assert_eq!(counts.requests, Tally::new(9, 6), "every request");
    assert_eq!(counts.players, Tally::new(4, 2), "players");
    assert_eq!((counts.served, counts.groups[2]), (counts.players, counts.players));
    let second = book.now;
    book.ask(1, What::Served);
    book.ask(3, What::Served);
    book.ask(3, What::Served);
    book.look_after(MS(10));
    assert_eq!(book.slot(second).players, Tally::new(1, 0), "one has failed, one asked twice");
}

#[test]
fn a_client_that_leaves_is_no_trial_of_errors_and_was_not_served() {
    let mut book = Book::new();
    let began = book.now;
    [(1, What::Left), (2, What::Served), (3, What::Void)]
        .iter()
        .for_each(|(p, w)| book.ask(*p, *w));
    book.started[CANARY] += 1;
    book.look_after(MS(10));
    let counts = book.slot(began);
    assert_eq!((counts.pending, counts.ended), (1, 3));
    assert_eq!((counts.players, counts.served), (Tally::new(1, 0), Tally::new(2, 1)));
}

#[test]
fn a_network_fails_once_if_networks_count() {
    let mut book = Book::new();
    book.ledger.networks = true;
    let began = book.now;
    // Four keys of one network, and one of another.
    [0, 1, 2, 3, 4].iter().for_each(|player| book.ask(*player, What::Failed));
    assert_eq!(book.slot(began).players, Tally::new(2, 2));
}

#[test]
fn an_answer_that_breaks_is_no_success_after_all() {
    let mut book = Book::new();
    let began = book.now;
    book.ask(1, What::Served);
    book.ask(2, What::Served);
    let broke = book.ending(1, What::Broke, NO_TIME);
    let left = book.ending(2, What::LeftLater, NO_TIME);
    book.look_after(MS(500));
    book.ledger.add(CANARY, &broke, book.now);
    book.ledger.add(CANARY, &left, book.now);
    let counts = book.slot(began);
    assert_eq!((counts.requests, counts.players), (Tally::new(2, 1), Tally::new(2, 1)));
    assert_eq!(counts.served, Tally::new(2, 2));
    // If its slot is gone, it counts in the current one.
    let late = Ending { player: 3, ..broke };
    (0..300).for_each(|_| book.look_after(MS(10)));
    let now = book.now;
    book.ledger.add(CANARY, &late, now);
    assert_eq!(book.slot(now).players, Tally::new(1, 1));
}

#[test]
fn who_was_slow_by_the_baselines_mark_counts_no_more() {
    let mut book = Book::new();
    let gauge = Gauge(Span::Head, Quantile::P95);
    let (own, mark) = (latency_bucket(12_000), latency_bucket(10_000));
    let add = |book: &mut Book, player, what, us| {
        let ending = book.ending(player, what, us);
        book.ledger.add(CANARY, &ending, book.now);
    };
    let trials = |book: &Book| {
        let trials = book.ledger.arms[CANARY].trials(gauge);
        (trials.iter().sum::<u32>(), trials[mark..].iter().sum::<u32>())
    };
    add(&mut book, 1, What::Served, 20_000);
    assert_eq!(trials(&book), (0, 0), "it is not known what is slow");
    book.ledger.set_slow_from(gauge, Some(Arms::new(own, mark)));
    book.look_after(MS(1_000));
    add(&mut book, 1, What::Served, 20_000);
    add(&mut book, 2, What::Served, 11_000);
    add(&mut book, 3, What::Served, 1_000);
    add(&mut book, 3, What::Served, 1_000);
    book.look_after(MS(1_000));
    add(&mut book, 1, What::Served, 20_000);
    add(&mut book, 2, What::Served, 1_000);
    assert_eq!(trials(&book), (3, 2));
    // For clients that left, only slowness is certain.
    add(&mut book, 4, What::Left, 11_000);
    add(&mut book, 5, What::Left, 13_000);
    add(&mut book, 6, What::TimedOut, NO_TIME);
    add(&mut book, 7, What::Failed, NO_TIME);
    assert_eq!(trials(&book), (5, 4));
    let all = book.ledger.arms[CANARY].latencies(Span::Head);
    assert_eq!((all.iter().sum::<u32>(), all[LATENCY_BUCKETS - 1]), (8, 1));
    assert_eq!(book.ledger.slow_from(gauge), Some(mark));
}

#[test]
fn a_request_is_timed_on_a_kept_connection_unless_the_baseline_keeps_none() {
    let mut book = Book::new();
    let add = |book: &mut Book, version, fresh| {
        let ending = Ending { fresh, ..book.ending(1, What::Served, 5_000) };
        book.ledger.add(version, &ending, book.now);
    };
    let timed = |book: &Book| book.ledger.arms[CANARY].latencies(Span::Head).iter().sum::<u32>();
    (0..2_000).for_each(|n| add(&mut book, 0, n % 5 > 0));
    add(&mut book, CANARY, true);
    add(&mut book, CANARY, false);
    assert_eq!(timed(&book), 1);
    (0..4_000).for_each(|_| add(&mut book, 0, true));
    add(&mut book, CANARY, true);
    assert_eq!(timed(&book), 2, "there is nothing else to compare");
}

#[test]
fn what_began_under_another_split_is_not_timed() {
    let mut book = Book::new();
    let old = book.ending(1, What::Served, 5_000);
    book.ledger.weight_step(2);
    book.look_after(MS(10));
    let new = book.ending(2, What::Served, 5_000);
    book.ledger.add(CANARY, &old, book.now);
    book.ledger.add(CANARY, &new, book.now);
    assert_eq!(book.ledger.arms[CANARY].latencies(Span::Head).iter().sum::<u32>(), 1);
}

#[test]
fn a_cycle_ends_when_a_quarter_was_bad_and_ten_seconds_have_passed() {
    let mut book = Book::new();
    (0..100).for_each(|player| book.ask(player, What::Served));
    (0..25).for_each(|player| book.ask(player, What::Failed));
    book.look_after(MS(11_000));
    book.ask(0, What::Failed);
    assert_eq!(book.slot(book.now).players, Tally::new(0, 0), "a quarter, not more");
    book.ask(25, What::Failed);
    book.look_after(MS(1_000));
    book.ask(0, What::Failed);
    assert_eq!(book.slot(book.now).players, Tally::new(1, 1));
    assert_eq!(book.ledger.arms[CANARY].failed.len(), 1);
}

#[test]
fn refusals_count_once_a_player() {
    let mut book = Book::new();
    (0..4).for_each(|_| {
        book.ask(1, What::Refused);
        book.look_after(MS(1_000));
    });
    book.ask(2, What::Served);
    assert_eq!(book.ledger.arms[CANARY].refusals, Counter { trials: 2, failures: 1 });
}

#[test]
fn slots_are_kept_for_as_long_as_an_outcome_is_waited_for() {
    let mut book = Book::new();
    for _ in 0..500 {
        book.ask(1, What::Served);
        book.look_after(MS(2));
    }
    let kept = book.ledger.slots(CANARY, Duration::ZERO).count();
    assert!((100..=140).contains(&kept), "{kept} slots of a second");
    book.ledger.wait_for(MS(100));
    book.look_after(MS(10));
    assert!(book.ledger.slots(CANARY, Duration::ZERO).count() <= 20);
}

/// Regression: a service without a request had hundreds of slots, which each look went through.
#[test]
fn time_without_a_request_takes_a_handful_of_slots_and_none_from_those_around_it() {
    let mut book = Book::new();
    book.ledger.wait_for(MS(30_000));
    let slots = |book: &Book| book.ledger.slots(CANARY, Duration::ZERO).count();
    (0..9_000).for_each(|_| book.look_after(MS(10)));
    assert!(slots(&book) <= QUIET_SLOTS, "{}", slots(&book));
    let first = book.now;
    book.ask(1, What::Failed);
    book.look_after(MS(10));
    (0..100).for_each(|_| book.look_after(MS(10)));
    let second = book.now;
    book.ask(2, What::Served);
    book.look_after(MS(10));
    // Each is in a slot as short as ever.
    for (began, failures) in [(first, 1), (second, 0)] {
        let mut all = book.ledger.slots(CANARY, began);
        let (at, (end, counts)) = all.next().expect("it is kept");
        assert_eq!((at, counts.canary.pending), (began, 0));
        assert_eq!(
            (counts.canary.requests.trials(), counts.canary.requests.failures()),
            (1, failures)
        );
        assert!(end.is_some_and(|end| end <= began + MS(20)), "{end:?}");
    }
    assert!(slots(&book) <= 3 * QUIET_SLOTS + 2, "{}", slots(&book));
    (0..4_000).for_each(|_| book.look_after(MS(10)));
    assert!(slots(&book) <= QUIET_SLOTS, "{}", slots(&book));
}

#[test]
fn a_start_that_is_counted_in_the_next_slot_waits_in_neither() {
    let mut book = Book::new();
    let first = book.now;
    let ending = book.ending(1, What::Served, 1_000);
    book.ledger.add(CANARY, &ending, book.now);
    book.look_after(MS(10));
    book.started[CANARY] += 1;
    book.look_after(MS(10));
    book.look_after(MS(10));
    let waits = book.ledger.slots(CANARY, first).map(|(_, (_, counts))| counts.canary.pending);
    assert_eq!(waits.sum::<u64>(), 0);
}

#[test]
fn a_failure_while_the_baseline_fails_or_hangs_is_not_the_players_own() {
    let mut book = Book::new();
    let mut player = 0;
    let mut add = |book: &mut Book, what| {
        player += 1;
        let ending = book.ending(player, what, 1_000);
        book.ledger.add(0, &ending, book.now);
    };
    let mut look = |book: &mut Book, served: u32, failed: u32, hung: u64| {
        let look = book.look;
        (0..served).for_each(|_| add(book, What::Served));
        (0..failed).for_each(|_| add(book, What::Failed));
        book.started[0] += u64::from(served + failed) + hung;
        book.look_after(MS(10));
        look
    };
    assert!(!book.ledger.baseline_serves(0, NOBODY), "nothing is known of that time");
    let good = look(&mut book, 20, 0, 0);
    assert!(book.ledger.baseline_serves(good, NOBODY));
    for _ in 0..5 {
        look(&mut book, 20, 1, 2);
    }
    assert!(book.ledger.baseline_serves(book.look, NOBODY), "as ever");
    let mut last = 0;
    (0..6).for_each(|_| last = look(&mut book, 15, 5, 0));
    assert!(!book.ledger.baseline_serves(last, NOBODY));
    (0..6).for_each(|_| last = look(&mut book, 4, 0, 16));
    assert!(!book.ledger.baseline_serves(last, NOBODY));
    (0..6).for_each(|_| last = look(&mut book, 20, 0, 0));
    assert!(book.ledger.baseline_serves(last, NOBODY));
}

/// One player whose every request fails is no outage, even if the baseline has few requests.
#[test]
fn one_player_who_fails_is_no_trouble_of_the_baseline() {
    let mut book = Book::new();
    let add = |book: &mut Book, player, what| {
        let ending = book.ending(player, what, 1_000);
        book.ledger.add(0, &ending, book.now);
        book.started[0] += 1;
    };
    for player in 0..60 {
        add(&mut book, player, What::Served);
        (0..3).for_each(|_| add(&mut book, 1_000, What::Failed));
        book.look_after(MS(10));
    }
    let look = book.look - 30;
    assert!(book.ledger.baseline_serves(look, 1_000) && book.ledger.baseline_serves(look, 5));
    for player in 0..60 {
        add(&mut book, player, What::Served);
        add(&mut book, 2_000 + player, What::Failed);
        book.look_after(MS(10));
    }
    assert!(!book.ledger.baseline_serves(book.look - 30, 2_030), "so do all others");
}

/// Most responses break after their slot was judged, since a slot is final once all heads have
/// arrived.
#[test]
fn late_outcomes_of_a_judged_slot_count_in_the_current_slot() {
    for (what, served) in [(What::Broke, true), (What::LeftLater, true), (What::TimedOut, false)] {
        let mut book = Book::new();
        let began = book.now;
        if served {
            book.ask(1, What::Served);
        } else {
            book.started[CANARY] += 1;
        }
        let late = book.ending(1, what, NO_TIME);
        book.look_after(MS(100));
        let now = book.now;
        book.ledger.read_until(now);
        book.ledger.add(CANARY, &late, now);
        let [before, after] = [book.slot(began), book.slot(now)];
        assert_eq!((before.served.failures(), before.pending), (0, 0), "{what:?}");
        assert_eq!(after.served, Tally::new(1, 1), "{what:?}");
        assert_eq!(after.players.failures(), u64::from(what != What::LeftLater), "{what:?}");
        // Requests of another split are not compared with those of this one.
        let late = Ending { player: 2, ..late };
        book.ledger.weight_step(book.look + 1);
        book.look_after(MS(100));
        book.ledger.add(CANARY, &late, book.now);
        assert_eq!(book.slot(book.now).served, Tally::default(), "{what:?}");
    }
}

#[test]
fn keys_of_one_network_are_one_trial_a_second_if_networks_count() {
    let mut book = Book::new();
    book.ledger.networks = true;
    let began = book.now;
    (0..8).for_each(|player| book.ask(player, What::Served));
    assert_eq!(book.slot(began).players, Tally::new(2, 0), "two networks of four keys");
}

proptest! {
    /// For any outcomes in any order, counts are consistent, and no player fails twice in a cycle.
    #[test]
    fn counts_fit_each_other(outcomes in prop::collection::vec((0_u16..9, 0_usize..11, 0_u64..30), 1..400)) {
        let mut book = Book::new();
        for (player, what, pause) in outcomes {
            book.ask(player, What::ALL[what]);
            book.look_after(MS(pause));
        }
        let mut failed = 0;
        for (_, (_, counts)) in book.ledger.slots(CANARY, Duration::ZERO) {
            let SlotCounts { requests, players, .. } = counts.canary;
            prop_assert!(players.failures() <= requests.failures());
            failed += players.failures();
        }
        prop_assert!(failed <= 9 * 2, "{} of nine players", failed);
    }
}
