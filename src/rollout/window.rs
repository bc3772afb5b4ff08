//! May rollouts of a service grow at an instant, and when does that change?
//!
//! Growth is frozen while a freezing window of the service is in force; and, if it has windows that allow
//! growth, while none of these is. Windows are local times in a named zone, so on a day on which the clocks
//! change a local time may not exist, or exist twice. In doubt growth is frozen: such a freeze begins at the
//! earlier instant and ends at the later one, and leave to grow the other way round.
//!
//! The result depends on the instant alone, so a clock that is set back yields the result of that time. The rules
//! of zones are those that the program was built with.
//!
//! Windows concern growth only; rollbacks and ejections are always allowed.

use std::{collections::BTreeMap, time::SystemTime};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::state::Frozen;
use crate::config::schema::{Weekly, Window, time_zone};

/// Days ahead that are searched for a change of a weekly window, and days before for its begin: two weeks and a change
/// of clocks.
const HORIZON: usize = 16;

/// A weekly window that was in force for longer has no begin: its spans follow each other without a gap.
const ALWAYS: SignedDuration = SignedDuration::from_hours(8 * 24);

/// Days on which spans begin that may contain an instant: a span lasts a day and an hour at most, and may begin a day
/// earlier by another zone's date.
const NEAR: usize = 2;

/// The windows of all services.
#[derive(Debug, Clone, Default)]
pub struct Windows(Vec<Span>);

/// A window.
#[derive(Debug, Clone)]
struct Span {
    name: String,
    freezes: bool,
    second_person: bool,
    services: Option<Vec<String>>,
    zone: TimeZone,
    when: When,
}

#[derive(Debug, Clone)]
enum When {
    Weekly(Weekly),
    /// From the first instant up to the second one.
    Once(Timestamp, Timestamp),
}

/// Whether rollouts of a service may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The window that freezes growth; none if it is allowed.
    pub frozen: Option<Frozen>,
    /// When that changes; absent if it never does, or not within two weeks by weekly windows.
    pub changes: Option<SystemTime>,
}

impl Windows {
    /// The windows of a valid configuration; one without a known zone or a span, which `check` refuses, is left out.
    pub fn new(windows: &[Window]) -> Self {
        Self(windows.iter().filter_map(Span::new).collect())
    }

    /// Whether rollouts of `service` may grow `at` an instant.
    pub fn growth(&self, service: &str, at: SystemTime) -> Growth {
        let is_early = at < SystemTime::UNIX_EPOCH;
        let beyond = if is_early { Timestamp::MIN } else { Timestamp::MAX };
        let at = Timestamp::try_from(at).unwrap_or(beyond);
        let own: Vec<&Span> = self.0.iter().filter(|span| span.concerns(service)).collect();
        let now = frozen(&own, at);
        let mut bounds: Vec<Timestamp> = own.iter().flat_map(|span| span.bounds(at)).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let is_change =
            |bound: &Timestamp| *bound > at && frozen(&own, *bound).is_some() != now.is_some();
        let changes = bounds.into_iter().find(is_change);
        let until_unix_ms = changes.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        let frozen =
            now.map(|frozen| Frozen { until_unix_ms, since_unix_ms: since(&own, at), ..frozen });
        Growth { frozen, changes: changes.map(SystemTime::from) }
    }
}

/// The windows that freeze growth at an instant, and whether a break-in needs a second person.
fn frozen(own: &[&Span], at: Timestamp) -> Option<Frozen> {
    let each = closed(own, at).map(|span| Frozen {
        window: span.name.clone(),
        also: Vec::new(),
        since_unix_ms: BTreeMap::new(),
        until_unix_ms: None,
        second_person: span.second_person,
    });
    each.reduce(Frozen::and)
}

/// The windows that freeze growth at an instant.
fn closed<'a>(own: &[&'a Span], at: Timestamp) -> impl Iterator<Item = &'a Span> {
    let (freezes, allows): (Vec<&Span>, Vec<&Span>) = own.iter().partition(|span| span.freezes);
    let in_force: Vec<_> = freezes.into_iter().filter(|span| span.contains(at)).collect();
    let outside = !allows.is_empty() && !allows.iter().any(|span| span.contains(at));
    in_force.into_iter().chain(allows.into_iter().filter(move |_| outside))
}

