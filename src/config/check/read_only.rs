//! Checks notices, who is told of them, and what becomes of writes in read-only mode.

use std::time::Duration;

use super::{Finding, alerts, idempotency::only_reads, label, no_such};
use crate::config::{
    problem::FieldPath,
    schema::{Config, MAX_NOTICES, OnReadOnly, Route},
};

/// Longest lead time of a message: 30 days.
const LONGEST_LEAD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Checks the notices of `config` and what belongs to them.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let root = FieldPath::default();
    notices(config, &root.key("notices"), found);
    let retry_after = config.read_only.retry_after;
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&retry_after) {
        let path = root.key("read_only").key("retry_after");
        found.push(Finding::new(path, "out of range; write 1s to 1h"));
    }
    let Some(announcements) = &config.announcements else { return };
    let path = root.key("announcements");
    alerts::receivers(&announcements.webhooks, &path.key("webhooks"), found);
    let before = path.key("before");
    if !(1..=4).contains(&announcements.before.len()) {
        found.push(Finding::new(before.clone(), "write 1 to 4 times, such as [ 24h, 1h ]"));
    }
    for (index, time) in announcements.before.iter().enumerate() {
        let earlier = index.checked_sub(1).map(|before| announcements.before[before]);
        if *time > LONGEST_LEAD {
            found.push(Finding::new(before.index(index), "out of range; write at most 30d"));
        } else if earlier.is_some_and(|earlier| earlier <= *time) {
            let message = "not shorter than the one before it; write the longest first";
            found.push(Finding::new(before.index(index), message));
        }
    }
}

fn notices(config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    if config.notices.len() > MAX_NOTICES {
        let message = format!("more than {MAX_NOTICES}; leave out those that are over");
        found.push(Finding::new(path.clone(), message));
    }
    for (name, notice) in &config.notices {
        let path = path.key(name);
        if let Err(message) = label(name, "") {
            found.push(Finding::of_name(path.clone(), message));
        }
        if let Some((field, message)) = notice.fault() {
            found.push(Finding::new(path.key(field), message));
        }
        for (index, service) in notice.services.iter().flatten().enumerate() {
            if let Some(message) = no_such("service", service, &config.services) {
                found.push(Finding::new(path.key("services").index(index), message));
            }
        }
    }
}

/// Checks `read_only` of `route`.
pub(super) fn route(
    written: &OnReadOnly,
    route: &Route,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if only_reads(route) {
        let message = "all requests of the route read, and reads always go on; leave it out";
        found.push(Finding::of_name(path.clone(), message));
    }
    let OnReadOnly::Hold(hold) = written else { return };
    let path = path.key("hold");
    let mut bounds = |name: &str, is_within: bool, right: &str| {
        if !is_within {
            found.push(Finding::new(path.key(name), format!("out of range; write {right}")));
        }
    };
    bounds("queue", (1..=100_000).contains(&hold.queue), "1 to 100000");
    bounds("bytes", (1..=1 << 30).contains(&hold.bytes.0), "at most 1GiB");
    let longest = Duration::from_secs(3600);
    bounds(
        "deadline",
        (Duration::from_millis(100)..=longest).contains(&hold.deadline),
        "100ms to 1h",
    );
}
