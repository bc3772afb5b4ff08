use super::*;
use crate::analysis::{Quantile, SlotCounts, Tally};

const WORKER: usize = 0;

fn served(us: u32) -> Outcome {
    Outcome::Served { latency_us: Some(us), refused: false }
}

struct Stage {
    state: StratumState,
    cells: EvidenceCells,
    slot: Slot,
}

impl Stage {
    fn new() -> Self {
        let state = StratumState::new(1);
        let slot = state.slot(Duration::from_secs(7));
        Self { state, cells: EvidenceCells::default(), slot }
    }

    fn asker(&self, player: u16, second: u64) -> Asker {
        Asker {
            worker: WORKER,
            player: Player(player),
            network: None,
            is_baseline: false,
            slot: self.slot,
            second,
            endpoint: 2,
        }
    }

    fn ask(&self, player: u16, second: u64, outcome: Outcome) -> Settled {
        self.cells.begun.begin(self.slot);
        self.state.settle(&self.cells, &self.asker(player, second), outcome)
    }

    fn counts(&self) -> SlotCounts {
        self.cells.begun.read(self.slot)
    }
}

#[test]
fn a_player_fails_once_and_is_one_trial_a_second() {
    let stage = Stage::new();
    stage.ask(1, 0, served(1_000));
    stage.ask(1, 0, served(1_000));
    for _ in 0..5 {
        stage.ask(1, 0, Outcome::Failed);
    }
    stage.ask(1, 1, served(1_000));
    stage.ask(2, 1, served(1_000));
    stage.ask(2, 2, Outcome::TimedOut);
    let counts = stage.counts();
    assert_eq!((counts.pending, counts.ended), (0, 10));
    assert_eq!(counts.requests, Tally::new(10, 6), "every request");
    assert_eq!(counts.players, Tally::new(4, 2), "players");
    assert_eq!(counts.groups[2], counts.players);
    assert_eq!(stage.cells.counter(), analysis::Counter { trials: 10, failures: 6 });
}

#[test]
fn a_client_that_leaves_is_no_trial_of_errors_and_was_not_served() {
    let stage = Stage::new();
    stage.ask(1, 0, Outcome::Left(900_000));
    stage.ask(2, 0, served(1_000));
    stage.ask(3, 0, Outcome::Void);
    stage.cells.begun.begin(stage.slot);
    let counts = stage.counts();
    assert_eq!((counts.pending, counts.ended), (1, 3));
    assert_eq!(counts.players, Tally::new(1, 0));
    assert_eq!(counts.served, Tally::new(2, 1));
}

fn trials(stage: &Stage, gauge: Gauge) -> (u32, u32) {
    let mut sums = [0; LATENCY_BUCKETS];
    stage.cells.add_trials(gauge, &mut sums);
    let slow = latency_bucket(10_000);
    (sums.iter().sum(), sums[slow..].iter().sum())
}

#[test]
fn who_was_slow_by_the_baselines_mark_counts_no_more() {
    let stage = Stage::new();
    let gauge = Gauge(Span::Head, Quantile::P95);
    stage.ask(1, 0, served(20_000));
    assert_eq!(trials(&stage, gauge), (0, 0), "it is not known what is slow");
    let (own, mark) = (latency_bucket(12_000), latency_bucket(10_000));
    stage.state.set_slow_from(gauge, Some(Arms::new(own, mark)));
    assert_eq!(stage.state.slow_from(gauge), Some(Arms::new(own, mark)));
    stage.ask(1, 1, served(20_000));
    stage.ask(1, 2, served(20_000));
    // Slow by the baseline's mark, and not by its own.
    stage.ask(2, 1, served(11_000));
    stage.ask(2, 2, served(1_000));
    stage.ask(3, 1, served(1_000));
    stage.ask(3, 1, served(1_000));
    assert_eq!(trials(&stage, gauge), (3, 2));
    // Of those that left it is only certain that they were slow.
    stage.ask(4, 1, Outcome::Left(11_000));
    stage.ask(5, 1, Outcome::Left(13_000));
    stage.ask(6, 1, Outcome::TimedOut);
    assert_eq!(trials(&stage, gauge), (5, 4));
    let mut all = [0; LATENCY_BUCKETS];
    stage.cells.add_latencies(Span::Head, &mut all);
    assert_eq!((all.iter().sum::<u32>(), all[LATENCY_BUCKETS - 1]), (8, 1));
}

#[test]
fn an_answer_that_breaks_is_no_success_after_all() {
    let stage = Stage::new();
    stage.ask(1, 0, served(1_000));
    stage.ask(2, 0, served(1_000));
    let now = stage.state.slot(Duration::from_millis(7_500));
    stage.state.regret(&stage.cells, &stage.asker(1, 0), false, now);
    assert_eq!(
        (stage.counts().players, stage.counts().requests),
        (Tally::new(2, 1), Tally::new(2, 1))
    );
    // A client that leaves in the middle.
    stage.state.regret(&stage.cells, &stage.asker(2, 0), true, now);
    assert_eq!(
        (stage.counts().players, stage.counts().served),
        (Tally::new(2, 1), Tally::new(2, 2))
    );
    // Its slot may be gone.
    let late = Asker { slot: stage.state.slot(Duration::from_secs(1)), ..stage.asker(3, 0) };
    stage.state.regret(&stage.cells, &late, false, now);
    let counts = stage.cells.begun.read(now);
    assert_eq!((counts.pending, counts.players), (0, Tally::new(1, 1)));
    assert_eq!(stage.cells.counter(), analysis::Counter { trials: 2, failures: 2 });
}

#[test]
fn refusals_count_once_a_player() {
    let stage = Stage::new();
    let refused = Outcome::Served { latency_us: None, refused: true };
    for second in 0..4 {
        stage.ask(1, second, refused);
    }
    stage.ask(2, 0, served(1_000));
    assert_eq!(stage.cells.refusals(), analysis::Counter { trials: 2, failures: 1 });
}

#[test]
fn a_slot_is_given_to_a_later_one_when_the_ring_is_full() {
    let stage = Stage::new();
    stage.ask(1, 0, served(1_000));
    let later = stage.state.slot(Duration::from_secs(7) + Duration::from_micros(256 << 13));
    stage.cells.begun.begin(later);
    assert_eq!(stage.counts(), SlotCounts::default());
    assert!(!stage.cells.begun.end(stage.slot, Ended::default()));
    assert_eq!(stage.cells.begun.read(later).pending, 1);
}

#[test]
fn a_ring_holds_the_deadline() {
    for ms in [10, 1_000, 1_900, 2_500, 30_000] {
        let deadline = Duration::from_millis(ms);
        let state = StratumState::new(1);
        state.set_deadline(deadline);
        assert!(Slot::ring(state.shift()) > deadline, "{ms}");
        assert!(ms > 1_900 || state.shift() == SHORTEST);
        assert_eq!(state.deadline(), Some(deadline));
    }
}

#[test]
fn an_amount_counts_in_its_bucket() {
    let cells = AmountEvidenceCells::default();
    for bucket in [7, 7, 0] {
        cells.record(bucket);
    }
    let mut sums = [0; AMOUNT_BUCKETS];
    cells.add_to(&mut sums);
    assert_eq!((sums[7], sums[0], sums.iter().sum::<u32>()), (2, 1, 3));
}
