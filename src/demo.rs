//! `tidegate demo`: two versions of a small game API, players, a growing weight, a fault and an ejection, in
//! one process.
//!
//! The proxy is a normal [`App`], started from a normal configuration. The version grows by a
//! rollout, started as through the admin API, and only the comparison ejects. Only the game, its fault and its players are
//! simulated. All sockets listen on free ports of loopback. The only files that
//! it writes are the report of the rollout, in the folder for temporary files.

mod game;
mod ledger;
mod observe;
mod players;
mod screen;
mod script;
mod stage;
mod summary;
mod trace;
mod view;

use std::{
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use self::{
    game::{Game, SERVICE},
    players::{Players, SharedLedger},
    script::Script,
    stage::Stage,
    summary::Summary,
};
use crate::{
    app::App,
    config::{self, Loaded},
    control::tasks::ControlPlane,
};

/// Arguments of `tidegate demo`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct DemoArguments {
    /// Number of players, 20 to 10000; with fewer, v42 might get none.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    pub players: u32,
    /// Requests per second of all players together.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Length of each of the four steps of growth, in seconds; the step in which v42 fails is three
    /// times as long.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds_per_step: u32,
}

/// Runs the demonstration. Exits with 0 if v42 was ejected after it began to fail, every request was answered
/// all the same and players moved only as the split requires, with 1 if not, with 2 if the arguments contradict
/// each other, with 69 if it cannot start.
pub fn run(arguments: &DemoArguments) -> ExitCode {
    if let Err(problem) = check(arguments) {
        eprintln!("{problem}");
        return ExitCode::from(2);
    }
    let played = runtime().and_then(|runtime| {
        let _guard = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let interrupted = async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        };
        runtime.block_on(play(arguments, screen::is_wanted(), &mut io::stdout(), interrupted))
    });
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(69)
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Whether the reader of the output, such as `head`, has closed the pipe.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Every player must send a request in each step, so that the shares are known; the factor of two is a reserve.
/// With too few requests v42 is not ejected in time.
fn check(arguments: &DemoArguments) -> Result<(), String> {
    let DemoArguments { players, rate, seconds_per_step } = *arguments;
    if u64::from(rate) * u64::from(seconds_per_step) < 2 * u64::from(players) {
        return Err(format!(
            "{rate} requests a second ask {players} players less than twice in a step of \
             {seconds_per_step} s; raise --rate or --seconds-per-step, or lower --players"
        ));
    }
    if !script(arguments).lets_judge(rate) {
        return Err(format!(
            "with {rate} requests a second and steps of {seconds_per_step} s, v42 gets too few \
             requests to be judged; raise --rate or --seconds-per-step"
        ));
    }
    Ok(())
}

fn script(arguments: &DemoArguments) -> Script {
    Script::new(Duration::from_secs(arguments.seconds_per_step.into()))
}

/// The configuration, for a game at these addresses.
fn configuration([v41, v42]: [SocketAddr; 2]) -> String {
    format!(
        r#"workers: 2
listen: [ {{ address: 127.0.0.1:0 }} ]    # port 0: any free one
admin: {{ address: 127.0.0.1:0 }}
services:
  {SERVICE}:
    baseline: v41
    versions:
      v41: {{ endpoints: [ {v41} ], labels: {{ semver: 4.1.0 }} }}
      v42: {{ endpoints: [ {v42} ], labels: {{ semver: 4.2.0 }} }}
    weights: {{ v41: 100, v42: 0 }}
    cohort: {{ key: [ "header:x-player-id", "cookie:uid" ], salt: release-42 }}
    eject: {{ errors: {{ relative: 10%, absolute: 0.3% }}, ask_players: false }}
routes:
  - service: {SERVICE}
    retry: {{ idempotency_key: honoured, rescue: shared_store }}
"#
    )
}

/// Plays all steps, or until `interrupted`. Returns whether the result was as expected.
async fn play(
    arguments: &DemoArguments,
    live: bool,
    out: &mut dyn Write,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<bool> {
    make_room(arguments.players)?;
    let game = Game::start().context("the game cannot start")?;
    let text = configuration(game.addresses);
    let config = config::parse(&text).context("the demo's own configuration is wrong")?;
    let app = App::start(
        Loaded { config, hash: "demo".to_owned(), tokens: Vec::new(), files: Vec::new() },
        None,
        None,
    )?;
    let proxy = *app.listeners.first().context("the proxy listens nowhere")?;
    introduce(out, &text, proxy, arguments)?;

    let ledger = SharedLedger::new(arguments.players as usize);
    let admin = app.admin.context("the admin API listens nowhere")?.to_string();
    let script = script(arguments);
    let (fault, length) = (game.fault(), script.step_length());
    let mut stage = Stage::new(app.observatory(), &ledger, fault, admin, length);
    stage.enter(0)?;
    let started = Instant::now();
    let players = Players::start(proxy, started, arguments.players, arguments.rate, &ledger)?;
    let shown = tokio::select! {
        shown = stage.show(script, started, live, out) => shown,
        () = interrupted => Ok(()),
    };
    let lasted = started.elapsed();
    let well = players.stop();
    let observed = stage.last_look(started).await;
    let own_time = stage.observer.own_time().await;
    let report = report(app.observatory());
    app.shutdown();
    game.stop();
    shown?;
    anyhow::ensure!(well, "the players crashed");
    let ledger = ledger.lock();
    let first_fault = stage.first_fault(started);
    let Stage { meddled, completed, ejected, .. } = stage;
    let growth = script.step_length();
    let summary = Summary {
        ledger: &ledger,
        observed,
        lasted,
        growth,
        own_time,
        meddled,
        completed,
        first_fault,
        ejected,
    };
    out.write_all(summary.text().as_bytes())?;
    match report {
        Ok(Some(path)) => writeln!(out, "The report of the rollout: {}", path.display())?,
        Ok(None) => {}
        Err(error) => writeln!(out, "The report of the rollout cannot be written: {error}")?,
    }
    out.flush()?;
    Ok(summary.is_as_promised())
}

/// Writes the report of the last rollout that ended to a folder for temporary files, and returns the path of its
/// page; `None` if none has ended.
fn report(plane: &ControlPlane) -> io::Result<Option<PathBuf>> {
    let all = plane.finish_incidents();
    let Some(id) = all.iter().rev().find(|id| id.as_str().contains("-rollout-")) else {
        return Ok(None);
    };
    let folder = std::env::temp_dir().join("tidegate-demo");
    std::fs::create_dir_all(&folder)?;
    plane.save_incident(id, &folder).map(Some)
}

/// Every player needs two file descriptors of this process: the client's and the proxy's.
fn make_room(players: u32) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = 2 * u64::from(players) + 512;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).with_context(|| {
            format!("{players} players need {needed} open files; see `ulimit -n`, or lower --players")
        })?;
    }
    Ok(())
}

fn introduce(
    out: &mut dyn Write,
    config: &str,
    proxy: SocketAddr,
    arguments: &DemoArguments,
) -> io::Result<()> {
    let DemoArguments { players, rate, .. } = arguments;
    let seconds = script(arguments).length().as_secs();
    writeln!(
        out,
        "Two versions of a game API run in this process, and Tidegate in front of them:\n"
    )?;
    config.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
    let rate = view::thousands(rate);
    writeln!(
        out,
        "\n{players} players at http://{proxy}, {rate} requests a second, for {seconds} s.\n"
    )
}

#[cfg(test)]
mod tests;
