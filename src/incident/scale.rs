//! Axes: round values on the vertical one, times of day on the horizontal one.

use std::time::{Duration, SystemTime};

use crate::telemetry::rfc3339;

/// A tick: where it is, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

/// Round values from 0 to `most` or a little more, about four of them; the last one is the end of the axis.
pub(super) fn values(most: f64, label: impl Fn(f64) -> String) -> Vec<Tick> {
    let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
    let rough = most / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| *step >= rough * (1.0 - 1e-9)).unwrap_or(rough);
    let count = (most / step - 1e-9).ceil().max(1.0) as u32;
    (0..=count).map(|nth| f64::from(nth) * step).map(|at| Tick { at, label: label(at) }).collect()
}

/// Steps between times of day, in seconds.
const STEPS_S: [u64; 12] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600];

/// Most ticks of the horizontal axis.
const MOST_TIMES: f64 = 8.0;

/// Times of day between `from_s` and `until_s`, both in seconds since `origin`.
pub(super) fn times(origin: SystemTime, from_s: f64, until_s: f64) -> Vec<Tick> {
    let span = until_s - from_s;
    let step = STEPS_S.into_iter().find(|step| span / *step as f64 <= MOST_TIMES).unwrap_or(3_600);
    let origin_s = origin.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let first = ((origin_s + from_s).max(0.0) / step as f64).ceil() as u64 * step;
    let all = (first..).step_by(step as usize).map(|unix_s| (unix_s, unix_s as f64 - origin_s));
    let all = all.take_while(|(_, at)| *at <= until_s).take(60);
    all.map(|(unix_s, at)| Tick { at, label: time_of_day(unix_s, step) }).collect()
}

fn time_of_day(unix_s: u64, step_s: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s);
    let text = rfc3339::seconds(at).to_string();
    // 2026-11-27T23:15:00Z
    let end = if step_s >= 60 { 16 } else { 19 };
    text.get(11..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::text::number;

    #[test]
    fn values_are_round_and_reach_the_top() {
        let labels = |most| -> Vec<String> {
            values(most, number).into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(labels(30.0), ["0", "10", "20", "30"]);
        assert_eq!(labels(1.0), ["0", "0.25", "0.5", "0.75", "1"]);
        assert_eq!(labels(0.0), labels(1.0));
        assert_eq!(labels(f64::NAN), labels(1.0));
        assert_eq!(labels(1_900.0), ["0", "500", "1,000", "1,500", "2,000"]);
        for most in [0.003, 0.7, 3.3, 99.9, 123_456.0] {
            let ticks = values(most, number);
            assert!((3..=6).contains(&ticks.len()), "{most}: {ticks:?}");
            assert!(ticks.last().expect("one").at >= most);
        }
    }

    #[test]
    fn times_are_those_of_a_clock() {
        let origin = humantime::parse_rfc3339("2026-11-27T23:15:00.500Z").expect("a time");
        let ticks = times(origin, -300.0, 60.0);
        let labels: Vec<_> = ticks.iter().map(|tick| &*tick.label).collect();
        assert_eq!(labels, ["23:11", "23:12", "23:13", "23:14", "23:15", "23:16"]);
        assert_eq!(ticks[4].at, -0.5);
        let ticks = times(origin, -12.0, 4.0);
        assert_eq!(ticks[0].label, "23:14:50");
        assert_eq!(times(SystemTime::UNIX_EPOCH, -5.0, 2.0)[0].label, "00:00:00");
    }
}
