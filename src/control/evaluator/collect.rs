//! Collects blocks: reads the workers' rings and cells, and makes plain data of them. Judges nothing.

mod account;
mod alone;
mod amounts;
mod asked;
mod line;
mod outage;
mod places;
mod service;
mod slots;
mod speed;
mod spread;
mod traffic;

use std::time::Duration;

use indexmap::IndexMap;

use self::places::Places;
pub(super) use self::service::ServiceCollector;
use crate::{analysis::Ending, snapshot::Snapshot};

/// A look that comes so much later than it was due means that the process did not run: it was stopped, or
/// the machine was. Deadlines pass then although the answers are there. A busy machine is late by less.
const STOPPED: Duration = Duration::from_millis(250);

/// Least time between two such looks, else the later one excuses nothing: on a machine that is always late a
/// version that hangs is to be found, too.
const STEADY: Duration = Duration::from_secs(3);

/// The collectors of all services of this process.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub(super) services: IndexMap<Box<str>, ServiceCollector>,
    places: Places,
    /// Endings that were lost so far.
    lost: u64,
    /// When the next look is due.
    due: Option<Duration>,
    /// When the process went on after a stop, the last time.
    went_on: Option<Duration>,
}

impl Collector {
    /// Takes over where the attempts that `snapshot` compares are counted. All its services were followed.
    pub(super) fn place(&mut self, snapshot: &Snapshot) {
        self.places = Places::new(snapshot, |service| self.services.get_index_of(service));
    }

    /// Begins the next look, and hears what the workers said since the last one.
    pub(super) fn hear(&mut self, snapshot: &Snapshot, now: Duration) {
        let compared = snapshot.services.iter().filter_map(|service| service.compared.as_ref());
        let Some(outcomes) = compared.map(|compared| &compared.outcomes).next() else { return };
        let look = outcomes.next_look();
        self.services.values_mut().for_each(|service| service.look(look, now));
        // After the counts: one that is counted never has the number of a look to come.
        outcomes.begin_look(look);
        if self.was_stopped(now) {
            tracing::debug!(
                "a look came far too late, as after a stop of the process; \
                what began before it is not judged"
            );
            self.services.values_mut().for_each(|service| service.forget_before(look, now));
        }
        let lost = outcomes.lost();
        if std::mem::replace(&mut self.lost, lost) != lost {
            // What is not heard of any more would wait for ever, and so speak against the baseline.
            self.services.values_mut().for_each(|service| service.skip_to(now));
        }
        outcomes.hear(|endings| {
            self.fetch(endings);
            endings.iter().for_each(|ending| self.take_in(snapshot, ending, look, now));
        });
    }

    /// Notes that the next look is due so long after `now`, the time of the last one: one that is far later
    /// says that the process did not run meanwhile.
    pub(super) fn expect_after(&mut self, pause: Option<Duration>, now: Duration) {
        self.due = pause.map(|pause| now + pause);
    }

    /// Whether the process did not run for a part of the time before the look that begins `now`.
    fn was_stopped(&mut self, now: Duration) -> bool {
        let Some(due) = self.due.take() else { return false };
        let is_steady = self.went_on.is_none_or(|went_on| now.saturating_sub(went_on) >= STEADY);
        let was_stopped = is_steady && now.saturating_sub(due) >= STOPPED;
        if was_stopped {
            self.went_on = Some(now);
        }
        was_stopped
    }

    /// Reads what is known of the players of `endings`. They are drawn at random, so each is a line of memory
    /// that is in no near cache: all at once they cost little more than one, and one after the other most of
    /// what an ending costs.
    fn fetch(&self, endings: &[Ending]) {
        let marks = endings.iter().map(|ending| {
            let place = self.places.of(ending.arm)?;
            let (_, service) = self.services.get_index(place.collector)?;
            service.marks_of(place.stratum, ending.player)
        });
        std::hint::black_box(marks.flatten().fold(0, |all, marks| all ^ marks));
    }

    /// Takes in an ending at the look number `look`.
    fn take_in(&mut self, snapshot: &Snapshot, ending: &Ending, look: u32, now: Duration) {
        // One that the snapshot does not know is of a version that is gone.
        let Some(place) = self.places.of(ending.arm) else { return };
        let Some(service) = snapshot.services.get(place.service) else { return };
        let Some((_, collector)) = self.services.get_index_mut(place.collector) else { return };
        let counted = collector.tell(service, place, ending, look, now);
        if let Some(endpoint) = self.places.endpoint(ending.endpoint) {
            endpoint.judged.add(counted);
        }
    }
}
