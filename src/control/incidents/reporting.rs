//! The task that writes reports, and how they are read.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Instant,
};

use super::{
    folder,
    gather::{AFTERMATH, entries_near, judged},
};
use crate::{
    control::tasks::ControlPlane,
    incident::{Evidence, Id, Incident, Opened, State, Summary},
};

impl ControlPlane {
    /// Writes a report of each incident when it happens, and again when the time after it is known. Sleeps while
    /// there is none.
    pub async fn report_incidents(self) {
        let news = self.controller().incidents().news();
        loop {
            for opened in self.opened() {
                // The workers hand over what they have, so that the report has the last moments, too.
                self.flush_samples().await;
                self.report_apart(opened, State::Open).await;
            }
            let due = self.book().take_due(Some(Instant::now()));
            for opened in due {
                self.flush_samples().await;
                self.report_apart(opened, State::Complete).await;
            }
            let next = self.book().next_due();
            let news = news.notified();
            match next {
                Some(due) => drop(tokio::time::timeout_at(due.into(), news).await),
                None => news.await,
            }
        }
    }

    /// Completes all reports now, without the rest of the time after them: the process is about to end. Blocks.
    /// Returns the names of the incidents, the oldest first.
    pub fn finish_incidents(&self) -> Vec<Id> {
        self.opened();
        let all = self.book().take_due(None);
        let done = all.into_iter().map(|opened| {
            let evidence = self.evidence(&opened);
            let id = opened.id.clone();
            self.report(&opened, evidence, State::Complete);
            id
        });
        let mut done: Vec<_> = done.collect();
        done.sort_unstable();
        done
    }

    /// Takes the new incidents, and notes when their aftermath ends.
    fn opened(&self) -> Vec<Opened> {
        let opened = self.controller().incidents_mut().take();
        let due = Instant::now() + AFTERMATH;
        opened.iter().for_each(|opened| self.book().await_aftermath(due, opened.clone()));
        opened
    }

    /// Reports on `opened`, and waits for the disk on a thread that may block.
    async fn report_apart(&self, opened: Opened, state: State) {
        let (evidence, plane) = (self.evidence(&opened), self.clone());
        let written = tokio::task::spawn_blocking(move || plane.report(&opened, evidence, state));
        // A panic there is one of this task.
        if let Err(error) = written.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }

    /// Makes the report, holds it, and writes its files, if there is a folder. Blocks.
    fn report(&self, opened: &Opened, mut evidence: Evidence, state: State) {
        let turn = self.book().turn();
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.book().summary(&opened.id).map(|summary| summary.state);
        if last == Some(State::Complete) {
            return;
        }
        let journal = self.controller().journal().map(|journal| journal.folder);
        if let Some(journal) = &journal {
            evidence.journal = entries_near(journal, opened, evidence.until);
        }
        let before = self.book().held(&opened.id);
        let mut incident = Incident::new(opened, evidence, state, before.as_deref());
        if let (Some(review), Some(journal)) = (&mut incident.rollout, &journal) {
            review.learn(&judged(journal, opened));
        }
        let incident = Arc::new(incident);
        let (id, path) = (incident.id.to_string(), incident.id.path());
        // Held first: it is shown even if the disk does not respond.
        self.book().put(Arc::clone(&incident), false);
        let Some(folder) = self.incidents_folder() else {
            return tracing::info!(incident = id, path, state = state.label(), "incident reported");
        };
        match folder::write(&folder, &incident) {
            Ok(()) => {
                self.book().put(Arc::clone(&incident), true);
                let file = folder::file(&folder, &incident.id, "html");
                let (file, state) = (file.display(), state.label());
                tracing::info!(incident = id, path, %file, state, "incident reported");
            }
            Err(error) => {
                let folder = folder.display();
                tracing::warn!(incident = id, path, %folder, %error, "the report is in memory only");
            }
        }
    }

    /// Where the files are; `None` without `state`.
    fn incidents_folder(&self) -> Option<PathBuf> {
        self.controller().state_folder().map(|state| state.join("incidents"))
    }

    /// Whether reports are kept in files.
    pub fn keeps_incidents(&self) -> bool {
        self.controller().state_folder().is_some()
    }

    /// The reports that this process hands over to the next one: without a folder they would be lost. They are
    /// completed, as at the end of the process. The newest first.
    pub(in crate::control) fn carried_incidents(&self) -> Vec<Arc<Incident>> {
        if self.keeps_incidents() {
            return Vec::new();
        }
        self.finish_incidents();
        let mut held = self.book().all_held();
        held.reverse();
        held
    }

    /// Holds a report of the process before.
    pub(in crate::control) fn inherit_incident(&self, incident: Incident) {
        if !self.keeps_incidents() {
            self.book().put(Arc::new(incident), false);
        }
    }

    /// At most so many incidents for which `is_meant` holds, the newest first. Blocks.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn incidents(
        &self,
        most: usize,
        is_meant: impl Fn(&Summary) -> bool,
    ) -> io::Result<Vec<Summary>> {
        let folder = self.incidents_folder();
        let files = folder.as_deref().map_or(Ok(Vec::new()), folder::list)?;
        let mut all = files.clone();
        all.extend(self.book().names());
        all.sort_unstable();
        all.dedup();
        let (mut listed, mut read) = (Vec::new(), Vec::new());
        for id in all.iter().rev() {
            let known = self.book().summary(id);
            // A file that cannot be read is not listed; whoever asks for it is told why.
            let summary = known.or_else(|| {
                let incident = folder::read(folder.as_deref()?, id).ok()?;
                read.push(Summary::from(&incident));
                read.last().cloned()
            });
            listed.extend(summary.filter(&is_meant));
            if listed.len() == most {
                break;
            }
        }
        self.book().note(read, &files);
        Ok(listed)
    }

    /// The report of an incident; `None` if there is none. Blocks.
    ///
    /// # Errors
    ///
    /// If its file cannot be read.
    pub fn incident(&self, id: &Id) -> io::Result<Option<Arc<Incident>>> {
        if let Some(held) = self.book().held(id) {
            return Ok(Some(held));
        }
        let Some(folder) = self.incidents_folder() else { return Ok(None) };
        match folder::read(&folder, id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Arc::new).map(Some),
        }
    }

    /// Writes both files of a report that this process holds into `folder`, and returns the path of the page.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// If it holds no such report, or the files cannot be written.
    pub fn save_incident(&self, id: &Id, folder: &std::path::Path) -> io::Result<PathBuf> {
        let incident = self.incident(id)?;
        let incident = incident.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no incident {id}"))
        })?;
        folder::write(folder, &incident)?;
        Ok(folder::file(folder, id, "html"))
    }
}
