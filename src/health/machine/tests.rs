use proptest::prelude::*;

use super::*;

fn checked() -> schema::Health {
    schema::Health { http: Some(schema::HttpCheck::default()), ..Default::default() }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn good(settings: &schema::Health) -> Health {
    let mut health = Health::new(settings, at(0), 0.5);
    health.probed(true, settings, at(0), 0.5);
    health
}

#[test]
fn bad_checks_in_a_row_take_it_down_and_good_ones_bring_it_back() {
    let settings = checked();
    let mut health = good(&settings);
    let mut states = Vec::new();
    for (is_good, now) in "bbgbbbgbgg".chars().zip(1..) {
        health.probed(is_good == 'g', &settings, at(now), 0.5);
        states.push(health.state());
    }
    use State::{Down, Serving};
    let expected = [Serving; 5].into_iter().chain([Down; 4]).chain([Serving]);
    assert!(states.iter().copied().eq(expected), "{states:?}");
}

#[test]
fn one_bad_check_is_enough_where_none_was_good() {
    let settings = checked();
    let mut health = Health::new(&settings, at(0), 0.5);
    assert_eq!(health.state(), State::Serving, "serving until a check fails");
    health.probed(false, &settings, at(1), 0.5);
    assert_eq!(health.state(), State::Down);
}

#[test]
fn faults_in_a_row_eject_it_for_longer_each_time_and_a_probe_brings_it_back() {
    let settings = schema::Health::default();
    let mut health = Health::new(&settings, at(0), 0.5);
    assert_eq!(health.next_probe(), None, "without checks there are no probes");
    let mut now = at(1);
    for times in 1..=12 {
        health.connected(2, 0, Company::Others, &settings, now);
        health.connected(5, 1, Company::Others, &settings, now);
        health.connected(2, 0, Company::Others, &settings, now);
        assert_eq!(health.state(), State::Serving, "a success in between");
        health.connected(1, 0, Company::Others, &settings, now);
        assert_eq!((health.state(), health.cause()), (State::Ejected, Some(Cause::Connect)));
        let until = now + PAUSE * times.min(10);
        assert_eq!(
            (health.until(), health.next_change(&settings, now)),
            (Some(until), Some(until))
        );
        health.advance(&settings, until - Duration::from_nanos(1));
        assert_eq!((health.state(), health.next_probe()), (State::Ejected, None));
        health.advance(&settings, until);
        assert_eq!((health.state(), health.next_probe()), (State::Probing, Some(until)));
        health.probed(false, &settings, until, 0.5);
        assert_eq!(health.state(), State::Probing);
        assert_eq!(health.next_probe(), Some(until + settings.interval));
        now = until + settings.interval;
        health.probed(true, &settings, now, 0.5);
        assert_eq!((health.state(), health.next_probe()), (State::Serving, None));
        assert_eq!(health.cause(), None);
    }
    now += PAUSE * LONGEST_PAUSE;
    health.connected(3, 0, Company::Others, &settings, now);
    assert_eq!(health.until(), Some(now + PAUSE), "a long time of serving resets the pause");
}

#[test]
fn the_only_endpoint_is_not_ejected_and_zero_faults_eject_nobody() {
    let settings = schema::Health::default();
    let mut health = Health::new(&settings, at(0), 0.5);
    health.connected(100, 0, Company::Alone, &settings, at(1));
    assert_eq!(health.state(), State::Serving);
    let never = schema::Health { connect_faults: 0, ..settings };
    let mut health = Health::new(&never, at(0), 0.5);
    health.connected(100, 0, Company::Others, &never, at(1));
    assert_eq!(health.state(), State::Serving);
}

/// Regression: without checks and without players nothing told that the only endpoint could be connected again.
#[test]
fn the_only_endpoint_is_probed_while_it_cannot_be_connected() {
    let settings = schema::Health::default();
    let mut health = Health::new(&settings, at(0), 0.5);
    health.connected(9, 0, Company::Alone, &settings, at(1));
    assert_eq!(
        (health.is_unreachable(), health.next_probe()),
        (true, Some(at(1) + settings.interval))
    );
    for now in [3, 5, 7, 9] {
        health.advance(&settings, at(now));
        health.probed(false, &settings, at(now), 0.5);
        assert_eq!(
            (health.state(), health.is_unreachable()),
            (State::Serving, true),
            "it has no checks"
        );
        assert_eq!(health.next_probe(), Some(at(now) + settings.interval));
    }
    health.probed(true, &settings, at(11), 0.5);
    assert_eq!((health.is_unreachable(), health.next_probe()), (false, None));
    health.connected(1, 0, Company::Alone, &settings, at(12));
    assert!(!health.is_unreachable(), "what was before that is forgotten");
    // A request finds it, too.
    health.connected(9, 0, Company::Alone, &settings, at(13));
    health.connected(0, 1, Company::Alone, &settings, at(14));
    health.advance(&settings, at(14));
    assert_eq!((health.is_unreachable(), health.next_probe()), (false, None));
}

#[test]
fn who_went_by_word_comes_back_by_word() {
    let settings = checked();
    let mut health = good(&settings);
    assert!(health.eject(Cause::Manual, None, at(1)));
    health.advance(&settings, at(100_000));
    assert_eq!((health.state(), health.next_probe()), (State::Ejected, None));
    assert_eq!(health.next_change(&settings, at(100_000)), None, "nothing to wake up for");
    health.reinstate(&settings, at(100_001));
    assert_eq!((health.state(), health.next_probe()), (State::Serving, Some(at(100_001))));
}

#[test]
fn an_endpoint_that_is_down_is_not_ejected_but_by_word() {
    let settings = checked();
    let mut health = Health::new(&settings, at(0), 0.5);
    health.probed(false, &settings, at(1), 0.5);
    assert!(!health.eject(Cause::Peers, Some(at(9)), at(2)));
    health.connected(9, 0, Company::Others, &settings, at(2));
    assert_eq!(health.state(), State::Down);
    health.reinstate(&settings, at(2));
    assert_eq!(health.state(), State::Down, "its checks decide");
    assert!(health.eject(Cause::Manual, None, at(3)));
    assert_eq!(health.state(), State::Ejected);
}

#[test]
fn without_checks_nobody_stays_down() {
    let settings = checked();
    let mut health = Health::new(&settings, at(0), 0.5);
    health.probed(false, &settings, at(1), 0.5);
    health.advance(&schema::Health::default(), at(2));
    assert_eq!((health.state(), health.next_probe()), (State::Serving, None));
}

#[test]
fn who_comes_back_begins_with_a_tenth_and_whoever_came_first_with_all() {
    let settings = checked();
    assert_eq!(Health::new(&settings, at(0), 0.5).share(&settings, at(0)), WHOLE);
    let mut health = good(&settings);
    health.eject(Cause::Peers, Some(at(10)), at(1));
    assert_eq!(health.share(&settings, at(1)), 0);
    health.advance(&settings, at(10));
    health.probed(true, &settings, at(10), 0.5);
    assert_eq!(health.share(&settings, at(10)), FIRST_SHARE);
    assert_eq!(health.share(&settings, at(25)), FIRST_SHARE + (WHOLE - FIRST_SHARE) / 2);
    assert_eq!(health.share(&settings, at(40)), WHOLE);
    let at_once = schema::Health { slow_start: Duration::ZERO, ..settings };
    assert_eq!(health.share(&at_once, at(10)), WHOLE);
    assert_eq!(health.next_change(&at_once, at(10)), None);
}

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Probe(bool),
    Attempts(u64, u64),
    Worse,
    Out,
    In,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0u64..400_000).prop_map(Event::Pass),
        4 => any::<bool>().prop_map(Event::Probe),
        3 => (0u64..5, 0u64..2).prop_map(|(faults, successes)| Event::Attempts(faults, successes)),
        1 => Just(Event::Worse),
        1 => Just(Event::Out),
        1 => Just(Event::In),
    ];
    prop::collection::vec(event, 0..60)
}

