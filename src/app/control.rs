//! The two threads of the control plane.
//!
//! *safety* notes traffic, compares versions, probes endpoints and ejects. It does nothing that waits for a
//! disk or a network, or takes long. *service* does everything else: the admin endpoint with its scrapes and
//! records, receivers of alerts, names. Both use the controller, which is locked only for a moment.

use std::{io, net::TcpListener, thread};

use tokio::{
    runtime,
    sync::{oneshot, watch},
};

use crate::{
    admin,
    control::{supervision::Supervision, tasks::ControlPlane},
    health::resolve::Resolver,
};

/// The threads of the control plane.
#[derive(Debug)]
pub(super) struct Control {
    safety: Thread,
    service: Thread,
}

#[derive(Debug)]
struct Thread {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Control {
    pub(super) fn spawn(
        observatory: &ControlPlane,
        resolving: Resolver,
        admin: Option<(TcpListener, watch::Receiver<bool>)>,
        has_begun: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let (safe, serving) = (observatory.clone(), observatory.clone());
        Ok(Self {
            safety: Thread::spawn("safety", move || safety(&safe))?,
            service: Thread::spawn("service", move || {
                service(&serving, resolving, admin, has_begun)
            })?,
        })
    }

    /// Stops both threads.
    pub(super) fn stop(self) {
        for thread in [self.service, self.safety] {
            // Fails if the thread has ended; `join` shows why.
            let _ = thread.stop.send(());
            if thread.thread.join().is_err() {
                tracing::error!("the control plane panicked");
            }
        }
    }
}

impl Thread {
    /// Starts the thread `name`; its runtime runs the tasks that `begin` spawns.
    fn spawn(name: &str, begin: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async move {
                begin();
                let _ = stopped.await;
            });
            // Does not wait for files that are being read: their file system may not respond.
            runtime.shutdown_background();
        })?;
        Ok(Self { stop, thread })
    }
}

fn safety(observatory: &ControlPlane) {
    let run = Supervised(observatory);
    run.task("hear", ControlPlane::hear);
    run.task("evaluate", ControlPlane::evaluate);
    run.task("attend", ControlPlane::attend);
    run.task("adapt", ControlPlane::adapt);
}

fn service(
    observatory: &ControlPlane,
    resolving: Resolver,
    admin: Option<(TcpListener, watch::Receiver<bool>)>,
    has_begun: watch::Receiver<bool>,
) {
    let run = Supervised(observatory);
    run.task("absorb", ControlPlane::absorb);
    run.task("tidy", ControlPlane::tidy);
    run.task("pins", ControlPlane::attend_pins);
    run.task("alert", ControlPlane::alert);
    run.task("plans", ControlPlane::follow_plans);
    let begun = has_begun.clone();
    run.task("keep-keys", move |observatory| observatory.keep_fetched_keys(begun.clone()));
    run.task("announce", move |observatory| {
        let mut has_begun = has_begun.clone();
        async move {
            // Before that it is not known who was told already.
            if has_begun.wait_for(|has_begun| *has_begun).await.is_ok() {
                observatory.announce().await;
            }
        }
    });
    run.task("keys", ControlPlane::fetch_keys);
    run.task("kept-keys", ControlPlane::watch_keys);
    run.task("authorizers", ControlPlane::open_authorizers);
    run.task("rollout", ControlPlane::roll_out);
    run.task("history", ControlPlane::keep_history);
    run.task("incidents", ControlPlane::report_incidents);
    run.task("journal", ControlPlane::watch_journal);
    run.task("checkpoint", ControlPlane::make_checkpoints);
    run.task("checkpoint-send", ControlPlane::send_checkpoints);
    run.task("resolve", move |observatory| {
        let (resolving, in_force) = (resolving.clone(), observatory.controller().in_force());
        let tell = move |resolved, lookups| {
            observatory.controller().set_resolved(resolved, lookups);
        };
        resolving.run(in_force, tell)
    });
    let Some((socket, is_open)) = admin else { return };
    run.task("admin", move |observatory| {
        let (socket, is_open) = (socket.try_clone(), is_open.clone());
        async move {
            match socket {
                Ok(socket) => admin::serve(socket, observatory, is_open).await,
                Err(error) => panic!("the admin endpoint's socket cannot be shared: {error}"),
            }
        }
    });
}

/// Spawns tasks that are restarted when they panic.
struct Supervised<'a>(&'a ControlPlane);

impl Supervised<'_> {
    fn task<F>(&self, name: &'static str, mut start: impl FnMut(ControlPlane) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let observatory = self.0.clone();
        let supervision: Supervision = observatory.supervision().clone();
        tokio::spawn(supervision.run(name, move || start(observatory.clone())));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::{
        app::App,
        config::{Loaded, parse},
    };

    #[track_caller]
    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: not in time");
            std::thread::yield_now();
        }
    }

    /// Regression: after a panic no version was ejected any more, and nothing reported that.
    #[test]
    fn a_panicking_evaluator_is_counted_publishes_its_decision_and_restarts_comparisons() {
        let config = parse(
            "workers: 1\nlisten: [ { address: 127.0.0.1:0 } ]\nroutes: [ { service: a } ]\nservices:\n  a:\n    \
             baseline: v1\n    weights: { v1: 8, v2: 1, v3: 1 }\n    eject: { errors: { absolute: 1% } }\n    \
             versions:\n      v1: { endpoints: [ 127.0.0.1:1 ] }\n      v2: { endpoints: [ 127.0.0.1:2 ] }\n      \
             v3: { endpoints: [ 127.0.0.1:3 ] }\n",
        );
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let (hash, tokens, files) = Default::default();
        let loaded = Loaded { config, hash, tokens, files };
        let app = App::start(loaded, None, None).expect("it starts");
        let observatory = app.observatory().clone();
        let compares = |version: &str| {
            let verdicts = observatory.controller().verdicts("a");
            verdicts.iter().any(|(of, _, _)| of == version)
        };
        eventually("both are compared", || compares("v2") && compares("v3"));
        observatory.controller().panic_at_next_look("a", "v3");
        eventually("the ejection is published", || {
            let snapshot = observatory.controller().snapshot();
            snapshot.services[0].version("v3").expect("it has one").ejected
        });
        eventually("the other one is compared again", || compares("v2") && !compares("v3"));
        let compared = observatory.controller().snapshot().services[0].compared.clone();
        let outcomes = &compared.expect("they are").outcomes;
        let look = outcomes.look();
        eventually("looks go on", || outcomes.look() > look + 2);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let scrape = runtime.expect("a runtime").block_on(observatory.scrape());
        let panics = scrape.control_panics.iter().filter(|(_, count)| *count > 0);
        assert_eq!(panics.collect::<Vec<_>>(), [&("evaluate", 1)]);
        app.shutdown();
    }
}
