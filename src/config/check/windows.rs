//! Checks windows of changes.

use super::{Finding, label, no_such};
use crate::config::{
    problem::{FieldPath, closest},
    schema::{Config, READ_ONLY, Window, time_zone, time_zone_names},
};

/// Checks the windows of `config`.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let windows = FieldPath::default().key("windows");
    for (index, window) in config.windows.iter().enumerate() {
        let path = windows.index(index);
        if let Err(message) = label(&window.name, "") {
            found.push(Finding::new(path.key("name"), message));
        }
        if window.name == READ_ONLY {
            let message = format!(
                "`{READ_ONLY}` is what read-only mode is called where it freezes growth; write another name"
            );
            found.push(Finding::new(path.key("name"), message));
        }
        if config.windows[..index].iter().any(|other| other.name == window.name) {
            let message =
                format!("`{}` names another window already; give each its own name", window.name);
            found.push(Finding::new(path.key("name"), message));
        }
        if window.freeze == window.allow {
            let message = match window.freeze {
                true => "it cannot freeze and allow; write one of freeze: true and allow: true",
                false => "neither frozen nor allowed; write freeze: true or allow: true",
            };
            let finding = Finding::new(path.clone(), message);
            found.push(finding.and(path.key("freeze")).and(path.key("allow")));
        }
        span(window, &path, found);
        if time_zone(&window.zone).is_none() {
            let names = time_zone_names();
            let right = match closest(&window.zone, names.iter().map(String::as_str)) {
                Some(close) => format!("did you mean `{close}`?"),
                None => "write a name of the IANA database, such as Europe/Malta or UTC".to_owned(),
            };
            let message = format!("no time zone `{}`; {right}", window.zone);
            found.push(Finding::new(path.key("zone"), message));
        }
        services(window, config, &path.key("services"), found);
    }
}

fn span(window: &Window, path: &FieldPath, found: &mut Vec<Finding>) {
    let all = |message: &str| {
        let finding = Finding::new(path.clone(), message);
        finding.and(path.key("every")).and(path.key("from")).and(path.key("to"))
    };
    match (window.every, window.from, window.to) {
        (Some(_), None, None) => {}
        (None, Some(from), Some(to)) => {
            if to <= from {
                let message = format!("not after `{from}`, when it begins; write a later time");
                found.push(Finding::new(path.key("to"), message).and(path.key("from")));
            }
        }
        (None, None, None) => {
            found.push(all("no time; write every: \"fri,sat 18:00-23:59\", or from and to"))
        }
        (Some(_), _, _) => {
            found.push(all("it recurs and has a single span; write every, or from and to"));
        }
        (None, Some(_), None) => {
            found.push(all("it never ends; write to: 2026-12-27 06:00"));
        }
        (None, None, Some(_)) => {
            found.push(all("it never begins; write from: 2026-12-24 18:00"));
        }
    }
}

fn services(window: &Window, config: &Config, path: &FieldPath, found: &mut Vec<Finding>) {
    let Some(services) = &window.services else { return };
    if services.is_empty() {
        let message = "no service; write at least one, or leave the field out for all";
        found.push(Finding::new(path.clone(), message));
    }
    for (index, service) in services.iter().enumerate() {
        if let Some(message) = no_such("service", service, &config.services) {
            found.push(Finding::new(path.index(index), message));
        } else if services[..index].contains(service) {
            found
                .push(Finding::new(path.index(index), format!("`{service}` twice; write it once")));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// The problems of a file with these windows, whose first line is 4.
    fn problems(windows: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: wallet }} ]\nservices: {{ wallet: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }} }} }}\n{windows}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn windows_of_all_forms_are_good() {
        assert_eq!(
            problems(
                "windows:
  - { name: friday-peak, freeze: true, every: \"fri,sat 18:00-23:59\", zone: Europe/Malta, services: [ wallet ] }
  - { name: final, freeze: true, from: 2026-07-19 18:00, to: 2026-07-19T24:00, zone: America/New_York, second_person: true }
  - { name: office, allow: true, every: \"mon-fri 09:00-17:00\", zone: UTC }"
            ),
            ""
        );
    }

    #[test]
    fn what_cannot_be_is_told_with_its_place() {
        assert_eq!(
            problems(
                "windows:
- { name: a, every: \"fri 18:00-23:59\", zone: Europe/Melta, services: [ walet, wallet, wallet ] }
- { name: a, freeze: true, allow: true, zone: Mars, services: [] }
- { name: 'a b', freeze: true, from: 2026-12-24 18:00, to: 2026-12-24 18:00, zone: UTC }
- { name: c, freeze: true, from: 2026-12-24 18:00, zone: UTC }
- { name: d, freeze: true, every: friday evening, from: tomorrow, zone: UTC }
- { name: e, allow: true, every: \"fri 18:00-23:59\", to: 2026-12-24 18:00 }
- { name: read-only, allow: true, every: \"fri 18:00-23:59\", zone: UTC }"
            ),
            "\
5:3: windows[0]: neither frozen nor allowed; write freeze: true or allow: true
5:46: windows[0].zone: no time zone `Europe/Melta`; did you mean `Europe/Malta`?
5:72: windows[0].services[0]: no service `walet`; did you mean `wallet`?
5:87: windows[0].services[2]: `wallet` twice; write it once
6:3: windows[1]: it cannot freeze and allow; write one of freeze: true and allow: true
6:3: windows[1]: no time; write every: \"fri,sat 18:00-23:59\", or from and to
6:11: windows[1].name: `a` names another window already; give each its own name
6:47: windows[1].zone: no time zone `Mars`; write a name of the IANA database, such as Europe/Malta or UTC
6:63: windows[1].services: no service; write at least one, or leave the field out for all
7:11: windows[2].name: `a b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
7:60: windows[2].to: not after `2026-12-24 18:00`, when it begins; write a later time
8:3: windows[3]: it never ends; write to: 2026-12-27 06:00
9:35: windows[4].every: `friday evening` is not a weekly span: `friday` is no day; write days and times, such as fri,sat 18:00-23:59, mon-fri 22:00-06:00 or daily 00:00-24:00
9:57: windows[4].from: `tomorrow` is not a date with a time; write it as 2026-12-24 18:00
10:3: windows[5].zone: missing; add `zone: Europe/Malta`
11:11: windows[6].name: `read-only` is what read-only mode is called where it freezes growth; write another name"
        );
    }
}
