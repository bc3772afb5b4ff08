//! Incidents as text for a terminal.

use crate::{
    admin::model::{IncidentList, KeptIn},
    cli::{
        columns,
        wrapped::{shortened, wrapped},
    },
    incident::{HarmSource, Incident, Kind, Moment, Summary},
};

/// Longest name of who caused an incident, and least room for its title, in characters.
const MOST_OF_A_NAME: usize = 16;
const LEAST_OF_A_TITLE: usize = 12;

/// Moments, and entries of the journal, that are shown unless all are asked for.
const MOST_MOMENTS: usize = 20;
const MOST_ENTRIES: usize = 10;

/// Characters of a hash that are shown.
const OF_A_HASH: usize = 12;

/// A line per incident, of the first `limit`, in so many `columns`; without a limit of these nothing is cut.
pub(super) fn listed(list: &IncidentList, limit: usize, columns: Option<usize>) -> String {
    let mut text = match list.incidents.is_empty() {
        true => "no incidents".to_owned(),
        false => table(&list.incidents[..limit.min(list.incidents.len())], columns),
    };
    let more = list.incidents.len().saturating_sub(limit);
    if more > 0 {
        text += &format!("\nand {more} more: `--limit 200` shows them");
    }
    if list.kept_in == Some(KeptIn::Memory) && !list.incidents.is_empty() {
        let said = "kept in memory only, since there is no `state`: they are lost when the process ends, unless \
                    another one takes over; `tidegate incidents ID --html FILE` saves one";
        text += &format!("\n{}", wrapped(said, 0));
    }
    text
}

fn table(incidents: &[Summary], columns: Option<usize>) -> String {
    let most = |most: usize| if columns.is_some() { most } else { usize::MAX };
    let by = |incident: &Summary| shortened(&incident.by, most(MOST_OF_A_NAME));
    let harmed = |incident: &Summary| {
        incident.harmed.map_or("-".to_owned(), |harmed| format!("{harmed:.0}"))
    };
    let widest = |of: &dyn Fn(&Summary) -> usize, heading: &str| {
        incidents.iter().map(of).chain([heading.len()]).max().unwrap_or_default() + 2
    };
    let taken = widest(&|incident| incident.id.as_str().len(), "INCIDENT")
        + widest(&|incident| incident.state.label().len(), "STATE")
        + widest(&|incident| by(incident).chars().count(), "BY")
        + widest(&|incident| harmed(incident).len(), "HARMED");
    // The id says the same.
    let title = match columns {
        None => Some(usize::MAX),
        Some(columns) => columns.checked_sub(taken).filter(|room| *room >= LEAST_OF_A_TITLE),
    };
    let mut table = columns::table();
    let heads = ["INCIDENT", "STATE", "BY", "HARMED"].map(str::to_owned).into_iter();
    table.add_row(heads.chain(title.map(|_| "WHAT".to_owned())));
    table.add_rows(incidents.iter().map(|incident| {
        let id = incident.id.to_string();
        let cells = [id, incident.state.label().to_owned(), by(incident), harmed(incident)];
        cells.into_iter().chain(title.map(|room| shortened(&incident.title, room)))
    }));
    columns::aligned(table, |column| column == 3).trim_end().to_owned()
}

/// A report in short; with `all` its moments and entries of the journal.
pub(super) fn shown(incident: &Incident, all: bool) -> String {
    let mut lines = vec![
        format!("{}: {}", incident.id, incident.title),
        format!("at {} by {} ({})", incident.at, incident.by, incident.state.label()),
    ];
    lines.extend(incident.onset_at.as_ref().map(|at| format!("onset, most likely: {at}")));
    let judged = incident.judged_since.as_ref();
    lines.extend(judged.map(|at| format!("judged since {at}, without a baseline")));
    if !incident.reason.is_empty() {
        lines.push(incident.reason.clone());
    }
    lines.extend(harmed(incident));
    lines.extend(incident.rollout.iter().flat_map(|review| &review.steps).flat_map(|step| {
        let share = 100.0 * step.share;
        let (demands, number, began) = (&step.demands, step.step, &step.began_at);
        let head = match began {
            Some(began) => format!("step {number}, {share} %: {began} ({demands})"),
            None => format!("step {number}, {share} %: {} ({demands})", step.why_not_begun()),
        };
        let gates = step.gates.iter().filter(|_| began.is_some() || step.has_replies());
        std::iter::once(head).chain(gates.map(|gate| format!("  {gate}")))
    }));
    if matches!(incident.kind, Kind::Ejected | Kind::EndpointEjected) {
        lines.push(
            "before `tidegate reinstate`: check that the cause is gone; its requests return at once, and the \
             comparison begins anew"
                .to_owned(),
        );
    }
    let mut lines: Vec<_> = lines.iter().map(|line| wrapped(line, 2)).collect();
    lines.push(String::new());
    let moments = incident.timeline.iter().map(moment);
    let until = incident.timeline.iter().take_while(|moment| moment.offset_s <= 0.0).count();
    lines.extend(around(moments, until, if all { usize::MAX } else { MOST_MOMENTS }));
    let entries = incident.journal.iter().map(|entry| {
        let (seq, at, kind, by) = (entry.seq, &entry.at, &entry.kind, &entry.by);
        let hash = if all { entry.hash.clone() } else { shortened(&entry.hash, OF_A_HASH) };
        wrapped(&format!("{at}  journal {seq}: {kind} by {by} ({hash})"), 26)
    });
    lines.extend(last(entries, MOST_ENTRIES, all, "entries of the journal"));
    lines.push(wrapped(
        &format!("`tidegate incidents {} --html FILE` writes the page", incident.id),
        2,
    ));
    lines.join("\n")
}

