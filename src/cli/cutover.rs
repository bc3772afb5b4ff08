//! `tidegate cutover` and `tidegate rollback`: all traffic of a service moves to a version, and back.

use std::time::Duration;

use indexmap::IndexMap;
use serde::Serialize;

use super::{
    change::ChangeArguments,
    client::service_name,
    failure::{Exit, Failure},
    printable::printable,
    say::{say, say_json},
};
use crate::{
    admin::{
        cutover::MOST_PATIENCE,
        model::{CutoverAnswer, CutoverRequest, RollbackRequest},
    },
    control::controller::moves,
};

/// Arguments of `tidegate cutover`.
#[derive(Debug, clap::Args)]
pub(super) struct CutoverArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// The version that gets all of its traffic.
    version: String,
    #[command(flatten)]
    common: CommonArguments,
}

/// Arguments of `tidegate rollback`.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Debug, clap::Args)]
struct CommonArguments {
    /// Return only when the versions that lost their players have nothing in flight any more.
    #[arg(long, value_name = "WHAT", value_parser = ["drained"])]
    wait: Option<String>,
    /// The longest wait, such as 30s, which is the default, at most 4m; then the exit code is 4, and the
    /// change stays in force.
    #[arg(long, value_name = "TIME", value_parser = patience)]
    timeout: Option<Duration>,
    /// Hold writes until those of the version before have ended. The default for a service with `fence`.
    #[arg(long)]
    fence: bool,
    /// Do not hold writes.
    #[arg(long, conflicts_with = "fence")]
    no_fence: bool,
    /// Go on although no endpoint of the version can be reached.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeArguments,
}

/// Moves all traffic of a service to a version.
pub(super) fn run(arguments: &CutoverArguments) -> Result<(), Failure> {
    let CutoverArguments { service, version, common } = arguments;
    let (to, fence, force) = (version.clone(), common.fence(), common.force);
    let request = CutoverRequest { to, fence, force };
    common.call(service, "cutover", request)
}

/// Returns to the split before the last change.
pub(super) fn roll_back(arguments: &RollbackArguments) -> Result<(), Failure> {
    let RollbackArguments { service, common } = arguments;
    let request = RollbackRequest { fence: common.fence(), force: common.force };
    common.call(service, "rollback", request)
}

impl CommonArguments {
    fn call(&self, service: &str, path: &str, request: impl Serialize) -> Result<(), Failure> {
        waits(self.timeout, self.wait.is_some(), "--wait drained")?;
        let target = format!("/v1/services/{service}/{path}");
        let call = self.change.post_with(&target, self.query(), request)?;
        let answer: CutoverAnswer = self.change.client.call_within(call, MOST_PATIENCE)?;
        match self.change.json {
            true => say_json(&answer)?,
            false => say(&report(&printable(&answer)?)),
        }
        Ok(())
    }

    fn fence(&self) -> Option<bool> {
        (self.fence || self.no_fence).then_some(self.fence)
    }

    /// The parameters besides those of every change.
    fn query(&self) -> Vec<String> {
        let wait = self.wait.as_ref().map(|wait| format!("wait={wait}"));
        let timeout = self.timeout.map(|time| {
            format!("timeout={}", humantime::format_duration(time).to_string().replace(' ', ""))
        });
        [wait, timeout].into_iter().flatten().collect()
    }
}

/// The split in force, as a sentence.
fn already(shares: &IndexMap<String, f64>) -> String {
    let mut some = shares.iter().filter(|(_, share)| **share > 0.0);
    match (some.next(), some.next()) {
        (Some((version, _)), None) => format!("{version} has all players already"),
        _ => "the split is so already".to_owned(),
    }
}

