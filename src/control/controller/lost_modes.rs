//! Read-only modes of what a file does not have, or of which no mode refuses anything.
//!
//! Somebody who makes a route read-only, say for a migration, relies on that until the mode ends. So a file that is read
//! again without the route is refused. A process that starts with such a file has no file to continue with: there the
//! mode is about the whole service that the route belonged to.

use super::{Controller, Rejected};
use crate::{
    config::{
        Config,
        schema::{Route, UtcTime},
    },
    control::state::{Change, ControlState},
    policy::read_only::{Mode, Scope, exempt, is_read_only},
};

/// Most routes that a warning names.
const MOST_NAMED: usize = 3;

impl Controller {
    /// Refuses the file `new` if it no longer has what is read-only.
    pub(super) fn refuse_lost_modes(&self, change: &Change, new: &Config) -> Result<(), Rejected> {
        if !matches!(change, Change::FileTaken { .. }) {
            return Ok(());
        }
        let modes = self.state.read_only().modes.iter();
        let mut asked = modes.filter(|(_, mode)| !ends_with_its_notice(mode, &self.state, new));
        match asked.find(|(scope, _)| has(&self.config, scope) && !has(new, scope)) {
            Some((scope, _)) => Err(Rejected::ModeLost { scope: scope.clone() }),
            None => Ok(()),
        }
    }

    /// What is wrong with a mode in force, as a sentence: the file does not have what it is about, or all of it is exempt.
    pub fn mode_warning(&self, scope: &Scope, mode: &Mode) -> Option<String> {
        warning(&self.config, scope, mode)
    }

    /// Those of the modes of `state` that are in force at `now`.
    pub(super) fn mode_warnings(&self, state: &ControlState, now: UtcTime) -> Vec<String> {
        let modes = state.read_only().modes.iter();
        let modes = modes.filter(|(_, mode)| is_read_only(mode, now));
        modes.filter_map(|(scope, mode)| self.mode_warning(scope, mode)).collect()
    }
}

/// Whether `mode` belongs to a notice that is gone once `new` is in force.
fn ends_with_its_notice(mode: &Mode, state: &ControlState, new: &Config) -> bool {
    mode.notice.as_ref().is_some_and(|notice| {
        !new.notices.contains_key(notice) && !state.read_only().notices.contains_key(notice)
    })
}

fn has(config: &Config, scope: &Scope) -> bool {
    match scope {
        Scope::Process => true,
        Scope::Service(service) => config.services.contains_key(service),
        Scope::Route(label) => config.routes.iter().any(|route| route.label() == label.as_str()),
    }
}

fn warning(config: &Config, scope: &Scope, mode: &Mode) -> Option<String> {
    if has(config, scope) {
        return refuses_nothing(config, scope);
    }
    let told = scope.told();
    let stands_for = match scope {
        Scope::Route(_) => mode.route_of.as_ref().filter(|s| config.services.contains_key(*s)),
        Scope::Process | Scope::Service(_) => None,
    };
    let end = ending(scope);
    Some(match stands_for {
        Some(service) => format!(
            "{told} is read-only, and is not in the file: all writes of service `{service}`, to which it belonged, are \
             refused instead, until the mode ends ({end})"
        ),
        None => format!(
            "{told} is read-only, and is not in the file: THE MODE REFUSES NOTHING; what writes there now has another \
             name, so make that read-only, and end this mode ({end})"
        ),
    })
}

/// That none of the routes of `scope` has a write that is refused, and why.
fn refuses_nothing(config: &Config, scope: &Scope) -> Option<String> {
    let is_own = |route: &&Route| match scope {
        Scope::Process => true,
        Scope::Service(service) => route.service == *service,
        Scope::Route(label) => route.label() == label.as_str(),
    };
    let routes = config.routes.iter().filter(is_own);
    let each =
        routes.map(|route| exempt(route).map(|why| format!("`{}` has {why}", route.label())));
    let each: Vec<String> = each.collect::<Option<_>>()?;
    let told = scope.told();
    let more = each.len().saturating_sub(MOST_NAMED);
    Some(match each.get(..MOST_NAMED).unwrap_or(&each) {
        [] => format!("{told} is read-only, and no route leads there: THE MODE REFUSES NOTHING"),
        named => {
            let more = if more == 0 { String::new() } else { format!("; and {more} more") };
            let named = named.join("; ");
            format!(
                "THE MODE of {told} REFUSES NOTHING, since all routes are exempt: {named}{more}"
            )
        }
    })
}

/// The command that ends the mode of `scope`.
pub(super) fn ending(scope: &Scope) -> String {
    match scope {
        Scope::Process => "`tidegate mode normal`".to_owned(),
        Scope::Service(service) => format!("`tidegate mode normal {service}`"),
        Scope::Route(route) => format!("`tidegate mode normal --route {route}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// Such a mode was reported as a success, and refused nothing.
    #[test]
    fn a_mode_of_which_all_routes_are_exempt_says_that_it_refuses_nothing() {
        let config = |more: &str| {
            parse(&format!(
                "listen: [ {{ address: 127.0.0.1:0 }} ]\n\
                 services: {{ wallet: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n\
                 routes: [ {{ service: wallet, name: hook, match: {{ path: /hook }}, read_only: pass }}{more} ]\n"
            ))
            .expect("a good file")
        };
        let wallet = Scope::Service("wallet".to_owned());
        for scope in [Scope::Process, wallet.clone(), Scope::Route("hook".to_owned())] {
            let warning = refuses_nothing(&config(""), &scope).expect("a warning");
            assert!(warning.contains("`hook` has `read_only: pass`"), "{warning}");
        }
        let more = config(", { service: wallet, name: rest }");
        assert_eq!(refuses_nothing(&more, &wallet), None);
        assert!(refuses_nothing(&more, &Scope::Route("hook".to_owned())).is_some());
    }

    #[test]
    fn a_mode_of_what_is_not_in_the_file_says_what_is_refused_instead() {
        let config = parse(
            "listen: [ { address: 127.0.0.1:0 } ]\n\
             services: { wallet: { baseline: v1, versions: { v1: { endpoints: [ 127.0.0.1:1 ] } } } }\n\
             routes: [ { service: wallet, name: wallet.write } ]\n",
        )
        .expect("a good file");
        let mode = |route_of: Option<&str>| Mode {
            since: UtcTime::from_unix_ms(0),
            until: None,
            by: String::new(),
            reason: String::new(),
            message: None,
            notice: None,
            route_of: route_of.map(str::to_owned),
        };
        let route = |label: &str| Scope::Route(label.to_owned());
        assert_eq!(warning(&config, &route("wallet.write"), &mode(Some("wallet"))), None);
        assert_eq!(warning(&config, &Scope::Process, &mode(None)), None);
        let stands = warning(&config, &route("wallet-write"), &mode(Some("wallet")));
        let stands = stands.expect("a warning");
        assert!(stands.contains("all writes of service `wallet`"), "{stands}");
        assert!(stands.contains("`tidegate mode normal --route wallet-write`"), "{stands}");
        for (scope, of) in [
            (route("bank.write"), Some("bank")),
            (route("wallet-write"), None),
            (Scope::Service("bank".to_owned()), None),
        ] {
            let nothing = warning(&config, &scope, &mode(of)).expect("a warning");
            assert!(nothing.contains("THE MODE REFUSES NOTHING"), "{nothing}");
        }
    }
}
