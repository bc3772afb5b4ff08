//! Windows: spans of wall time in which rollouts do not grow, or only in which they do.

use std::{borrow::Cow, fmt, str::FromStr, sync::LazyLock};

use jiff::{
    civil::{DateTime, Time, Weekday},
    tz::{TimeZone, TimeZoneDatabase},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{pattern::NAME, units};

/// What read-only mode is called where it freezes growth as a window does, in the API and the journal.
pub const READ_ONLY: &str = "read-only";

/// A window of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Unique name, for messages and the journal.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// Whether growth is frozen in the window. Either this or `allow` is `true`.
    #[serde(default)]
    pub freeze: bool,
    /// Whether growth is allowed in the window: services with such windows grow in them only.
    #[serde(default)]
    pub allow: bool,
    /// When it recurs: `fri,sat 18:00-23:59`. Either this or `from` and `to`.
    #[serde(default)]
    pub every: Option<Weekly>,
    /// When it begins once: `2026-12-24 18:00`.
    #[serde(default)]
    pub from: Option<LocalTime>,
    /// When it ends: `2026-12-27 06:00`; this minute is no longer part of it.
    #[serde(default)]
    pub to: Option<LocalTime>,
    /// The time zone of these times, a name of the IANA database such as `Europe/Malta` or `UTC`.
    pub zone: String,
    /// Services whose rollouts it concerns. Default: all.
    #[serde(default)]
    pub services: Option<Vec<String>>,
    /// Whether a second person must agree to growth in spite of the window. Default `false`.
    #[serde(default)]
    pub second_person: bool,
}

/// The rules of all zones as this program was built with them, so that the result does not depend on
/// the machine. A zone whose rules change needs a newer program.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The time zone of this name; `None` if there is none.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

/// The names of all time zones.
pub fn time_zone_names() -> Vec<String> {
    ZONES.available().map(|name| name.as_str().to_owned()).collect()
}

/// A span that recurs each week: the days on which it begins, and the times between which it lasts.
/// An end at or before the beginning is on the next day. Written `fri,sat 18:00-23:59`, `mon-fri
/// 22:00-06:00` or `daily 00:00-24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekly {
    /// Days on which it begins, Monday first.
    days: [bool; 7],
    /// When it begins.
    begins: Time,
    /// When it ends; midnight is the end of the day.
    ends: Time,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Weekly {
    /// Whether it begins on `day`.
    pub fn begins_on(&self, day: Weekday) -> bool {
        usize::try_from(day.to_monday_zero_offset()).is_ok_and(|day| self.days[day])
    }

    /// The time of day at which it begins.
    pub fn begins(&self) -> Time {
        self.begins
    }

    /// The time of day at which it ends, which is no longer part of it.
    pub fn ends(&self) -> Time {
        self.ends
    }

    /// Whether it ends on the day after the one on which it begins.
    pub fn ends_next_day(&self) -> bool {
        self.ends <= self.begins
    }
}

/// `HH:MM`; `24:00` is the midnight that ends the day.
fn time_of_day(text: &str) -> Option<(Time, bool)> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return None;
    }
    match (hour.parse().ok()?, minute.parse().ok()?) {
        (24, 0) => Some((Time::midnight(), true)),
        (hour, minute) => Some((Time::new(hour, minute, 0, 0).ok()?, false)),
    }
}

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|day| text.eq_ignore_ascii_case(day))
}

impl FromStr for Weekly {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |what: String| {
            format!(
                "`{text}` is not a weekly span: {what}; write days and times, such as fri,sat 18:00-23:59, mon-fri 22:00-06:00 or daily 00:00-24:00"
            )
        };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [written_days, times] = *words else {
            return Err(fault("not two words".to_owned()));
        };
        let mut days = [false; 7];
        for part in written_days.split(',') {
            let unknown = |name: &str| fault(format!("`{name}` is no day"));
            if part.eq_ignore_ascii_case("daily") {
                days = [true; 7];
            } else if let Some((first, last)) = part.split_once('-') {
                let first = day(first).ok_or_else(|| unknown(first))?;
                let last = day(last).ok_or_else(|| unknown(last))?;
                // `sat-mon` goes over the end of the week.
                let count = (last + 7 - first) % 7 + 1;
                (0..count).for_each(|nth| days[(first + nth) % 7] = true);
            } else {
                days[day(part).ok_or_else(|| unknown(part))?] = true;
            }
        }
        let Some((begins, ends)) = times.split_once('-') else {
            return Err(fault(format!("`{times}` is not two times")));
        };
        let unknown = |time: &str| fault(format!("`{time}` is no time of day"));
        let (begins, late) = time_of_day(begins).ok_or_else(|| unknown(begins))?;
        let (ends, is_end_of_day) = time_of_day(ends).ok_or_else(|| unknown(ends))?;
        if late {
            return Err(fault("it begins at 24:00, which is 00:00 of the next day".to_owned()));
        }
        if begins == ends && !is_end_of_day {
            return Err(fault("it ends when it begins".to_owned()));
        }
        Ok(Self { days, begins, ends })
    }
}

