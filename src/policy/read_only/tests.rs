use proptest::prelude::*;

use super::*;

fn at(second: u64) -> UtcTime {
    UtcTime::from_unix_ms(second * 1000)
}

fn mode(until: Option<u64>) -> Mode {
    let (by, reason) = ("ops".to_owned(), String::new());
    Mode {
        since: at(0),
        until: until.map(at),
        by,
        reason,
        message: None,
        notice: None,
        route_of: None,
    }
}

fn notice(from: u64, until: u64, services: Option<&[&str]>) -> Notice {
    let services = services.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
    let text = format!(
        "{{ \"from\": \"{}\", \"until\": \"{}\", \"read_only\": true }}",
        at(from),
        at(until)
    );
    Notice { services, ..serde_json::from_str(&text).expect("a notice") }
}

/// A process with notices, as the control plane runs it.
#[derive(Debug, Clone, Default)]
struct Stage {
    modes: Modes,
    notices: BTreeMap<String, Notice>,
    set: BTreeSet<String>,
    marks: BTreeMap<String, Mark>,
}

impl Stage {
    fn with(name: &str, notice: Notice) -> Self {
        Self { notices: [(name.to_owned(), notice)].into(), ..Self::default() }
    }

    fn due(&self, now: UtcTime) -> Vec<Step> {
        let notices = self.notices.iter().map(|(name, notice)| (name.clone(), notice)).collect();
        let planned = Planned { notices: &notices, set: &self.set, marks: &self.marks };
        due(&self.modes, planned, now)
    }

    fn tick(&mut self, second: u64) -> usize {
        let steps = self.due(at(second));
        for step in &steps {
            match step.clone() {
                Step::End { scope, settled, .. } => {
                    self.modes.remove(&scope);
                    self.settle(&scope, settled);
                }
                Step::Begin { scope, mode, ended } => {
                    self.settle(&scope, ended.unwrap_or_default());
                    self.modes.insert(scope, mode);
                }
                Step::Forget { notice } => {
                    self.notices.remove(&notice);
                    self.marks.remove(&notice);
                }
            }
        }
        steps.len()
    }

    fn settle(&mut self, scope: &Scope, settled: Settled) {
        for (notice, from) in settled {
            let mark = self.marks.entry(notice).or_default();
            if mark.from != from {
                *mark = Mark { from, ..Mark::default() };
            }
            mark.settled.insert(scope.clone());
        }
    }

    /// Somebody sets the mode of `scope`, or ends it.
    fn by_hand(&mut self, scope: &Scope, mode: Option<Mode>, second: u64) {
        let notices = self.notices.iter().map(|(name, notice)| (name.clone(), notice)).collect();
        if mode.is_none() {
            self.settle(scope, in_force(scope, &notices, at(second)));
        }
        self.modes.remove(scope);
        self.modes.extend(mode.map(|mode| (scope.clone(), mode)));
    }

    fn refuses(&self, scope: &Scope, second: u64) -> bool {
        self.modes.get(scope).is_some_and(|mode| is_read_only(mode, at(second)))
    }
}

#[test]
fn a_mode_lasts_until_its_time_or_until_somebody_ends_it() {
    for (until, now, expected) in [
        (None, u64::MAX / 2000, true),
        (Some(10), 9, true),
        (Some(10), 10, false),
        (Some(10), 11, false),
    ] {
        assert_eq!(is_read_only(&mode(until), at(now)), expected, "{until:?} at {now}");
    }
    let minute = Duration::from_secs(60);
    assert_eq!(retry_after(None, at(5), minute), 60);
    assert_eq!(retry_after(Some(at(8)), at(5), minute), 3);
    assert_eq!(retry_after(Some(UtcTime::from_unix_ms(5001)), at(5), minute), 1);
    assert_eq!(retry_after(Some(at(4)), at(5), minute), 1, "it is ending just now");
}

