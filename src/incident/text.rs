//! Text as HTML and SVG show it, and times and numbers for people.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// A text between tags or in an attribute with double quotes, whatever it holds.
///
/// What a browser would not show, or show in another order than it is written, is shown by its number: control
/// characters, and those that turn the direction of text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Esc<'a>(pub(super) &'a str);

impl fmt::Display for Esc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' | ' ' => f.write_str(" ")?,
                c if is_hidden(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A time as the documents write it: UTC, RFC 3339 with milliseconds.
pub(super) fn rfc3339(at: SystemTime) -> String {
    crate::telemetry::rfc3339::millis(at).to_string()
}

/// The time that a document wrote.
pub(super) fn parsed(at: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(at).ok()
}

/// `at` as seconds since `origin`, negative before it, to the millisecond.
pub fn offset_s(at: SystemTime, origin: SystemTime) -> f64 {
    let seconds = match at.duration_since(origin) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    };
    thousandths(seconds)
}

/// `at`, moved by seconds, which may be negative.
pub(super) fn moved(at: SystemTime, by_s: f64) -> SystemTime {
    let by = Duration::try_from_secs_f64(by_s.abs()).unwrap_or_default();
    let moved = if by_s < 0.0 { at.checked_sub(by) } else { at.checked_add(by) };
    moved.unwrap_or(at)
}

/// `value`, rounded to three decimals: documents need no more.
pub fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A count with separators: 12,345.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with about three significant digits: 0.0123, 1.23, 12.3, 1,234.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if size < 5e-6 => return "0".to_owned(),
        _ if size < 0.01 => format!("{value:.5}"),
        _ if size < 1.0 => format!("{value:.3}"),
        _ if size < 10.0 => format!("{value:.2}"),
        _ if size < 100.0 => format!("{value:.1}"),
        _ if value < 0.0 => return format!("{value:.0}"),
        _ => return count(value.round() as u64),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share, 0 to 1, in percent; `–` without one.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{} %", number(100.0 * share)))
}

/// The share of `part` in `of`; `None` of none.
pub(super) fn ratio(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

/// A length of time: `0.8 s`, `42 s`, `5 min 10 s`.
pub(super) fn seconds(s: f64) -> String {
    match s.abs() {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => {
            let whole = s.round() as u64;
            match (whole / 3600, whole / 60 % 60, whole % 60) {
                (0, minutes, 0) => format!("{minutes} min"),
                (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
                (hours, 0, _) => format!("{hours} h"),
                (hours, minutes, _) => format!("{hours} h {minutes} min"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_place_or_hides() {
        let text = Esc("<a href=\"x\" b='y'>&\n\u{1b}[2J\u{202e}é</a>").to_string();
        assert_eq!(
            text,
            "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp; \\u{1b}[2J\\u{202e}é&lt;/a&gt;"
        );
    }

    #[test]
    fn numbers_are_as_long_as_they_say_something() {
        let shown = [0.0, 0.00123, 0.3, 1.0, 2.345, 12.34, 99.96, 1_234.6, -3.0].map(number);
        assert_eq!(shown, ["0", "0.00123", "0.3", "1", "2.35", "12.3", "100", "1,235", "-3"]);
        assert_eq!(
            (count(1_234_567), count(999), count(0)),
            ("1,234,567".into(), "999".into(), "0".into())
        );
        assert_eq!((percent(Some(0.777)), percent(None)), ("77.7 %".into(), "–".into()));
        let spans = [0.84, 42.0, 120.0, 310.0, 7_200.0, 7_320.0].map(seconds);
        assert_eq!(spans, ["0.8 s", "42 s", "2 min", "5 min 10 s", "2 h", "2 h 2 min"]);
    }

    #[test]
    fn times_move_both_ways() {
        let at = parsed("2026-11-27T23:15:00.250Z").expect("a time");
        assert_eq!(rfc3339(moved(at, -1.25)), "2026-11-27T23:14:59.000Z");
        assert_eq!(offset_s(moved(at, 2.5), at), 2.5);
        assert_eq!(offset_s(moved(at, -2.5), at), -2.5);
        assert_eq!(moved(at, f64::NAN), at);
    }
}
