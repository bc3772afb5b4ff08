//! All interleavings of two workers, their writes, a cutover and its deadline: never do two versions have
//! writes in flight.
//!
//! The model has the steps in which threads really act: a worker reads the snapshot, then looks at the fence,
//! then counts the write as in flight, and acknowledges a command only between writes; the controller raises
//! the fence, waits for both acknowledgements, looks at each worker's count, moves, and publishes. Every
//! reachable state is visited.

use std::collections::HashSet;

use super::*;

/// Writes of each worker that arrive.
const WRITES: [u8; 2] = [2, 1];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Model {
    fence: Fence,
    /// The version of writes by the snapshot in force.
    published: u8,
    workers: [Worker; 2],
    control: Control,
    /// The deadline has passed.
    is_late: bool,
    /// Tickets in the order in which their writes began.
    begun: Vec<Ticket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Worker {
    to_come: u8,
    /// Within a poll: what it does next, for a write with this ticket, if it was held.
    poll: Option<(Poll, Option<Ticket>)>,
    held: Vec<Ticket>,
    /// Writes in flight, by version.
    in_flight: [u8; 2],
    has_command: bool,
    acknowledged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Poll {
    /// Reads the snapshot.
    Read,
    /// Has read that writes go to this version, and looks at the fence.
    Look(u8),
    /// The fence was open. Looks whether its snapshot is still the one in force.
    Check(u8),
    /// Counts the write.
    Count(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Control {
    Idle,
    Raised,
    /// Both workers have acknowledged; this one's writes are looked at next.
    Looking(usize),
    /// The move is allowed.
    Moving,
    /// The snapshot with the new version is in force.
    Published,
    Done,
}

impl Model {
    fn new() -> Self {
        let worker = |to_come| Worker {
            to_come,
            poll: None,
            held: Vec::new(),
            in_flight: [0; 2],
            has_command: false,
            acknowledged: false,
        };
        Self {
            fence: Fence::default(),
            published: 0,
            workers: WRITES.map(worker),
            control: Control::Idle,
            is_late: false,
            begun: Vec::new(),
        }
    }

    fn tell(&mut self, event: Event, clock: [Instant; 2]) -> Vec<Action> {
        self.fence.on(event, clock[usize::from(self.is_late)])
    }

    /// The states that one step leads to; `is_checked`: a worker looks whether its snapshot is in force.
    fn steps(&self, clock: [Instant; 2], is_checked: bool) -> Vec<Self> {
        let mut next = Vec::new();
        for n in 0..2 {
            self.worker_steps(n, clock, is_checked, &mut next);
        }
        self.control_steps(clock, &mut next);
        if !self.is_late && self.control != Control::Idle {
            let mut late = self.clone();
            late.is_late = true;
            next.push(late);
        }
        next
    }

    fn worker_steps(&self, n: usize, clock: [Instant; 2], is_checked: bool, next: &mut Vec<Self>) {
        let mut step = |change: &dyn Fn(&mut Self)| {
            let mut model = self.clone();
            change(&mut model);
            next.push(model);
        };
        let Some((poll, ticket)) = self.workers[n].poll else {
            if self.workers[n].to_come > 0 {
                step(&|m| {
                    m.workers[n].to_come -= 1;
                    m.workers[n].poll = Some((Poll::Read, None));
                });
            }
            // Of held writes the one that was called goes on; any of them may be left by its client.
            for place in 0..self.workers[n].held.len() {
                let ticket = self.workers[n].held[place];
                if self.fence.called == Some(ticket) {
                    step(&|m| {
                        m.workers[n].held.remove(place);
                        m.workers[n].poll = Some((Poll::Read, Some(ticket)));
                    });
                }
                step(&|m| {
                    m.workers[n].held.remove(place);
                    m.tell(Event::Leave(ticket), clock);
                });
            }
            for version in 0..2 {
                if self.workers[n].in_flight[version] > 0 {
                    step(&|m| m.workers[n].in_flight[version] -= 1);
                }
            }
            if self.workers[n].has_command {
                step(&|m| {
                    (m.workers[n].has_command, m.workers[n].acknowledged) = (false, true);
                });
            }
            return;
        };
        match poll {
            Poll::Read => {
                step(&|m| {
                    // Who was called passes; nothing else is published before it has begun.
                    let then = match ticket {
                        Some(_) => Poll::Count(m.published),
                        None => Poll::Look(m.published),
                    };
                    m.workers[n].poll = Some((then, ticket));
                });
            }
            Poll::Look(version) if self.fence.is_open() => {
                let then = if is_checked { Poll::Check(version) } else { Poll::Count(version) };
                step(&|m| m.workers[n].poll = Some((then, None)));
            }
            Poll::Look(_) => step(&|m| {
                // In the lock of the fence it may have been opened.
                m.workers[n].poll = match m.tell(Event::Arrive, clock)[..] {
                    [Action::Hold(ticket)] => {
                        m.workers[n].held.push(ticket);
                        None
                    }
                    [Action::Refuse] => None,
                    ref other => panic!("{other:?}"),
                };
            }),
            Poll::Check(version) => step(&|m| {
                let is_current = version == m.published;
                let then = if is_current { Poll::Count(version) } else { Poll::Read };
                m.workers[n].poll = Some((then, None));
            }),
            Poll::Count(version) => step(&|m| {
                m.workers[n].in_flight[usize::from(version)] += 1;
                m.workers[n].poll = None;
                if let Some(ticket) = ticket {
                    m.begun.push(ticket);
                    m.tell(Event::Leave(ticket), clock);
                }
            }),
        }
    }

    fn control_steps(&self, clock: [Instant; 2], next: &mut Vec<Self>) {
        let mut model = self.clone();
        match self.control {
            Control::Idle => {
                let deadline = clock[1] - clock[0];
                model.tell(Event::Raise { deadline, queue: 2 }, clock);
                model.workers.iter_mut().for_each(|worker| worker.has_command = true);
                model.control = Control::Raised;
            }
            Control::Raised if self.workers.iter().all(|worker| worker.acknowledged) => {
                model.control = Control::Looking(0);
            }
            Control::Looking(n) if n < 2 => match self.workers[n].in_flight[0] {
                0 => model.control = Control::Looking(n + 1),
                _ => model.control = Control::Looking(0),
            },
            Control::Looking(_) => {
                let is_allowed = model.tell(Event::Quiet, clock).contains(&Action::Move);
                model.control = if is_allowed { Control::Moving } else { Control::Done };
            }
            Control::Moving => {
                model.published = 1;
                model.control = Control::Published;
            }
            Control::Published => {
                model.tell(Event::Moved, clock);
                model.control = Control::Done;
            }
            Control::Raised | Control::Done => {}
        }
        if model != *self {
            next.push(model);
        }
        if matches!(self.control, Control::Raised | Control::Looking(_)) && self.is_late {
            let mut undone = self.clone();
            undone.tell(Event::Tick, clock);
            undone.control = Control::Done;
            next.push(undone);
        }
    }

    fn writers(&self) -> usize {
        let writes = |version: usize| self.workers.iter().any(|w| w.in_flight[version] > 0);
        usize::from(writes(0)) + usize::from(writes(1))
    }

    fn is_ended(&self) -> bool {
        let idle = |w: &Worker| w.to_come == 0 && w.poll.is_none() && w.in_flight == [0; 2];
        self.control == Control::Done && self.workers.iter().all(idle)
    }
}

/// Visits every state. Returns how many there are, and how many of them have two versions at work.
fn explore(is_checked: bool) -> (usize, usize) {
    let start = Instant::now();
    let clock = [start, start + Duration::from_secs(2)];
    let (mut seen, mut open) = (HashSet::from([Model::new()]), vec![Model::new()]);
    let (mut overlaps, mut moved, mut undone) = (0, 0, 0);
    while let Some(model) = open.pop() {
        overlaps += usize::from(model.writers() > 1);
        assert!(model.begun.is_sorted(), "a write has overtaken another: {model:?}");
        let next = model.steps(clock, is_checked);
        if next.iter().all(|after| after.is_late != model.is_late) {
            // Nothing can happen any more: nobody is left waiting.
            assert!(model.is_ended(), "it hangs: {model:?}");
            assert!(model.fence.is_open() && model.workers.iter().all(|w| w.held.is_empty()));
            *(if model.published == 1 { &mut moved } else { &mut undone }) += 1;
        }
        open.extend(next.into_iter().filter(|after| seen.insert(after.clone())));
    }
    assert!(moved > 0 && undone > 0, "both ends are reached");
    (seen.len(), overlaps)
}

#[test]
fn never_do_two_versions_have_writes_in_flight() {
    let (states, overlaps) = explore(true);
    assert_eq!(overlaps, 0, "of {states} states");
    assert!(states > 10_000, "{states}");
}

/// The model finds the fault that a worker had which did not look again whether its snapshot is in force.
#[test]
fn the_model_finds_the_overlap_of_a_worker_that_trusts_an_old_snapshot() {
    assert!(explore(false).1 > 0);
}
