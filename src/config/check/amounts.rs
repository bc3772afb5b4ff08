//! Checks business amounts, and which of them are compared.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::{Finding, label, no_such};
use crate::config::{
    pattern::is_token_byte,
    problem::FieldPath,
    schema::{Amount, MAX_AMOUNTS, Service},
    units::Share,
};

/// Fields that have a meaning for the proxy itself, or belong to one connection.
const TAKEN: [&str; 20] = [
    "connection",
    "content-length",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-client-cert-subject",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "grpc-status",
];

/// Checks the amounts of `service`.
pub(super) fn amounts(service: &Service, path: &FieldPath, found: &mut Vec<Finding>) {
    let amounts = &service.amounts;
    if amounts.len() > MAX_AMOUNTS {
        let message = format!("{} amounts; write at most {MAX_AMOUNTS}", amounts.len());
        found.push(Finding::new(path.clone(), message));
    }
    let mut headers = HashMap::new();
    for (name, amount) in amounts {
        let path = path.key(name);
        if let Err(message) = label(name, "") {
            found.push(Finding::of_name(path.clone(), message));
        }
        match (&amount.header, &amount.is) {
            (Some(_), Some(_)) => {
                let message = "read from a header and derived; write header or is";
                found.push(Finding::new(path.clone(), message));
            }
            (None, None) => {
                let message =
                    "comes from nowhere; write header, such as header: x-bet-stake, or is";
                found.push(Finding::new(path.clone(), message));
            }
            (Some(header), None) => {
                if let Some(message) = header_fault(header) {
                    found.push(Finding::new(path.key("header"), message));
                } else if let Some(other) = headers.insert(header.to_ascii_lowercase(), name) {
                    let message =
                        format!("`{header}` carries `{other}` already; write another field");
                    found.push(Finding::new(path.key("header"), message));
                }
            }
            (None, Some(_)) => {
                if amount.remove {
                    let message = "derived, so there is no field to remove; leave it out";
                    found.push(Finding::new(path.key("remove"), message));
                }
                terms(amount, amounts, &path.key("is"), found);
            }
        }
    }
}

fn header_fault(header: &str) -> Option<String> {
    if header.is_empty() || !header.bytes().all(is_token_byte) {
        return Some(format!("`{header}` is not a header's name; write letters, digits and -"));
    }
    let taken = TAKEN.iter().any(|taken| header.eq_ignore_ascii_case(taken));
    taken.then(|| format!("`{header}` has a meaning of its own; write a field such as x-bet-stake"))
}

fn terms(
    amount: &Amount,
    amounts: &IndexMap<String, Amount>,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    let terms = amount.is.iter().flat_map(|sum| &sum.terms).map(|term| &term.name);
    let names: Vec<&String> = terms.collect();
    for (index, name) in names.iter().enumerate() {
        let message = match amounts.get(*name) {
            None => no_such("amount", name, amounts),
            Some(term) if term.is.is_some() => {
                Some(format!("`{name}` is derived too; write what it is made of instead"))
            }
            Some(_) if names[..index].contains(name) => {
                Some(format!("`{name}` twice; write it once"))
            }
            Some(_) => None,
        };
        found.extend(message.map(|message| Finding::new(path.clone(), message)));
    }
}