proptest! {
    #[test]
    fn whatever_happens_there_is_a_way_back(events in events(), is_checked: bool, chance in 0.0..1.0) {
        let settings = if is_checked { checked() } else { schema::Health::default() };
        let (mut now, mut health) = (at(1), Health::new(&settings, at(1), chance));
        for event in events {
            let before = health.clone();
            match event {
                Event::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    health.advance(&settings, now);
                }
                // Only due probes are sent.
                Event::Probe(is_good) => {
                    if health.next_probe().is_some_and(|due| due <= now) {
                        health.probed(is_good, &settings, now, chance);
                    }
                }
                Event::Attempts(f, s) => health.connected(f, s, Company::Others, &settings, now),
                Event::Worse => drop(health.eject(Cause::Peers, Some(now + PAUSE), now)),
                Event::Out => drop(health.eject(Cause::Manual, None, now)),
                Event::In => health.reinstate(&settings, now),
            }
            let share = health.share(&settings, now);
            prop_assert!(share <= WHOLE && (share > 0) == (health.state() == State::Serving));
            if before.state() == State::Serving && health.state() == State::Serving {
                prop_assert!(share >= before.share(&settings, now), "a share only grows");
            }
            prop_assert!(health.next_change(&settings, now).is_none_or(|next| next > now));
            match health.state() {
                State::Serving => prop_assert_eq!(health.next_probe().is_some(), is_checked),
                State::Down => prop_assert!(is_checked && health.next_probe().is_some()),
                State::Probing => prop_assert!(health.next_probe().is_some() && health.cause().is_some()),
                State::Ejected => prop_assert_eq!(health.until().is_none(), health.cause() == Some(Cause::Manual)),
            }
        }
        // From any state, good probes bring it back, and an operator if one ejected it.
        if health.cause() == Some(Cause::Manual) {
            health.reinstate(&settings, now);
        }
        for _ in 0..4 {
            let next = health.next_probe().or(health.next_change(&settings, now)).unwrap_or(now);
            now = now.max(next);
            health.advance(&settings, now);
            if health.next_probe().is_some_and(|due| due <= now) {
                health.probed(true, &settings, now, chance);
            }
        }
        prop_assert_eq!(health.state(), State::Serving);
    }
}