#[test]
fn a_notice_switches_the_mode_on_once_and_it_ends_by_itself() {
    let mut stage = Stage::with("schema", notice(100, 200, Some(&["wallet"])));
    let wallet = Scope::Service("wallet".to_owned());
    assert_eq!(stage.tick(99), 0);
    assert_eq!(stage.tick(100), 1);
    assert!(stage.refuses(&wallet, 100) && !stage.refuses(&Scope::Process, 100));
    assert_eq!(stage.tick(150), 0, "it goes on");
    let mut ended = stage.clone();
    ended.by_hand(&wallet, None, 150);
    assert_eq!(ended.tick(151), 0, "somebody has ended it early");
    assert_eq!(stage.tick(200), 1);
    assert!(!stage.refuses(&wallet, 200));
    // The clock is set back.
    assert_eq!(stage.tick(150), 0);
    assert!(!stage.refuses(&wallet, 150), "what has ended stays ended");
    stage.notices.insert("schema".to_owned(), notice(300, 400, Some(&["wallet"])));
    assert_eq!(stage.tick(301), 1, "a notice that is moved begins anew");
    assert!(stage.refuses(&wallet, 301));
}

#[test]
fn a_clock_that_jumps_over_a_notice_begins_nothing_and_ends_what_has_begun() {
    let mut stage = Stage::with("schema", notice(100, 200, None));
    let mut late = stage.clone();
    assert_eq!(late.tick(201), 0);
    stage.tick(120);
    assert!(stage.refuses(&Scope::Process, 120));
    assert_eq!(stage.tick(9_999), 1);
    assert!(stage.modes.is_empty());
}

#[test]
fn a_notice_that_changes_or_is_taken_back_takes_its_mode_along() {
    let mut stage = Stage::with("schema", notice(100, 200, None));
    stage.tick(100);
    stage.notices.insert("schema".to_owned(), notice(100, 300, None));
    assert_eq!(stage.tick(150), 1);
    assert!(stage.refuses(&Scope::Process, 299) && stage.modes[&Scope::Process].since == at(100));
    stage.notices.insert("schema".to_owned(), notice(100, 300, Some(&["wallet"])));
    stage.tick(160);
    assert!(!stage.modes.contains_key(&Scope::Process), "it concerns one service only");
    stage.notices.clear();
    stage.tick(161);
    assert!(stage.modes.is_empty());
}

#[test]
fn a_mode_that_somebody_set_outlives_a_notice() {
    let mut stage = Stage::with("schema", notice(100, 200, None));
    stage.modes.insert(Scope::Process, mode(None));
    stage.tick(100);
    assert_eq!(stage.modes[&Scope::Process], mode(None));
    stage.tick(500);
    assert!(stage.refuses(&Scope::Process, 500));
}

/// Regression: a mode with a short end replaced that of a notice, and writes went on when it ended.
#[test]
fn when_a_mode_that_somebody_set_ends_the_notice_goes_on() {
    let process = Scope::Process;
    let mut before = Stage::with("schema", notice(100, 200, None));
    before.by_hand(&process, Some(mode(Some(110))), 90);
    let mut during = Stage::with("schema", notice(100, 200, None));
    during.tick(100);
    during.by_hand(&process, Some(mode(Some(110))), 105);
    for mut stage in [before, during] {
        assert_eq!(stage.tick(109), 0, "what somebody has set stays until its end");
        assert_eq!(stage.modes[&process], mode(Some(110)));
        let steps = stage.due(at(110));
        assert!(matches!(&steps[..], [Step::Begin { ended: Some(_), .. }]), "{steps:?}");
        stage.tick(110);
        assert_eq!(stage.modes[&process].notice.as_deref(), Some("schema"));
        assert!(stage.refuses(&process, 199));
        assert_eq!(stage.tick(200), 1);
        assert!(!stage.refuses(&process, 200));
    }
    let mut ended = Stage::with("schema", notice(100, 200, None));
    ended.tick(100);
    ended.by_hand(&process, None, 105);
    ended.by_hand(&process, Some(mode(Some(110))), 106);
    ended.tick(110);
    assert!(!ended.refuses(&process, 111), "somebody has ended the notice's mode before");
}