/// What was harmed, each number with its time.
fn harmed(incident: &Incident) -> Vec<String> {
    let harm = &incident.harm;
    let mut lines = vec![format!("harmed: {}", harm.how)];
    let time = match harm.source {
        HarmSource::Verdict if incident.onset_at.is_none() => "while it was judged",
        HarmSource::Verdict => "from the onset to the verdict",
        HarmSource::Counters => "in the same time",
    };
    lines.extend(harm.players.map(|players| format!("players who met it {time}: {players}")));
    let kinds = harm.failed_attempts.in_words();
    lines.push(format!("failed attempts {time}, by whole seconds: {kinds}"));
    let (before, after) = (harm.failures_before, harm.failures_after);
    let from = &incident.covers.from;
    lines.push(format!("responses of 500 or above: {before} from {from} on, {after} after it"));
    lines
}

fn moment(moment: &Moment) -> String {
    let subject = moment.subject.as_deref().unwrap_or("-");
    let by = moment.by.as_deref().map_or(String::new(), |by| format!(" by {by}"));
    let gap = if moment.reason.is_empty() { "" } else { ": " };
    let line = format!("{}  {:<16}  {subject}{by}{gap}{}", moment.at, moment.what, moment.reason);
    wrapped(&line, 26)
}

/// Of so many moments that are shown, those up to the incident: three of four.
fn of_before(most: usize) -> usize {
    most - most / 4
}

/// At most `most` of `lines`, around the place `until` up to which they are before the incident, with lines that say how
/// many there are besides.
fn around(lines: impl ExactSizeIterator<Item = String>, until: usize, most: usize) -> Vec<String> {
    let all = lines.len();
    let first = until.saturating_sub(of_before(most)).min(all.saturating_sub(most));
    let after = all.saturating_sub(first.saturating_add(most));
    let said = |count: usize, place: &str| {
        (count > 0).then(|| format!("and {count} moments {place}: `--all` shows them"))
    };
    let shown = lines.skip(first).take(most);
    said(first, "before").into_iter().chain(shown).chain(said(after, "after")).collect()
}

/// The last `most` of `lines`, unless `all` are asked for, after a line that says how many there are before them.
fn last(
    lines: impl ExactSizeIterator<Item = String>,
    most: usize,
    all: bool,
    what: &str,
) -> Vec<String> {
    let before = if all { 0 } else { lines.len().saturating_sub(most) };
    let said = (before > 0).then(|| format!("and {before} {what} before: `--all` shows them"));
    said.into_iter().chain(lines.skip(before)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::wrapped::COLUMNS;

    fn summary(second: u32, service: &str) -> Summary {
        let id = format!("2026-11-27T2315{second:02}Z-{service}-v42-rollout-done");
        serde_json::from_value(json!({
            "id": id, "kind": "rollout_done", "state": "complete",
            "title": format!("Done: the rollout of {service} to v42"),
            "at": "2026-11-27T23:15:00.000Z", "service": service, "version": "v42",
            "by": "a-token-with-a-long-name", "reason": "x", "harmed": 13.8,
            "path": format!("/v1/incidents/{id}"),
        }))
        .expect("a summary")
    }

    #[test]
    fn a_list_fits_the_terminal_and_says_what_it_leaves_out() {
        let incidents = (0..30).map(|second| summary(second, "game-api")).collect();
        let mut list = IncidentList { incidents, kept_in: Some(KeptIn::Memory) };
        let text = listed(&list, 20, Some(COLUMNS));
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.contains("and 10 more: `--limit 200` shows them"), "{text}");
        assert!(text.contains("kept in memory only"), "{text}");
        assert!(text.contains("Done: the ") && text.contains("a-token-with-a-…"), "{text}");
        (list.kept_in, list.incidents) = (Some(KeptIn::State), vec![summary(0, &"g".repeat(40))]);
        let text = listed(&list, 20, Some(COLUMNS));
        assert!(!text.contains("WHAT") && !text.contains("memory"), "{text}");
        assert!(text.contains(list.incidents[0].id.as_str()), "{text}");
        // Regression: a title was cut for a program, too.
        let piped = listed(&list, 20, None);
        let title = &list.incidents[0].title;
        assert!(piped.contains("WHAT") && piped.contains(&**title), "{piped}");
        assert!(piped.contains("a-token-with-a-long-name"), "{piped}");
        let none = IncidentList { incidents: Vec::new(), kept_in: Some(KeptIn::Memory) };
        assert_eq!(listed(&none, 20, None), "no incidents");
    }

    /// Regression: the last moments were shown, which are mostly after the incident.
    #[test]
    fn the_moments_around_the_incident_are_shown() {
        let of = |count: usize, until: usize| around((0..count).map(|n| n.to_string()), until, 4);
        let (before, after) =
            ("and 7 moments before: `--all` shows them", "and 9 moments after: `--all` shows them");
        assert_eq!(of(20, 10), [before, "7", "8", "9", "10", after]);
        assert_eq!(of(5, 5), ["and 1 moments before: `--all` shows them", "1", "2", "3", "4"]);
        assert_eq!((of(4, 1).len(), of(0, 0).len()), (4, 0));
        assert_eq!(around((0..5).map(|n| n.to_string()), 2, usize::MAX).len(), 5);
    }

    #[test]
    fn the_last_lines_are_shown_or_all() {
        let lines = || (0..5).map(|n| n.to_string());
        let cut = last(lines(), 2, false, "moments");
        assert_eq!(cut, ["and 3 moments before: `--all` shows them", "3", "4"]);
        assert_eq!((last(lines(), 2, true, "").len(), last(lines(), 5, false, "").len()), (5, 5));
    }
}
