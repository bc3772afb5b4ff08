//! What happens while the players play: steps are taken and shown.

use std::{io::Write, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    SERVICE,
    game::Version,
    observe::{Observed, Observer},
    players::SharedLedger,
    screen::Screen,
    script::{Script, WEIGHTS, title},
    view::{self, Scene},
};
use crate::{
    config::units::Weight,
    rollout::{Change, view::Observatory},
};

/// Between two frames, or looks.
const FRAME: Duration = Duration::from_millis(200);

/// Frames for each plain line.
const FRAMES_PER_LINE: u32 = 5;

/// The demonstration under way.
pub(super) struct Stage {
    pub(super) observer: Observer,
    observatory: Observatory,
    ledger: SharedLedger,
    /// What to type to look for oneself.
    hint: String,
    /// The last one that we made.
    generation: u64,
    /// Somebody else made one, so moves say nothing of the split.
    pub(super) meddled: bool,
}

impl Stage {
    /// Nothing has begun.
    pub(super) fn new(observatory: &Observatory, ledger: &SharedLedger, hint: String) -> Self {
        Self {
            observer: Observer::new(observatory.clone()),
            observatory: observatory.clone(),
            ledger: ledger.clone(),
            hint,
            generation: observatory.controller().snapshot().generation,
            meddled: false,
        }
    }

    /// What the proxy says now.
    pub(super) async fn look(&mut self) -> Observed {
        let observed = self.observer.look().await;
        self.meddled |= self.generation != observed.generation;
        observed
    }

    /// Shows what happens and takes the script's steps until it ends.
    pub(super) async fn show(
        &mut self,
        script: Script,
        started: Instant,
        live: bool,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut screen = Screen::new(out);
        let mut step = 0;
        for frame in 0u32.. {
            frames.tick().await;
            let Some(moment) = script.at(started.elapsed()) else { break };
            while step < moment.step {
                step += 1;
                self.enter(step)?;
            }
            let observed = self.look().await;
            let ledger = self.ledger.lock();
            let scene = Scene { moment, observed: &observed, ledger: &ledger, hint: &self.hint };
            if live {
                screen.draw(&view::frame(&scene))?;
            } else if frame % FRAMES_PER_LINE == 0 {
                screen.print(&view::line(&scene))?;
            }
        }
        Ok(())
    }

    /// Begins step number `step`: changes the weights as the admin API does.
    pub(super) fn enter(&mut self, step: usize) -> anyhow::Result<()> {
        let weight = WEIGHTS[step];
        self.ledger.lock().begin_step(weight);
        if step == 0 {
            return Ok(());
        }
        let weights = [(Version::V41, 100 - weight), (Version::V42, weight)].map(|(version, w)| {
            let weight = Weight::new(w.into()).expect("at most 100");
            (version.name().to_owned(), weight)
        });
        let change = Change {
            service: SERVICE.to_owned(),
            weights: weights.into(),
            if_generation: None,
            by: "demo".to_owned(),
            reason: Some(title(step)),
            dry_run: false,
        };
        let generation = self.observatory.controller().set_weights(change)?.generation;
        self.meddled |= generation != self.generation + 1;
        self.generation = generation;
        Ok(())
    }
}
