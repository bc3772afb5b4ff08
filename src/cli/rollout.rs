//! `tidegate rollout`: starts a rollout, shows it, waits for its end, and commands it.

pub(in crate::cli) mod report;
mod wait;

use std::process::ExitCode;

use clap::Subcommand;

use self::report::report;
use super::{
    change::ChangeArguments,
    client::{Call, ClientArguments, service_name},
    cutover::waits,
    failure::{Exit, Failure},
    file::text_of,
    printable::printable,
    say::{complain, say, say_json},
};
use crate::{
    admin::model::{Priority, Rollout, RolloutAnswer, RolloutCommand, RolloutRequest},
    config::schema::Step,
};

/// Arguments of `tidegate rollout`.
#[derive(Debug, clap::Args)]
pub(super) struct RolloutArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a rollout: the version gets players step by step, while the gates of its plan pass.
    Start(StartArguments),
    /// Show the rollout of a service in progress, or its last one.
    Show(SubjectArguments),
    /// Wait until the rollout of a service has ended, and show its progress.
    Wait(WaitArguments),
    /// Hold the rollout until it is resumed.
    Pause(CommandArguments),
    /// Let a paused rollout go on.
    Resume(CommandArguments),
    /// Skip what is left of the step. Guardrails that fail, and windows, count nevertheless.
    Promote(ReasonArguments),
    /// Approve the step, as a gate `approval` asks.
    Approve(CommandArguments),
    /// Refuse to approve the step.
    Reject(ReasonArguments),
    /// Let the rollout grow in spite of the window that freezes it, until that window is over.
    BreakIn(CommandArguments),
    /// Give the rollout up, and restore the split before it.
    Abort(AbortArguments),
    /// Restore the split before the rollout, also when it is done.
    Rollback(RollbackArguments),
}

#[derive(Debug, clap::Args)]
struct StartArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// The version that is to get all players.
    version: String,
    /// A plan of the configuration. Default: the one that `rollout` of the service names.
    #[arg(long, conflicts_with = "steps")]
    plan: Option<String>,
    /// A file with the steps of a plan, in YAML or JSON; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    steps: Option<std::path::PathBuf>,
    /// p1: the version must have all players within 24 hours, as a security patch. A metric and an alert show the
    /// time that is left.
    #[arg(long, value_name = "PRIORITY", value_parser = ["p1"])]
    priority: Option<String>,
    /// Wait until the rollout has ended, and show its progress.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Longest time to wait, such as 2h. Default: none.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<std::time::Duration>,
    #[command(flatten)]
    change: ChangeArguments,
}

#[derive(Debug, clap::Args)]
struct SubjectArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    /// Print the response of the admin endpoint as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, clap::Args)]
struct WaitArguments {
    /// Longest time to wait, such as 2h. Default: none.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<std::time::Duration>,
    #[command(flatten)]
    subject: SubjectArguments,
}

#[derive(Debug, clap::Args)]
struct CommandArguments {
    /// The service.
    #[arg(value_parser = service_name)]
    service: String,
    #[command(flatten)]
    change: ChangeArguments,
}

#[derive(Debug, clap::Args)]
struct ReasonArguments {
    #[command(flatten)]
    command: CommandArguments,
}

#[derive(Debug, clap::Args)]
struct AbortArguments {
    /// Restore the split before also if no endpoint of its versions can be reached.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    command: CommandArguments,
}

#[derive(Debug, clap::Args)]
struct RollbackArguments {
    /// Give the endpoints of the split before their load at once, although they are not ready for it.
    #[arg(long)]
    at_once: bool,
    /// Restore it also if no endpoint of its versions can be reached.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    command: CommandArguments,
}

