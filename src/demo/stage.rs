//! Runs the script while the players play, and shows the result.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    game::{BY, Fault, SERVICE, Version},
    observe::{Observed, Observer},
    players::SharedLedger,
    screen::{self, Screen},
    script::{FAULT, Script, plan, weight},
    trace::Trace,
    view::{self, Scene},
};
use crate::{
    control::{
        controller::{ChangeHead, PlanAsked, RolloutAsked, RolloutChange},
        reach::Reach,
        tasks::ControlPlane,
    },
    store::Actor,
};

/// Interval of samples of the evidence: that of the evaluator.
const LOOK: Duration = Duration::from_millis(10);

/// Interval of frames.
const FRAME: Duration = Duration::from_millis(200);

/// Interval of frames while v42 fails and is not ejected yet, which takes a fraction of a second.
const FAST_FRAME: Duration = Duration::from_millis(50);

/// Interval of plain lines.
const LINE: Duration = Duration::from_secs(1);

/// An ejection of v42 by a verdict.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ejected {
    /// When, since the players began.
    pub(super) at: Duration,
    /// The verdict as a sentence.
    pub(super) reason: String,
}

/// The running demonstration.
pub(super) struct Stage {
    pub(super) observer: Observer,
    observatory: ControlPlane,
    ledger: SharedLedger,
    fault: Arc<Fault>,
    /// Address of the admin API.
    admin: String,
    /// Length of each step of growth.
    step_length: Duration,
    /// Whether another client changed the split, so that moves are no evidence about it.
    pub(super) meddled: bool,
    trace: Trace,
    /// The current verdict.
    reason: String,
    /// The first ejection.
    pub(super) ejected: Option<Ejected>,
    /// Whether the script was completed.
    pub(super) completed: bool,
}

impl Stage {
    /// Creates the stage before the first step.
    pub(super) fn new(
        observatory: &ControlPlane,
        ledger: &SharedLedger,
        fault: Arc<Fault>,
        admin: String,
        step_length: Duration,
    ) -> Self {
        Self {
            observer: Observer::new(observatory.clone()),
            observatory: observatory.clone(),
            ledger: ledger.clone(),
            fault,
            admin,
            step_length,
            meddled: false,
            trace: Trace::default(),
            reason: String::new(),
            ejected: None,
            completed: false,
        }
    }

    /// Samples the comparison; returns whether it ejected v42 for the first time.
    fn judge(&mut self, started: Instant) -> bool {
        let judged = self.observer.judged();
        self.meddled |= judged.meddled;
        self.trace.note(judged.verdict.as_ref());
        self.reason = judged.verdict.map(|verdict| verdict.reason).unwrap_or_default();
        let at = judged.ejected_at.filter(|_| judged.ejections > 0 && self.ejected.is_none());
        let Some(at) = at else { return false };
        self.ledger.lock().ejected(started.elapsed());
        let at = at.saturating_duration_since(started.into_std());
        self.ejected = Some(Ejected { at, reason: self.reason.clone() });
        true
    }

    /// When v42 failed first, since the players began.
    pub(super) fn first_fault(&self, started: Instant) -> Option<Duration> {
        self.fault.first().map(|at| at.saturating_duration_since(started.into_std()))
    }

    /// The proxy's view at the end.
    pub(super) async fn last_look(&mut self, started: Instant) -> Observed {
        self.judge(started);
        self.observer.look().await
    }

    /// Runs the script's steps and shows the state until it ends.
    pub(super) async fn show(
        &mut self,
        script: Script,
        started: Instant,
        live: bool,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut screen = Screen::new(out);
        let (mut step, mut due) = (0, started);
        loop {
            let now = looks.tick().await;
            let Some(moment) = script.at(started.elapsed()) else { break };
            while step < moment.step {
                step += 1;
                self.enter(step)?;
                due = now;
            }
            let news = self.judge(started);
            if now < due && !news {
                continue;
            }
            due = now
                + match (live, step == FAULT && self.ejected.is_none()) {
                    (false, _) => LINE,
                    (true, false) => FRAME,
                    (true, true) => FAST_FRAME,
                };
            let observed = self.observer.look().await;
            let ledger = self.ledger.lock();
            let (trace, reason, admin) = (&self.trace, &*self.reason, &*self.admin);
            let scene =
                Scene { moment, observed: &observed, ledger: &ledger, trace, reason, admin };
            if live {
                screen.draw(view::frame(&scene), screen::size())?;
            } else if news {
                announce(&mut screen, &scene)?;
            } else {
                screen.print(&view::line(&scene))?;
            }
        }
        self.completed = true;
        Ok(())
    }

    /// Begins step number `step`. In the first one with a weight of v42 the rollout is started, which then grows by
    /// itself; in the last one v42 begins to fail.
    pub(super) fn enter(&mut self, step: usize) -> anyhow::Result<()> {
        if step == FAULT {
            self.ledger.lock().begin_fault();
            self.fault.begin();
            return Ok(());
        }
        self.ledger.lock().begin_step(weight(step));
        if step != 1 {
            return Ok(());
        }
        let steps = plan(self.step_length);
        let change = RolloutChange {
            service: SERVICE.to_owned(),
            asked: RolloutAsked::Start {
                to: Version::V42.name().to_owned(),
                plan: PlanAsked::Steps(steps),
                urgent: false,
            },
            reach: Reach::Unasked,
            head: ChangeHead {
                reason: "the demonstration".to_owned(),
                ..ChangeHead::of(Actor { name: BY.to_owned(), ..Actor::system() })
            },
        };
        self.observatory.controller().change_rollout(change)?;
        Ok(())
    }
}

/// Prints an ejection as plain lines, with its evidence.
fn announce(screen: &mut Screen<'_>, scene: &Scene<'_>) -> io::Result<()> {
    screen.print(&format!("v42 is ejected: {}", scene.reason))?;
    view::chart(scene.trace).iter().try_for_each(|row| screen.print(&format!("  {row}")))?;
    screen.print(&format!("  what became of its rollout: {}", view::its_end(scene.admin)))
}