#[test]
fn the_notice_that_follows_a_mode_is_the_last_one_to_end_of_those_that_go_on_then() {
    let all = [("a", notice(100, 200, None)), ("b", notice(150, 300, None))];
    let notices = all.iter().map(|(name, notice)| ((*name).to_owned(), notice)).collect();
    let none = BTreeMap::new();
    let ended = Mark { from: at(150), settled: [Scope::Process].into(), ..Mark::default() };
    let ended = [("b".to_owned(), ended)].into();
    let service = Scope::Service("wallet".to_owned());
    for (scope, until, marks, expected) in [
        (&Scope::Process, 99, &none, None),
        (&Scope::Process, 100, &none, Some("a")),
        (&Scope::Process, 160, &none, Some("b")),
        (&Scope::Process, 160, &ended, Some("a")),
        (&Scope::Process, 300, &none, None),
        (&service, 160, &none, None),
    ] {
        let found = follower((scope, at(until)), &notices, marks);
        assert_eq!(found.as_deref(), expected, "{scope:?} until {until}");
    }
}

#[test]
fn a_shorter_notice_goes_on_when_a_longer_one_is_taken_back_or_shortened() {
    let mut stage = Stage::with("short", notice(100, 200, None));
    stage.notices.insert("long".to_owned(), notice(150, 300, None));
    stage.tick(150);
    assert_eq!(stage.modes[&Scope::Process].until, Some(at(300)));
    let mut shortened = stage.clone();
    stage.notices.remove("long");
    assert_eq!(stage.tick(160), 1, "the other one follows at once");
    assert_eq!(stage.modes[&Scope::Process].until, Some(at(200)));
    shortened.notices.insert("long".to_owned(), notice(150, 170, None));
    shortened.tick(160);
    assert_eq!(shortened.modes[&Scope::Process].until, Some(at(200)), "it ends later now");
    shortened.tick(200);
    assert_eq!(shortened.tick(160), 0, "the clock is set back: what has ended stays ended");
}

#[test]
fn what_somebody_has_ended_stays_ended_whichever_notices_go_on() {
    let mut stage = Stage::with("short", notice(100, 200, None));
    stage.notices.insert("long".to_owned(), notice(150, 300, None));
    stage.tick(160);
    stage.by_hand(&Scope::Process, None, 170);
    assert_eq!(stage.tick(171), 0);
    stage.notices.remove("long");
    assert_eq!(stage.tick(172), 0);
    let mut early = Stage::with("short", notice(100, 200, None));
    early.tick(100);
    early.by_hand(&Scope::Process, None, 110);
    assert_eq!(early.tick(121), 0);
}

#[test]
fn a_notice_set_at_run_time_is_forgotten_when_it_is_over() {
    let mut stage = Stage::with("schema", notice(100, 200, None));
    stage.set.insert("schema".to_owned());
    stage.tick(100);
    assert_eq!(stage.tick(200), 2, "the mode ends, and the notice is forgotten");
    assert!(stage.notices.is_empty() && stage.marks.is_empty() && stage.modes.is_empty());
    assert_eq!(stage.tick(150), 0);
}

#[test]
fn each_message_is_due_once_and_the_nearest_stands_for_those_missed() {
    const HOUR: u64 = 3600;
    let notice = notice(100 * HOUR, 101 * HOUR, None);
    let before = [24, 1].map(|hours| Duration::from_secs(hours * HOUR));
    let due = |sent: Option<u64>, second: u64| {
        let sent = sent.map(|lead| ("push".to_owned(), lead)).into_iter().collect();
        let mark = Mark { from: notice.from, sent, ..Mark::default() };
        let due = message_due(&notice, &before, Some(&mark), "push", at(second));
        due.map(|lead| lead.as_secs() / HOUR)
    };
    for (sent, hour, expected) in [
        (None, 75, None),
        (None, 76, Some(24)),
        (Some(24 * HOUR), 77, None),
        (Some(24 * HOUR), 99, Some(1)),
        (None, 99, Some(1)),
        (Some(HOUR), 99, None),
        // The clock is set back.
        (Some(HOUR), 77, None),
        (None, 100, None),
    ] {
        assert_eq!(due(sent, hour * HOUR), expected, "{sent:?} at {hour}");
    }
    let moved = Mark { from: at(1), sent: [("push".to_owned(), HOUR)].into(), ..Mark::default() };
    let due = message_due(&notice, &before, Some(&moved), "push", at(80 * HOUR));
    assert_eq!(due, Some(before[0]), "a notice that was moved is announced anew");
}

