use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::atomic::AtomicU32,
    task::Wake,
    thread,
};

use super::*;
use Priority::{High, Low, Normal};

fn terms(max: u32, queue: u32) -> PlaceTerms {
    PlaceTerms { max, queue, parts: Parts::new(0.1, [Normal]), adaptive: None }
}

fn state(max: u32, queue: u32) -> Arc<PlaceState> {
    Arc::new(PlaceState::new(terms(max, queue)))
}

#[track_caller]
fn taken(asking: Asking) -> Place {
    match asking {
        Asking::Taken(place) => place,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn waits(asking: Asking) -> PlaceWait {
    match asking {
        Asking::Wait(wait) => wait,
        other => panic!("{other:?}"),
    }
}

fn poll(wait: &mut PlaceWait) -> Poll<Option<Place>> {
    wait.poll_called(&Context::from_waker(Waker::noop()))
}

#[track_caller]
fn called(wait: &mut PlaceWait) -> Place {
    match poll(wait) {
        Poll::Ready(Some(place)) => place,
        other => panic!("{other:?}"),
    }
}

fn shed(state: &PlaceState, priority: Priority, reason: Shed) -> u64 {
    let found = state.shed().find(|(p, r, _)| (*p, *r) == (priority, reason));
    found.map_or(0, |(_, _, count)| count)
}

#[test]
fn places_are_given_in_order_and_by_importance() {
    let state = state(2, 3);
    let (first, second) = (taken(state.ask(Low)), taken(state.ask(Normal)));
    let (mut a, mut b) = (waits(state.ask(Low)), waits(state.ask(Normal)));
    let mut c = waits(state.ask(Normal));
    assert!(matches!(state.ask(Low), Asking::Full));
    let mut d = waits(state.ask(High));
    assert!(matches!(poll(&mut a), Poll::Ready(None)), "its place in the queue is needed");
    assert!(poll(&mut b).is_pending() && poll(&mut c).is_pending() && poll(&mut d).is_pending());
    drop(first);
    let high = called(&mut d);
    assert!(poll(&mut b).is_pending());
    drop(second);
    assert!(poll(&mut c).is_pending(), "it came after the other one");
    let normal = called(&mut b);
    // Nobody overtakes those who wait and are as important; who is more important does.
    drop(high);
    assert!(matches!(state.ask(Normal), Asking::Wait(_)));
    drop(called(&mut c));
    let high = taken(state.ask(High));
    assert_eq!((state.in_flight(), state.waiting()), (2, 0));
    drop((high, normal));
    assert_eq!(state.in_flight(), 0);
    assert_eq!((shed(&state, Low, Shed::Full), shed(&state, Low, Shed::Displaced)), (1, 1));
    assert_eq!(shed(&state, Normal, Shed::Left), 1);
    assert_eq!(state.waits().count(), 3);
}

#[test]
fn a_place_that_was_given_to_somebody_who_has_left_goes_on() {
    let state = state(1, 2);
    let first = taken(state.ask(Normal));
    let (a, mut b) = (waits(state.ask(Normal)), waits(state.ask(Normal)));
    drop(first);
    a.give_up(Shed::Late);
    drop(called(&mut b));
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
    assert_eq!(shed(&state, Normal, Shed::Late), 1);
}

#[test]
fn terms_change_while_requests_are_in_flight() {
    let state = state(2, 2);
    let places = [taken(state.ask(Normal)), taken(state.ask(Normal))];
    let (mut a, mut b) = (waits(state.ask(Normal)), waits(state.ask(Normal)));
    state.adopt(terms(3, 2), Duration::ZERO);
    let third = called(&mut a);
    assert!(poll(&mut b).is_pending());
    state.adopt(terms(1, 0), Duration::ZERO);
    assert!(matches!(state.ask(High), Asking::Full));
    drop((third, places));
    // Who waits already waits on.
    drop(called(&mut b));
    assert_eq!((state.in_flight(), state.limit()), (0, 1));
}

#[test]
fn a_limit_that_follows_latencies_grows_only_when_it_is_reached() {
    let rules = Rules { min: 1, max: 100, initial: 10, tolerance: 0.25 };
    let state = Arc::new(PlaceState::new(PlaceTerms { adaptive: Some(rules), ..terms(100, 0) }));
    let latency = LatencyState::new(7, 2);
    let second = |state: &PlaceState, from: u64| {
        for tick in 0..10 {
            (0..100).for_each(|n| latency.add(n % 2, 10_000));
            let now = Duration::from_millis(1000 * from + 100 * tick);
            assert!(state.tick(std::iter::once((latency.id, latency.all())), 0, now));
        }
    };
    second(&state, 1);
    assert_eq!(state.limit(), 10, "nobody was near it");
    let places: Vec<_> = (0..10).map(|_| taken(state.ask(Normal))).collect();
    assert!(matches!(state.ask(Normal), Asking::Full));
    second(&state, 2);
    drop(places);
    second(&state, 3);
    let grown = state.limit();
    assert!(grown > 10, "{grown}");
    second(&state, 4);
    assert_eq!(state.limit(), grown);
    let idle = state.tick(std::iter::once((latency.id, latency.all())), 0, Duration::from_secs(9));
    assert!(!idle, "there was no response");
    state.adopt(terms(100, 0), Duration::ZERO);
    assert_eq!(state.limit(), 100);
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A storm of requests of all priorities on many threads, of which some give up: the limit holds at every moment, nobody is
/// forgotten, and all places are there in the end.
#[test]
fn a_storm_leaves_no_place_taken_and_nobody_waiting() {
    const LIMIT: u32 = 5;
    let state = Arc::new(PlaceState::new(PlaceTerms {
        parts: Parts::new(0.2, Priority::ALL),
        ..terms(LIMIT, 6)
    }));
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let storm = |seed: u64| {
        let (state, now, most) = (Arc::clone(&state), Arc::clone(&now), Arc::clone(&most));
        move || {
            let mut random = fastrand::Rng::with_seed(seed);
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            let mut got = 0u32;
            for _ in 0..5_000 {
                let place = match state.ask(Priority::ALL[random.usize(..3)]) {
                    Asking::Taken(place) => Some(place),
                    Asking::Full => None,
                    Asking::Wait(wait) if random.u8(..4) == 0 => {
                        drop(wait);
                        None
                    }
                    Asking::Wait(mut wait) => loop {
                        match wait.poll_called(&Context::from_waker(&waker)) {
                            Poll::Ready(place) => break place,
                            Poll::Pending => thread::park_timeout(Duration::from_secs(30)),
                        }
                    },
                };
                let Some(place) = place else { continue };
                got += 1;
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                if random.bool() {
                    thread::yield_now();
                }
                now.fetch_sub(1, SeqCst);
                drop(place);
            }
            got
        }
    };
    let threads: Vec<_> = (0..12).map(|seed| thread::spawn(storm(seed))).collect();
    let got: u32 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    let most = most.load(SeqCst);
    println!("{got} of 60000 got a place, at most {most} at once");
    assert!(most <= LIMIT && got > 1_000, "{most} at once, {got} in all");
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
    assert!(state.lock().called.is_empty());
    let places: Vec<_> = (0..LIMIT).map(|_| taken(state.ask(High))).collect();
    assert_eq!(places.len() as u32, LIMIT);
}

/// A server behind a limit gets twice what it can do.
#[test]
fn under_twice_the_capacity_the_important_lose_nothing_while_others_are_there() {
    const LIMIT: u32 = 20;
    const WORK_MS: f64 = 10.0;
    const PATIENCE_MS: f64 = 500.0;
    const SPAN_MS: f64 = 15_000.0;
    for (seed, queue) in [(1, 100), (2, 20), (3, 200)] {
        let parts = Parts::new(0.1, Priority::ALL);
        let state = Arc::new(PlaceState::new(PlaceTerms { parts, ..terms(LIMIT, queue) }));
        let mut random = fastrand::Rng::with_seed(seed);
        let mut exponential = |mean: f64| -mean * (1.0 - random.f64()).ln();
        // Parts of the capacity that each priority asks for.
        let asked = [0.5, 0.4, 1.1];
        let capacity = f64::from(LIMIT) / WORK_MS;
        let mut next = asked.map(|part| exponential(1.0 / (part * capacity)));
        let mut busy: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let mut places: Vec<Option<Place>> = Vec::new();
        let mut waiting: VecDeque<(f64, PlaceWait)> = VecDeque::new();
        let (mut came, mut served, mut now) = ([0u32; 3], [0u32; 3], 0.0);
        while now < SPAN_MS {
            let ends = busy.peek().map_or(f64::MAX, |Reverse((ends, _))| *ends as f64 / 1e6);
            let who = if next[0] <= next[1].min(next[2]) {
                0
            } else {
                1 + usize::from(next[2] < next[1])
            };
            let mut begun: Vec<(usize, Place)> = Vec::new();
            if ends <= next[who] {
                now = ends;
                let place = busy.pop().map(|Reverse((_, place))| place);
                drop(place.and_then(|place| places[place].take()));
            } else {
                now = next[who];
                next[who] += exponential(1.0 / (asked[who] * capacity));
                came[who] += 1;
                match state.ask(Priority::ALL[who]) {
                    Asking::Taken(place) => begun.push((who, place)),
                    Asking::Wait(wait) => waiting.push_back((now, wait)),
                    Asking::Full => {}
                }
            }
            for (since, mut wait) in std::mem::take(&mut waiting) {
                let who = wait.priority as usize;
                match poll(&mut wait) {
                    Poll::Ready(Some(place)) => begun.push((who, place)),
                    Poll::Ready(None) => {}
                    Poll::Pending if now - since > PATIENCE_MS => wait.give_up(Shed::Late),
                    Poll::Pending => waiting.push_back((since, wait)),
                }
            }
            for (who, place) in begun {
                served[who] += 1;
                busy.push(Reverse((((now + exponential(WORK_MS)) * 1e6) as u64, places.len())));
                places.push(Some(place));
            }
            assert!(busy.len() <= LIMIT as usize);
        }
        let part = |who: usize| f64::from(served[who]) / f64::from(came[who]);
        println!(
            "queue {queue}: served {:.3} high, {:.3} normal, {:.3} low",
            part(0),
            part(1),
            part(2)
        );
        let lost =
            |priority| Shed::ALL.map(|reason| shed(&state, priority, reason)).iter().sum::<u64>();
        assert_eq!(lost(High), 0, "queue {queue}: {came:?} {served:?}");
        assert!(
            part(1) > 0.9 && (0.005..0.2).contains(&part(2)),
            "queue {queue}: {came:?} {served:?}"
        );
        let work = f64::from(served.iter().sum::<u32>()) / (SPAN_MS * capacity);
        // What is kept for the important is free when they do not need it.
        assert!(work > 0.88, "queue {queue}: the server worked for {work} of the time");
    }
}
