//! `tidegate eject` and `tidegate reinstate`: ejects and reinstates a version or one of its
//! endpoints.

use std::net::SocketAddr;

use super::{
    change::ChangeArguments,
    client::service_name,
    failure::Failure,
    printable::printable,
    say::{say, say_json},
};
use crate::{
    admin::model::{Ejected, Ejection, SubjectAnswer, SubjectRequest},
    config::actor,
    control::{
        controller::{moves, percent},
        events::way_back,
    },
};

/// Arguments of `tidegate eject` and `tidegate reinstate`.
#[derive(Debug, clap::Args)]
pub(super) struct SubjectArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// Its version.
    version: String,
    /// Only this endpoint of the version: its address as `tidegate status` shows it, such as
    /// 127.0.0.1:9002 or [::1]:9002.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    endpoint: Option<SocketAddr>,
    #[command(flatten)]
    change: ChangeArguments,
}

/// The change to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Ejects the version or endpoint.
    Eject,
    /// Reinstates it.
    Reinstate,
}

/// Ejects or reinstates a version or an endpoint.
pub(super) fn run(action: Action, arguments: &SubjectArguments) -> Result<(), Failure> {
    let change = &arguments.change;
    let request = SubjectRequest {
        version: arguments.version.clone(),
        endpoint: arguments.endpoint.map(|address| address.to_string()),
    };
    let target = format!("/v1/services/{}/{}", arguments.service, action.name());
    let answer: SubjectAnswer = change.client.call(change.post(&target, request)?)?;
    match change.json {
        true => say_json(&answer)?,
        false => say(&report(action, &printable(&answer)?)),
    }
    Ok(())
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Eject => "eject",
            Self::Reinstate => "reinstate",
        }
    }
}

fn report(action: Action, answer: &SubjectAnswer) -> String {
    let SubjectAnswer { generation, service, version, endpoint, ejected, .. } = answer;
    let subject = match endpoint {
        None => version.clone(),
        Some(endpoint) => format!("{endpoint} of {version}"),
    };
    let share = match answer.share.map(percent) {
        None => String::new(),
        Some(share) if answer.dry_run => format!("; it would get {share} of the players"),
        Some(share) => format!("; it gets {share} of the players"),
    };
    let line = match (answer.dry_run, action) {
        (_, Action::Eject) if answer.already_ejected.is_some() => {
            let since = answer.already_ejected.iter().map(since).collect::<String>();
            format!(
                "{service}: {subject} is ejected already, {since}; nothing was changed, and no other reason \
                 noted (generation {generation})"
            )
        }
        (true, action) => {
            let action = action.name();
            let effect = effect(answer);
            format!(
                "{service}: would {action} {subject} (generation {generation} in force){share}{effect}"
            )
        }
        (false, Action::Eject) => format!("{service}: ejected {subject} (generation {generation})"),
        (false, Action::Reinstate) => {
            format!("{service}: reinstated {subject} (generation {generation}){share}")
        }
    };
    // The version itself was reported already, or is about to change.
    let others: Vec<_> = ejected.iter().filter(|e| e.version != *version).cloned().collect();
    let unwritten = match &answer.unwritten {
        Some(why) => format!("\nits entry is not in the journal yet, and follows: {why}"),
        None => String::new(),
    };
    line + &unwritten + &still_ejected(service, &others)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let right = "write an address as `tidegate status` shows it, such as 127.0.0.1:9002";
    text.parse().map_err(|_| right.to_owned())
}

/// The effect of an ejection on shares, and on the comparison.
fn effect(answer: &SubjectAnswer) -> String {
    let Some(shares) = &answer.shares else { return String::new() };
    let moves = moves(&shares.before, &shares.after);
    let left = match &*answer.uncompared {
        [] => String::new(),
        [one] => format!("; {one} then has no baseline to be compared with"),
        all => format!("; {} then have no baseline to be compared with", all.join(", ")),
    };
    format!(": {moves}{left}")
}

/// A line for each ejected version of `service`, each with a newline before it. What a verdict says at length,
/// `tidegate status` shows.
pub(super) fn still_ejected(service: &str, ejected: &[Ejected]) -> String {
    let each = ejected.iter().map(|Ejected { version, ejection, share_when_reinstated }| {
        let mut ejection = ejection.clone();
        if ejection.by == actor::VERDICT {
            ejection.reason.clear();
        }
        let (since, share) = (since(&ejection), percent(*share_when_reinstated));
        let back = way_back(service, version);
        format!(
            "\n{version} is ejected {since}; `{back}` reinstates it, with {share} of the players"
        )
    });
    each.collect()
}

/// `since 2026-11-26T18:00:00Z by ops (pays twice)`.
pub(super) fn since(ejection: &Ejection) -> String {
    let Ejection { at, by, reason } = ejection;
    match reason.trim_end_matches('.') {
        "" => format!("since {at} by {by}"),
        reason => format!("since {at} by {by} ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::admin::model::Shares;

    #[test]
    fn a_change_is_shown_in_one_line() {
        let version = SubjectAnswer {
            generation: 3,
            service: "game-api".to_owned(),
            version: "v42".to_owned(),
            endpoint: None,
            dry_run: false,
            already_ejected: None,
            share: None,
            shares: None,
            uncompared: Vec::new(),
            unwritten: None,
            ejected: Vec::new(),
        };
        assert_eq!(report(Action::Eject, &version), "game-api: ejected v42 (generation 3)");
        // The preview of an ejection showed no effect.
        let shares = |v41, v42| IndexMap::from([("v41".to_owned(), v41), ("v42".to_owned(), v42)]);
        let preview = SubjectAnswer {
            dry_run: true,
            shares: Some(Shares::new(shares(0.95, 0.05), shares(0.0, 1.0))),
            uncompared: vec!["v42".to_owned()],
            ..version.clone()
        };
        assert_eq!(
            report(Action::Eject, &preview),
            "game-api: would eject v42 (generation 3 in force): v41 95% -> 0%, v42 5% -> 100%; v42 then has no \
             baseline to be compared with"
        );
        let back = SubjectAnswer { share: Some(0.05), ..version.clone() };
        assert_eq!(
            report(Action::Reinstate, &back),
            "game-api: reinstated v42 (generation 3); it gets 5% of the players"
        );
        let by_ops = Ejection {
            at: "2026-11-26T18:00:00Z".to_owned(),
            by: "ops".to_owned(),
            reason: "pays twice".to_owned(),
        };
        let again = SubjectAnswer { already_ejected: Some(by_ops), ..version.clone() };
        assert_eq!(
            report(Action::Eject, &again),
            "game-api: v42 is ejected already, since 2026-11-26T18:00:00Z by ops (pays twice); nothing was \
             changed, and no other reason noted (generation 3)"
        );
        let waits =
            SubjectAnswer { unwritten: Some("the disk is full".to_owned()), ..version.clone() };
        assert_eq!(
            report(Action::Eject, &waits),
            "game-api: ejected v42 (generation 3)\nits entry is not in the journal yet, and follows: the disk is full"
        );
        let endpoint = Some("127.0.0.1:9002".to_owned());
        let endpoint = SubjectAnswer { endpoint, dry_run: true, ..version };
        assert_eq!(
            report(Action::Eject, &endpoint),
            "game-api: would eject 127.0.0.1:9002 of v42 (generation 3 in force)"
        );
    }
}