/// Since when each of the windows that freeze growth at an instant does, by name: a window that begins again is another
/// freeze. Of those that allow growth: since the last one ended. Without those that always have, as far as one can see.
fn since(own: &[&Span], at: Timestamp) -> BTreeMap<String, u64> {
    let allows = own.iter().filter(|span| !span.freezes);
    let ends = allows.flat_map(|span| span.spans(at, HORIZON, 0)).map(|(_, end)| end);
    let ended = ends.filter(|end| *end <= at).max();
    let each = closed(own, at).filter_map(|span| {
        let since = if span.freezes { span.begun(at) } else { ended }?;
        Some((span.name.clone(), u64::try_from(since.as_millisecond()).ok()?))
    });
    each.collect()
}

impl Span {
    fn new(window: &Window) -> Option<Self> {
        let zone = time_zone(&window.zone)?;
        let freezes = window.freeze;
        let when = match (window.every, window.from, window.to) {
            (Some(weekly), _, _) => When::Weekly(weekly),
            (None, Some(from), Some(to)) => {
                When::Once(begin(&zone, from.0, freezes)?, end(&zone, to.0, freezes)?)
            }
            _ => return None,
        };
        let (name, services) = (window.name.clone(), window.services.clone());
        Some(Self { name, freezes, second_person: window.second_person, services, zone, when })
    }

    fn concerns(&self, service: &str) -> bool {
        self.services.as_ref().is_none_or(|all| all.iter().any(|name| name == service))
    }

    fn contains(&self, at: Timestamp) -> bool {
        self.spans(at, NEAR, 1).any(|(begin, end)| (begin..end).contains(&at))
    }

    /// All begins and ends around and after an instant.
    fn bounds(&self, at: Timestamp) -> Vec<Timestamp> {
        self.spans(at, NEAR, HORIZON).flat_map(|(begin, end)| [begin, end]).collect()
    }

    /// Since when its spans have contained `at` without a gap; `None` if always, as far as one can see.
    fn begun(&self, at: Timestamp) -> Option<Timestamp> {
        let spans: Vec<_> = self.spans(at, HORIZON, 1).collect();
        let before = |since: Timestamp| {
            let meets = spans.iter().filter(|(begin, end)| *begin < since && since <= *end);
            meets.map(|(begin, _)| *begin).min()
        };
        let begun = std::iter::successors(Some(at), |since| before(*since)).last()?;
        let is_weekly = matches!(self.when, When::Weekly(_));
        (!is_weekly || at.duration_since(begun) < ALWAYS).then_some(begun)
    }

    /// The spans that begin from `before` days before an instant until `days` after it.
    fn spans(
        &self,
        at: Timestamp,
        before: usize,
        days: usize,
    ) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let weekly = match self.when {
            When::Weekly(weekly) => Some((weekly, self.zone.to_datetime(at).date())),
            When::Once(..) => None,
        };
        let once = match self.when {
            When::Once(begin, end) => Some((begin, end)),
            When::Weekly(_) => None,
        };
        let recurring = weekly.into_iter().flat_map(move |(weekly, today)| {
            let first = (0..before).fold(today, |day, _| day.yesterday().unwrap_or(day));
            let days = days + before + 1;
            let days = std::iter::successors(Some(first), |day| day.tomorrow().ok()).take(days);
            days.filter_map(move |day| self.on(weekly, day))
        });
        once.into_iter().chain(recurring).filter(|(begin, end)| begin < end)
    }

    /// The span that begins on `day`.
    fn on(&self, weekly: Weekly, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !weekly.begins_on(day.weekday()) {
            return None;
        }
        let last = if weekly.ends_next_day() { day.tomorrow().ok()? } else { day };
        let begins = begin(&self.zone, day.to_datetime(weekly.begins()), self.freezes)?;
        let ends = end(&self.zone, last.to_datetime(weekly.ends()), self.freezes)?;
        Some((begins, ends))
    }
}

/// The instant at which a span begins whose local time is `local`.
fn begin(zone: &TimeZone, local: jiff::civil::DateTime, freezes: bool) -> Option<Timestamp> {
    let instant = zone.to_ambiguous_timestamp(local);
    if freezes { instant.earlier().ok() } else { instant.later().ok() }
}