/// Checks which amounts of `service` are compared.
pub(super) fn compared(
    compared: &IndexMap<String, Share>,
    service: &Service,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if compared.is_empty() {
        let message =
            "compares nothing; write an amount, such as payout: 5%, or leave the field out";
        found.push(Finding::new(path.clone(), message));
    }
    for (name, tolerance) in compared {
        let path = path.key(name);
        if !service.amounts.contains_key(name) {
            let message = no_such("amount", name, &service.amounts).unwrap_or_else(|| {
                format!("the service has no amounts; write `{name}` below its amounts first")
            });
            found.push(Finding::of_name(path.clone(), message));
        }
        if tolerance.0 >= 1.0 {
            let message = "tolerates an amount of nothing; write less than 100%";
            found.push(Finding::new(path, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    const REST: &str = "listen: [ { address: 127.0.0.1:0 } ]\nroutes: [ { service: a }, { service: b, match: { path: /x } } ]\nservices:\n  b: { baseline: v1, versions: { v1: { endpoints: [ 10.0.0.1:2 ] } }, eject: { amounts: { stake: 5% } } }\n  a:\n    baseline: v1\n    versions: { v1: { endpoints: [ 10.0.0.1:1 ] } }\n";

    #[track_caller]
    fn assert_problems(text: &str, expected: &str) {
        let problems =
            parse(&format!("{REST}{text}")).map_or_else(|p| p.to_string(), |_| String::new());
        let ours = problems.lines().filter(|line| !line.contains("services.b."));
        assert_eq!(ours.collect::<Vec<_>>().join("\n"), expected, "\n{problems}\n");
        let other = "4:91: services.b.eject.amounts.stake: the service has no amounts; write `stake` below its amounts first";
        assert!(problems.contains(other), "{problems}");
    }

    #[test]
    fn amounts_come_from_fields_or_from_those_that_do() {
        assert_problems(
            "    amounts:
      'a b': { header: x-a }
      both: { header: x-b, is: stake }
      none: {}
      stake: { header: X-Stake }
      twice: { header: x-stake }
      length: { header: Content-Length }
      bad: { header: 'x y' }
      sum: { is: stake - stake - sun + more, remove: true }
      more: { is: stake payout }
",
            "\
9:7: services.a.amounts.\"a b\": `a b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
10:13: services.a.amounts.both: read from a header and derived; write header or is
11:13: services.a.amounts.none: comes from nowhere; write header, such as header: x-bet-stake, or is
13:24: services.a.amounts.twice.header: `x-stake` carries `stake` already; write another field
14:25: services.a.amounts.length.header: `Content-Length` has a meaning of its own; write a field such as x-bet-stake
15:22: services.a.amounts.bad.header: `x y` is not a header's name; write letters, digits and -
16:18: services.a.amounts.sum.is: `more` is derived too; write what it is made of instead
16:18: services.a.amounts.sum.is: `stake` twice; write it once
16:18: services.a.amounts.sum.is: no amount `sun`; did you mean `sum`?
16:54: services.a.amounts.sum.remove: derived, so there is no field to remove; leave it out
17:19: services.a.amounts.more.is: `stake payout` is not a sum of amounts; write their names with + or - between them, and white space around those, such as stake - payout",
        );
    }

    #[test]
    fn there_are_eight_at_most() {
        let amounts = (0..9).map(|n| format!("a{n}: {{ header: x-{n} }}"));
        let amounts = amounts.collect::<Vec<_>>().join(", ");
        assert_problems(
            &format!("    amounts: {{ {amounts} }}\n"),
            "8:14: services.a.amounts: 9 amounts; write at most 8",
        );
    }

    #[test]
    fn what_is_compared_is_an_amount_measured_or_derived() {
        assert_problems(
            "    amounts: { stake: { header: x-stake, remove: true }, payout: { header: x-payout }, ggr: { is: stake - payout } }
    eject: { amounts: { stake: 100%, payot: 5%, ggr: 100%, payout: 5% } }
",
            "\
9:32: services.a.eject.amounts.stake: tolerates an amount of nothing; write less than 100%
9:38: services.a.eject.amounts.payot: no amount `payot`; did you mean `payout`?
9:54: services.a.eject.amounts.ggr: tolerates an amount of nothing; write less than 100%",
        );
        assert_problems(
            "    amounts: { stake: { header: x-stake } }
    eject: { amounts: {} }
",
            "9:23: services.a.eject.amounts: compares nothing; write an amount, such as payout: 5%, or leave the field out",
        );
    }
}