/// Refuses a time to wait of a command that does not wait; `wait` is the option that makes it wait.
pub(super) fn waits(timeout: Option<Duration>, waits: bool, wait: &str) -> Result<(), Failure> {
    match timeout {
        Some(_) if !waits => {
            let why = format!(
                "--timeout is how long `{wait}` waits, and this command does not wait: add `{wait}`, or leave \
                 --timeout out; nothing was changed"
            );
            Err(Failure::new(Exit::Arguments, why))
        }
        _ => Ok(()),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    let right = "write a time with its unit, such as 30s, at most 4m";
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; {right}"))?;
    if time.is_zero() || time > MOST_PATIENCE { Err(right.to_owned()) } else { Ok(time) }
}

fn report(answer: &CutoverAnswer) -> String {
    let CutoverAnswer { service, generation, .. } = answer;
    if answer.shares.before == answer.shares.after {
        let would = if answer.dry_run { "would move" } else { "moved" };
        let named = answer
            .named
            .iter()
            .map(|named| format!("\n{named}, and still sends its requests there"));
        return format!(
            "{service}: {would} nobody: {} (generation {generation})",
            already(&answer.shares.after)
        ) + &named.collect::<String>();
    }
    let changes = moves(&answer.shares.before, &answer.shares.after);
    let mut text = match answer.dry_run {
        true => format!("{service}: would change {changes} (generation {generation} in force)"),
        false => format!("{service}: {changes} (generation {generation})"),
    };
    if answer.fenced && !answer.dry_run {
        let epoch = answer.epoch.unwrap_or_default();
        let (held, longest) = (answer.writes_held, answer.longest_hold_ms);
        text += &format!("\n{held} write(s) held, at most {longest:.1} ms; epoch {epoch}");
        if answer.uploads_cut > 0 {
            text += &format!(
                "\n{} write(s) ended, since their bodies did not arrive",
                answer.uploads_cut
            );
        }
        if answer.writes_refused > 0 {
            text +=
                &format!("\n{} write(s) refused, since too many were held", answer.writes_refused);
        }
    }
    let left = answer.left_in_flight.iter().filter(|(_, requests)| **requests > 0);
    for (version, requests) in left {
        text += &format!("\n{version} still has {requests} request(s) in flight");
    }
    for named in &answer.named {
        text += &format!("\n{named}, and still sends its requests there");
    }
    if let Some(why) = &answer.unwritten {
        text += &format!("\nits entry is not in the journal yet, and follows: {why}");
    }
    text
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::admin::model::Shares;

    #[test]
    fn a_cutover_is_told_in_a_line_and_what_is_left_below_it() {
        let shares = |v41, v42| IndexMap::from([("v41".to_owned(), v41), ("v42".to_owned(), v42)]);
        let mut answer = CutoverAnswer {
            generation: 2,
            service: "game-api".to_owned(),
            before: IndexMap::new(),
            after: IndexMap::new(),
            shares: Shares::new(shares(1.0, 0.0), shares(0.0, 1.0)),
            dry_run: false,
            epoch: None,
            fenced: false,
            writes_held: 0,
            writes_refused: 0,
            uploads_cut: 0,
            longest_hold_ms: 0.0,
            left_in_flight: IndexMap::from([("v41".to_owned(), 0)]),
            named: Vec::new(),
            unwritten: None,
        };
        let line = "game-api: v41 100% -> 0%, v42 0% -> 100% (generation 2)";
        assert_eq!(report(&answer), line);
        answer.left_in_flight["v41"] = 3;
        answer.named = vec!["route `legacy` names v41".to_owned()];
        let more = "\nv41 still has 3 request(s) in flight\nroute `legacy` names v41, and still sends its requests there";
        assert_eq!(report(&answer), format!("{line}{more}"));
        (answer.fenced, answer.epoch, answer.writes_held) = (true, Some(1_795_618_177_001), 12);
        answer.longest_hold_ms = 21.53;
        let held = "\n12 write(s) held, at most 21.5 ms; epoch 1795618177001\nv41 still";
        assert!(report(&answer).contains(held), "{}", report(&answer));
        answer.dry_run = true;
        let mut same = answer.clone();
        same.named.clear();
        same.shares.before = same.shares.after.clone();
        assert_eq!(
            report(&same),
            "game-api: would move nobody: v42 has all players already (generation 2)"
        );
        same.dry_run = false;
        let said = report(&same);
        assert!(
            said.starts_with("game-api: moved nobody: v42 has all") && said.lines().count() == 1
        );
        assert!(report(&answer).starts_with("game-api: would change v41 100% -> 0%"));
    }

    #[test]
    fn a_wait_is_bounded() {
        let second = Some(Duration::from_secs(1));
        let refused = waits(second, false, "--wait drained").expect_err("it does not wait");
        assert_eq!(refused.exit, Exit::Arguments);
        assert!(refused.message.contains("add `--wait drained`"), "{}", refused.message);
        assert!(waits(second, true, "--wait").is_ok() && waits(None, false, "--wait").is_ok());
        assert_eq!(patience("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["0s", "5m", "30", "soon"] {
            assert!(patience(wrong).expect_err("out of bounds").contains("at most 4m"), "{wrong}");
        }
    }
}