impl fmt::Display for Weekly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.days {
            [true, true, true, true, true, true, true] => f.write_str("daily")?,
            days => {
                let named = DAYS.iter().zip(days).filter(|(_, begins)| *begins);
                let named: Vec<&str> = named.map(|(name, _)| *name).collect();
                f.write_str(&named.join(","))?;
            }
        }
        let at = |time: Time| format!("{:02}:{:02}", time.hour(), time.minute());
        let ends = if self.ends == Time::midnight() { "24:00".to_owned() } else { at(self.ends) };
        write!(f, " {}-{ends}", at(self.begins))
    }
}

/// A date and a time of day in the zone of the window: `2026-12-24 18:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime(
    /// To the minute.
    pub DateTime,
);

impl FromStr for LocalTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (date, time) = text.trim().split_once([' ', 'T', 't'])?;
            let (time, is_end_of_day) = time_of_day(time.trim())?;
            let date: jiff::civil::Date = date.parse().ok()?;
            let date = if is_end_of_day { date.tomorrow().ok()? } else { date };
            // Room for a day on both sides, whatever the zone.
            (1..=9998).contains(&date.year()).then(|| date.to_datetime(time))
        };
        read().map(Self).ok_or_else(|| {
            format!("`{text}` is not a date with a time; write it as 2026-12-24 18:00")
        })
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.0.date(), self.0.time());
        write!(f, "{date} {:02}:{:02}", time.hour(), time.minute())
    }
}

macro_rules! as_text {
    ($type:ty, $name:literal, $expected:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                units::text(d, $expected)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": concat!($expected, "."),
                    "pattern": $pattern
                })
            }
        }
    };
}

as_text!(
    Weekly,
    "Weekly",
    "a weekly span, such as fri,sat 18:00-23:59",
    "^\\s*[A-Za-z,-]+\\s+[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}\\s*$"
);
as_text!(
    LocalTime,
    "LocalTime",
    "a date with a time, such as 2026-12-24 18:00",
    "^\\s*[0-9]{4}-[0-9]{2}-[0-9]{2}[ Tt]+[0-9]{2}:[0-9]{2}\\s*$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekly_spans_have_days_and_times() {
        for (text, shown) in [
            ("fri,sat 18:00-23:59", "fri,sat 18:00-23:59"),
            ("Mon-Fri 22:00-06:00", "mon,tue,wed,thu,fri 22:00-06:00"),
            ("sat-mon 00:00-24:00", "mon,sat,sun 00:00-24:00"),
            ("daily 08:00-00:00", "daily 08:00-24:00"),
            (" mon-sun  01:00-02:00 ", "daily 01:00-02:00"),
        ] {
            let span: Weekly = text.parse().expect(text);
            assert_eq!(span.to_string(), shown);
            assert_eq!(shown.parse::<Weekly>().expect(shown), span);
        }
        let over: Weekly = "fri 22:00-06:00".parse().expect("a span");
        assert!(over.ends_next_day() && over.begins_on(Weekday::Friday));
        assert!(!over.begins_on(Weekday::Saturday));
        for (bad, why) in [
            ("", "not two words"),
            ("friday 18:00-23:59", "`friday` is no day"),
            ("fri, sat 18:00-23:59", "not two words"),
            ("fri, 18:00-23:59", "`` is no day"),
            ("fri 18:00", "`18:00` is not two times"),
            ("fri 6pm-23:59", "`6pm` is no time of day"),
            ("fri 18:00-25:00", "`25:00` is no time of day"),
            ("fri 24:00-01:00", "it begins at 24:00"),
            ("fri 18:00-18:00", "it ends when it begins"),
        ] {
            let error = bad.parse::<Weekly>().expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn single_spans_have_dates() {
        let read = |text: &str| text.parse::<LocalTime>().map(|time| time.to_string());
        assert_eq!(read("2026-12-24 18:00").as_deref(), Ok("2026-12-24 18:00"));
        assert_eq!(read("2026-12-31T24:00").as_deref(), Ok("2027-01-01 00:00"));
        for bad in ["2026-12-24", "2026-13-01 00:00", "24.12.2026 18:00", "9999-12-31 00:00"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