proptest! {
    /// Whatever the clock does: a mode begins only within its notice, and lasts no longer.
    #[test]
    fn modes_of_notices_are_in_force_within_them_only(
        spans in prop::collection::vec((0_u64..50, 1_u64..20, prop::option::of(0_usize..2)), 0..4),
        clock in prop::collection::vec(0_u64..80, 1..60),
    ) {
        let names = ["a", "b"];
        let mut stage = Stage::default();
        for (number, (from, length, service)) in spans.iter().enumerate() {
            let services = service.map(|service| &names[service..=service]);
            stage.notices.insert(format!("n{number}"), notice(*from, from + length, services));
        }
        for now in clock {
            stage.tick(now);
            prop_assert_eq!(stage.due(at(now)), vec![], "a tick leaves nothing to be done");
            for (scope, mode) in &stage.modes {
                prop_assert!(is_read_only(mode, at(now)));
                let owner = &stage.notices[mode.notice.as_ref().expect("of a notice")];
                prop_assert!(owner.from <= at(now) && Some(owner.until) == mode.until);
                prop_assert!(scopes(owner).contains(scope));
            }
        }
    }

    /// A clock that only goes forward: writes of a service are refused exactly while a notice about it goes on that
    /// was not taken back.
    #[test]
    fn with_a_good_clock_a_notice_is_in_force_from_its_beginning_to_its_end(
        spans in prop::collection::vec((0_u64..50, 1_u64..20, prop::option::of(0_u64..70)), 0..4),
    ) {
        let mut stage = Stage::default();
        for (number, (from, length, _)) in spans.iter().enumerate() {
            stage.notices.insert(format!("n{number}"), notice(*from, from + length, None));
        }
        for now in 0..80 {
            for (number, (_, _, until)) in spans.iter().enumerate() {
                if *until == Some(now) {
                    stage.notices.remove(&format!("n{number}"));
                }
            }
            stage.tick(now);
            let expected = spans.iter().any(|(from, length, until)| {
                (*from..from + length).contains(&now) && until.is_none_or(|until| now < until)
            });
            prop_assert_eq!(stage.refuses(&Scope::Process, now), expected, "at {}", now);
        }
    }
}

/// A notice whose mode was ended early said until its end that writes were refused.
#[test]
fn a_notice_claims_nothing_where_its_mode_was_ended_early() {
    let planned = notice(10, 20, Some(&["bonus", "wallet"]));
    let wallet = Scope::Service("wallet".to_owned());
    let both = vec![Scope::Service("bonus".to_owned()), wallet.clone()];
    let mark = Mark { from: at(10), settled: [wallet].into(), ..Mark::default() };
    assert_eq!(claimed(&planned, None), both);
    assert_eq!(claimed(&planned, Some(&mark)), both[..1], "whatever else is read-only there");
    let moved = Mark { from: at(9), ..mark };
    assert_eq!(claimed(&planned, Some(&moved)), both, "it begins anew");
    let told = Notice { read_only: false, ..planned };
    assert_eq!(claimed(&told, None), []);
}

#[test]
fn a_route_is_exempt_if_none_of_its_requests_is_a_write_that_is_refused() {
    for (more, why) in [
        ("", None),
        (", class: write, match: { methods: [ GET ] }", None),
        (", match: { methods: [ GET, POST ] }", None),
        (", read_only: { hold: { queue: 5 } }", None),
        (", read_only: pass", Some("`read_only: pass`")),
        (", class: read", Some("`class: read`")),
        (", match: { methods: [ GET, HEAD ] }", Some("`methods`")),
        (", notices: true", Some("`notices: true`")),
    ] {
        let config = crate::config::parse(&format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\n\
             services: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n\
             routes: [ {{ service: a{more} }} ]\n"
        ));
        let found = exempt(&config.expect("a good file").routes[0]);
        assert_eq!(found.is_some(), why.is_some(), "{more}: {found:?}");
        assert!(found.zip(why).is_none_or(|(found, why)| found.contains(why)), "{more}: {found:?}");
    }
}