/// Runs the command.
pub(super) fn run(arguments: &RolloutArguments) -> Result<ExitCode, Failure> {
    let order = |name: &str, arguments: &CommandArguments, more: RolloutCommand| {
        order(name, arguments, more).map(|()| ExitCode::SUCCESS)
    };
    let none = RolloutCommand::default;
    match &arguments.command {
        Command::Start(arguments) => start(arguments),
        Command::Show(arguments) => show(arguments).map(|()| ExitCode::SUCCESS),
        Command::Wait(WaitArguments { timeout, subject }) => {
            let SubjectArguments { service, json, client } = subject;
            wait::wait((client, service), *timeout, *json, None)
        }
        Command::Pause(arguments) => order("pause", arguments, none()),
        Command::Resume(arguments) => order("resume", arguments, none()),
        Command::Promote(arguments) => order("promote", &arguments.command, none()),
        Command::Approve(arguments) => order("approve", arguments, none()),
        Command::Reject(arguments) => {
            let more = RolloutCommand { approves: Some(false), ..none() };
            order("approve", &arguments.command, more)
        }
        Command::BreakIn(arguments) => order("break-in", arguments, none()),
        Command::Abort(AbortArguments { force, command }) => {
            let more = RolloutCommand { force: force.then_some(true), ..none() };
            order("abort", command, more)
        }
        Command::Rollback(RollbackArguments { at_once, force, command }) => {
            let [at_once, force] = [at_once, force].map(|flag| flag.then_some(true));
            let more = RolloutCommand { at_once, force, ..none() };
            order("rollback", command, more)
        }
    }
}

fn start(arguments: &StartArguments) -> Result<ExitCode, Failure> {
    let StartArguments { service, version, plan, steps, priority, wait, timeout, change } =
        arguments;
    waits(*timeout, *wait, "--wait")?;
    let request = RolloutRequest {
        to: version.clone(),
        plan: plan.clone(),
        steps: steps.as_deref().map(steps_of).transpose()?,
        priority: priority.as_ref().map(|_| Priority::P1),
    };
    let target = format!("/v1/services/{service}/rollout");
    let answer: RolloutAnswer = change.client.call(change.post(&target, request)?)?;
    if !*wait {
        return tell(&answer, change.json).map(|()| ExitCode::SUCCESS);
    }
    // Standard output has the progress, for programs as JSON.
    let warn = if change.json { complain } else { say };
    answer.warnings.iter().for_each(|warning| warn(&format!("warning: {warning}")));
    let started = Some(answer.rollout.started);
    wait::wait((&change.client, service), *timeout, change.json, started)
}

fn show(arguments: &SubjectArguments) -> Result<(), Failure> {
    let SubjectArguments { service, json, client } = arguments;
    let rollout: Rollout = client.call(Call::get(format!("/v1/services/{service}/rollout")))?;
    match json {
        true => say_json(&rollout)?,
        false => say(&report(&printable(&rollout)?)),
    }
    Ok(())
}

fn order(name: &str, arguments: &CommandArguments, asked: RolloutCommand) -> Result<(), Failure> {
    let CommandArguments { service, change } = arguments;
    let target = format!("/v1/services/{service}/rollout/{name}");
    let call = change.post(&target, asked)?;
    let answer: RolloutAnswer = change.client.call(call)?;
    tell(&answer, change.json)
}

fn tell(answer: &RolloutAnswer, json: bool) -> Result<(), Failure> {
    if json {
        return say_json(answer);
    }
    let answer = printable(answer)?;
    for warning in &answer.warnings {
        say(&format!("warning: {warning}"));
    }
    if let Some(why) = &answer.unwritten {
        say(&format!("in force, but not in the journal yet: {why}"));
    }
    if answer.dry_run {
        say(&format!("would be, in generation {}:", answer.generation));
    }
    say(&report(&answer.rollout));
    Ok(())
}

/// The steps in a file.
fn steps_of(file: &std::path::Path) -> Result<Vec<Step>, Failure> {
    let text = text_of(file)?;
    crate::config::steps(&text).map_err(|problems| {
        let each =
            problems.as_slice().iter().map(|problem| format!("{}:{problem}", file.display()));
        Failure::new(Exit::File, each.collect::<Vec<_>>().join("\n"))
    })
}
