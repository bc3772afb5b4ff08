use proptest::prelude::*;

use super::*;

const DEADLINE: Duration = Duration::from_secs(2);

fn raise(queue: usize) -> Event {
    Event::Raise { deadline: DEADLINE, queue }
}

#[test]
fn writes_wait_until_the_old_version_is_quiet_and_go_on_in_their_order() {
    let (mut fence, t0) = (Fence::default(), Instant::now());
    let ms = |n| t0 + Duration::from_millis(n);
    assert_eq!(fence.on(Event::Arrive, t0), [Action::Pass]);
    assert_eq!(fence.on(raise(2), t0), [Action::Raised]);
    assert_eq!(fence.on(raise(2), t0), [Action::Busy]);
    assert_eq!(fence.on(Event::Arrive, ms(1)), [Action::Hold(0)]);
    assert_eq!(fence.on(Event::Arrive, ms(3)), [Action::Hold(1)]);
    assert_eq!(fence.on(Event::Arrive, ms(4)), [Action::Refuse]);
    assert_eq!(fence.on(Event::Tick, ms(1_999)), []);
    assert_eq!(fence.on(Event::Quiet, ms(20)), [Action::Move]);
    assert_eq!(fence.on(Event::Quiet, ms(20)), [], "once");
    assert_eq!(fence.on(Event::Tick, ms(9_000)), [], "it moves already");
    let waited = Duration::from_millis(20);
    assert_eq!(fence.on(Event::Moved, ms(21)), [Action::Call(0, waited)]);
    // Whoever arrives now waits behind them.
    assert_eq!(fence.on(Event::Arrive, ms(22)), [Action::Hold(2)]);
    assert_eq!(fence.on(Event::Leave(0), ms(23)), [Action::Call(1, waited)]);
    assert_eq!(fence.on(Event::Leave(2), ms(23)), [], "its client has left");
    assert_eq!(fence.on(Event::Leave(1), ms(24)), [Action::Opened]);
    assert_eq!(fence.on(Event::Arrive, ms(25)), [Action::Pass]);
}

#[test]
fn at_the_deadline_the_move_is_undone_whoever_notices_it_first() {
    for noticed_by in [Event::Tick, Event::Quiet] {
        let (mut fence, t0) = (Fence::default(), Instant::now());
        fence.on(raise(9), t0);
        fence.on(Event::Arrive, t0);
        let undone = fence.on(noticed_by, t0 + DEADLINE);
        assert_eq!(undone, [Action::Undone, Action::Call(0, DEADLINE)], "{noticed_by:?}");
        assert_eq!(fence.on(Event::Quiet, t0 + DEADLINE), []);
        assert_eq!(fence.on(Event::Leave(0), t0 + DEADLINE), [Action::Opened]);
        assert_eq!(fence.on(Event::Undo, t0 + DEADLINE), [], "there is nothing to undo");
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Happens(Event),
    /// The called write begins.
    Begin,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0_usize..4).prop_map(|queue| Step::Happens(raise(queue))),
        6 => Just(Step::Happens(Event::Arrive)),
        2 => (0_u64..12).prop_map(|ticket| Step::Happens(Event::Leave(ticket))),
        2 => Just(Step::Happens(Event::Quiet)),
        2 => Just(Step::Happens(Event::Moved)),
        1 => Just(Step::Happens(Event::Undo)),
        2 => Just(Step::Happens(Event::Tick)),
        4 => Just(Step::Begin),
        2 => (0_u64..1_500).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn nobody_overtakes_nothing_is_lost_and_a_move_is_allowed_at_most_once_and_in_time(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let (mut fence, mut now) = (Fence::default(), Instant::now());
        let (mut waiting, mut called) = (Vec::<Ticket>::new(), None::<Ticket>);
        let (mut until, mut moves) = (None::<Instant>, 0);
        for step in steps {
            let event = match step {
                Step::Happens(event) => event,
                Step::Begin => match called { Some(ticket) => Event::Leave(ticket), None => Event::Tick },
                Step::Pass(ms) => { now += Duration::from_millis(ms); Event::Tick }
            };
            if let Event::Leave(ticket) = event {
                waiting.retain(|other| *other != ticket);
                called = called.filter(|other| *other != ticket);
            }
            for action in fence.on(event, now) {
                match action {
                    Action::Raised => {
                        prop_assert!(until.is_none() && waiting.is_empty() && called.is_none());
                        (until, moves) = (Some(now + DEADLINE), 0);
                    }
                    Action::Pass => prop_assert!(until.is_none()),
                    Action::Hold(ticket) => {
                        prop_assert!(until.is_some() && waiting.last().is_none_or(|last| *last < ticket));
                        waiting.push(ticket);
                    }
                    Action::Move => {
                        moves += 1;
                        prop_assert!(until.is_some_and(|until| now < until) && moves == 1);
                    }
                    Action::Undone => prop_assert!(moves == 0 || event == Event::Undo),
                    Action::Call(ticket, _) => {
                        prop_assert_eq!(waiting.first(), Some(&ticket), "the first");
                        prop_assert!(called.is_none(), "one at a time");
                        waiting.remove(0);
                        called = Some(ticket);
                    }
                    Action::Opened => {
                        prop_assert!(waiting.is_empty() && called.is_none());
                        until = None;
                    }
                    Action::Busy => prop_assert!(until.is_some()),
                    Action::Refuse => prop_assert!(until.is_some()),
                }
            }
            prop_assert_eq!(fence.waiting(), waiting.len());
            prop_assert_eq!(fence.is_open(), until.is_none());
        }
        // Whatever happened: it is undone, and once everybody has begun it is open.
        now += DEADLINE;
        fence.on(Event::Tick, now);
        fence.on(Event::Undo, now);
        for ticket in 0..100 {
            fence.on(Event::Leave(ticket), now);
        }
        prop_assert!(fence.is_open());
    }
}