/// The instant at which it ends.
fn end(zone: &TimeZone, local: jiff::civil::DateTime, freezes: bool) -> Option<Timestamp> {
    begin(zone, local, !freezes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(json: serde_json::Value) -> Window {
        serde_json::from_value(json).expect("a window")
    }

    fn windows(of: &[serde_json::Value]) -> Windows {
        Windows::new(&of.iter().cloned().map(window).collect::<Vec<_>>())
    }

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).expect(text)
    }

    /// Whether growth of `wallet` is frozen, and until when.
    fn growth(windows: &Windows, text: &str) -> (bool, Option<String>) {
        let Growth { frozen, changes } = windows.growth("wallet", at(text));
        let until = frozen.as_ref().map(|frozen| frozen.until_unix_ms);
        let ms = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).expect("later");
        assert!(until.is_none_or(|until| until == changes.map(|at| ms(at).as_millis() as u64)));
        (frozen.is_some(), changes.map(|at| humantime::format_rfc3339(at).to_string()))
    }

    #[track_caller]
    fn assert_frozen(windows: &Windows, text: &str, frozen: bool, changes: &str) {
        assert_eq!(growth(windows, text), (frozen, Some(changes.to_owned())), "at {text}");
    }

    #[test]
    fn a_weekly_freeze_is_in_force_between_its_times_in_its_zone() {
        let peak = serde_json::json!({ "name": "friday-peak", "freeze": true,
            "every": "fri,sat 18:00-23:59", "zone": "Europe/Malta", "services": ["wallet"] });
        let windows = windows(&[peak]);
        // 2026-11-27 is a Friday; Malta is an hour ahead of UTC in winter and two in summer.
        assert_frozen(&windows, "2026-11-27T16:59:59Z", false, "2026-11-27T17:00:00Z");
        assert_frozen(&windows, "2026-11-27T17:00:00Z", true, "2026-11-27T22:59:00Z");
        assert_frozen(&windows, "2026-11-27T22:59:00Z", false, "2026-11-28T17:00:00Z");
        assert_frozen(&windows, "2026-11-28T22:58:59Z", true, "2026-11-28T22:59:00Z");
        assert_frozen(&windows, "2026-11-29T12:00:00Z", false, "2026-12-04T17:00:00Z");
        assert_frozen(&windows, "2026-07-03T16:00:00Z", true, "2026-07-03T21:59:00Z");
        let other = windows.growth("game-api", at("2026-11-27T17:00:00Z"));
        assert_eq!(other, Growth { frozen: None, changes: None });
    }

    /// Regression: a process that was down while a window ended and began again took it for one that had gone on.
    #[test]
    fn each_time_that_a_window_begins_is_another_freeze() {
        let windows = windows(&[
            serde_json::json!({ "name": "peak", "freeze": true, "every": "fri,sat 18:00-24:00", "zone": "UTC" }),
            serde_json::json!({ "name": "night", "freeze": true, "every": "daily 23:00-02:00", "zone": "UTC" }),
            serde_json::json!({ "name": "always", "freeze": true, "every": "daily 00:00-24:00", "zone": "UTC" }),
            serde_json::json!({ "name": "year", "freeze": true, "from": "2026-01-01 00:00",
                "to": "2027-01-01 00:00", "zone": "UTC" }),
            serde_json::json!({ "name": "office", "allow": true, "every": "mon-fri 09:00-17:00", "zone": "UTC" }),
            serde_json::json!({ "name": "sunday", "allow": true, "every": "sun 10:00-11:00", "zone": "UTC" }),
        ]);
        let since = |text: &str| {
            let frozen = windows.growth("wallet", at(text)).frozen.expect("frozen");
            let since = frozen.since_unix_ms.into_iter().map(|(name, ms)| {
                let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(ms);
                (name, humantime::format_rfc3339(at).to_string())
            });
            since.collect::<BTreeMap<_, _>>()
        };
        let year = ("year", "2026-01-01T00:00:00Z");
        let of = |each: &[(&str, &str)]| {
            let all = each.iter().chain([&year]);
            all.map(|(name, at)| ((*name).to_owned(), (*at).to_owned())).collect()
        };
        let allowed = ["office", "sunday"];
        let outside = |end| allowed.map(|name| (name, end));
        // 2026-11-27 is a Friday.
        let friday = outside("2026-11-27T17:00:00Z");
        let mut expected = vec![("peak", "2026-11-27T18:00:00Z")];
        expected.extend(friday);
        assert_eq!(since("2026-11-27T18:00:00Z"), of(&expected));
        expected.push(("night", "2026-11-27T23:00:00Z"));
        assert_eq!(since("2026-11-27T23:30:00Z"), of(&expected));
        let mut expected = vec![("night", "2026-11-27T23:00:00Z")];
        expected.extend(friday);
        assert_eq!(since("2026-11-28T01:59:59Z"), of(&expected));
        let mut expected = vec![("peak", "2026-11-28T18:00:00Z")];
        expected.extend(friday);
        assert_eq!(since("2026-11-28T20:00:00Z"), of(&expected));
        assert_eq!(since("2026-11-29T12:00:00Z"), of(&outside("2026-11-29T11:00:00Z")));
        assert_eq!(since("2026-11-30T12:00:00Z"), of(&[]), "only `always`, which never begins");
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = serde_json::json!({ "name": "night", "freeze": true, "every": "sun 22:00-06:00",
            "zone": "Pacific/Auckland" });
        let windows = windows(&[night]);
        // Sunday 2026-06-07 22:00 in Auckland, 12 hours ahead.
        assert_frozen(&windows, "2026-06-07T09:59:59Z", false, "2026-06-07T10:00:00Z");
        assert_frozen(&windows, "2026-06-07T12:30:00Z", true, "2026-06-07T18:00:00Z");
        assert_frozen(&windows, "2026-06-07T18:00:00Z", false, "2026-06-14T10:00:00Z");
        // The morning of Sunday is not the morning after it.
        assert_frozen(&windows, "2026-06-06T15:00:00Z", false, "2026-06-07T10:00:00Z");
        let whole = serde_json::json!({ "name": "a", "freeze": true, "every": "daily 00:00-24:00", "zone": "UTC" });
        assert_eq!(growth(&self::windows(&[whole]), "2026-06-07T00:00:00Z"), (true, None));
    }

    #[test]
    fn growth_is_frozen_outside_of_windows_that_allow_it() {
        let office = serde_json::json!({ "name": "office", "allow": true,
            "every": "mon-fri 09:00-17:00", "zone": "UTC", "second_person": true });
        let lunch = serde_json::json!({ "name": "lunch", "freeze": true,
            "every": "daily 12:00-13:00", "zone": "UTC" });
        let windows = windows(&[office, lunch]);
        assert_frozen(&windows, "2026-11-27T08:00:00Z", true, "2026-11-27T09:00:00Z");
        assert_frozen(&windows, "2026-11-27T09:00:00Z", false, "2026-11-27T12:00:00Z");
        assert_frozen(&windows, "2026-11-27T12:00:00Z", true, "2026-11-27T13:00:00Z");
        // Over the weekend and over lunch, which changes nothing there.
        assert_frozen(&windows, "2026-11-27T17:00:00Z", true, "2026-11-30T09:00:00Z");
        let frozen = |text: &str| windows.growth("a", at(text)).frozen.expect("frozen");
        let lunch = frozen("2026-11-27T12:00:00Z");
        assert_eq!((&*lunch.window, lunch.second_person), ("lunch", false));
        let outside = frozen("2026-11-28T09:00:00Z");
        assert_eq!((&*outside.window, outside.second_person), ("office", true));
        let both = frozen("2026-11-28T12:30:00Z");
        assert_eq!((&*both.window, both.second_person), ("lunch", true));
        assert_eq!(both.also, ["office"]);
    }

    #[test]
    fn single_spans_begin_and_end_once() {
        let cup = serde_json::json!({ "name": "final", "freeze": true, "from": "2026-07-19 15:00",
            "to": "2026-07-19 20:00", "zone": "America/New_York" });
        let windows = windows(&[cup]);
        assert_frozen(&windows, "2020-01-01T00:00:00Z", false, "2026-07-19T19:00:00Z");
        assert_frozen(&windows, "2026-07-19T19:00:00Z", true, "2026-07-20T00:00:00Z");
        assert_eq!(growth(&windows, "2026-07-20T00:00:00Z"), (false, None));
    }

    /// In Malta 2026-03-29 02:00 is 03:00, and 2026-10-25 03:00 is 02:00 once more.
    #[test]
    fn on_days_on_which_clocks_change_growth_is_frozen_in_doubt() {
        let of = |kind: &str, every: &str| {
            let mut json =
                serde_json::json!({ "name": "a", "every": every, "zone": "Europe/Malta" });
            json[kind] = true.into();
            windows(&[json])
        };
        // A freeze over the gap lasts an hour less, and one that begins in it begins earlier.
        let night = of("freeze", "sun 01:00-04:00");
        assert_frozen(&night, "2026-03-29T00:00:00Z", true, "2026-03-29T02:00:00Z");
        let gap = of("freeze", "sun 02:30-04:00");
        assert_frozen(&gap, "2026-03-29T00:30:00Z", true, "2026-03-29T02:00:00Z");
        // Over the hour that comes twice it lasts an hour longer, from the first until the second time.
        assert_frozen(&night, "2026-10-24T23:00:00Z", true, "2026-10-25T03:00:00Z");
        let twice = of("freeze", "sun 02:15-02:45");
        assert_frozen(&twice, "2026-10-25T00:15:00Z", true, "2026-10-25T01:45:00Z");
        // Leave to grow is given for what is certainly meant: in the gap for nothing.
        let none = of("allow", "sun 02:15-02:45");
        assert_frozen(&none, "2026-03-29T01:20:00Z", true, "2026-04-05T00:15:00Z");
        assert_frozen(&none, "2026-10-25T00:20:00Z", true, "2026-11-01T01:15:00Z");
        let allowed = of("allow", "sun 01:00-02:30");
        assert_frozen(&allowed, "2026-10-24T23:00:00Z", false, "2026-10-25T00:30:00Z");
        // A week has 167 hours then; the time of day stays.
        assert_frozen(&gap, "2026-03-22T01:30:00Z", true, "2026-03-22T03:00:00Z");
        assert_frozen(&gap, "2026-04-05T00:30:00Z", true, "2026-04-05T02:00:00Z");
    }

    #[test]
    fn a_clock_that_is_set_back_finds_what_was_right_then() {
        let peak = serde_json::json!({ "name": "a", "freeze": true, "every": "fri 18:00-20:00", "zone": "UTC" });
        let windows = windows(&[peak]);
        let before = growth(&windows, "2026-11-27T17:00:00Z");
        assert_eq!(before, (false, Some("2026-11-27T18:00:00Z".to_owned())));
        assert!(growth(&windows, "2026-11-27T19:00:00Z").0);
        assert_eq!(growth(&windows, "2026-11-27T17:00:00Z"), before);
        // Before 1970, and beyond what a calendar holds.
        assert!(
            windows
                .growth("a", SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1))
                .frozen
                .is_none()
        );
        let far = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 40);
        assert!(windows.growth("a", far).changes.is_none());
    }

    proptest::proptest! {
        #[test]
        fn what_is_said_to_change_next_changes_then_and_not_before(
            minutes in 0u64..20_000_000, ahead in 0.0f64..1.0, day in 0usize..7, from in 0u32..1440, length in 1u32..1440,
            freeze in proptest::bool::ANY, zone in proptest::sample::select(vec!["Europe/Malta", "UTC", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"]),
        ) {
            let day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][day];
            let to = (from + length) % 1440;
            let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            let every = format!("{day} {}-{}", time(from), time(to));
            let windows = windows(&[serde_json::json!({ "name": "a", "freeze": freeze, "allow": !freeze, "every": every, "zone": zone })]);
            // From 2010 to 2048.
            let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_262_304_000 + 60 * minutes);
            let growth = windows.growth("s", now);
            let changes = growth.changes.expect("each week it changes");
            let wait = changes.duration_since(now).expect("later");
            proptest::prop_assert!(wait > std::time::Duration::ZERO);
            proptest::prop_assert!(wait <= std::time::Duration::from_secs(15 * 86_400));
            let between = windows.growth("s", now + wait.mul_f64(ahead * 0.999));
            proptest::prop_assert_eq!(between.frozen.is_some(), growth.frozen.is_some());
            let after = windows.growth("s", changes);
            proptest::prop_assert_ne!(after.frozen.is_some(), growth.frozen.is_some());
        }
    }
}
