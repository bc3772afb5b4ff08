//! Reads what every change on request has: one head, one body, one query.

use std::{fmt::Debug, net::SocketAddr, time::Instant};

use axum::{
    extract::{ConnectInfo, FromRequest, FromRequestParts, Query, Request},
    http::StatusCode,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Problem,
    auth::{self, Caller, Known},
    body,
    extract::{By, Parameters},
    model::{ChangeBody, Said},
    server::Subject,
};
use crate::{
    config::is_same_holder,
    control::{controller::ChangeHead, tasks::ControlPlane},
};

/// A change as requested: its head, which all have, and what is particular to it: its body and its query.
#[derive(Debug)]
pub(super) struct Change<T, Q = ChangeParameters> {
    pub(super) head: ChangeHead,
    pub(super) asked: T,
    pub(super) parameters: Q,
}

/// The query of a change.
pub(super) trait IsDryRun: DeserializeOwned + Send {
    fn is_dry_run(&self) -> bool;
}

/// Query of a change without parameters of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeParameters {
    #[serde(default)]
    dry_run: bool,
}

impl IsDryRun for ChangeParameters {
    fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

impl<T: DeserializeOwned + Send, Q: IsDryRun> FromRequest<ControlPlane> for Change<T, Q> {
    type Rejection = Problem;

    async fn from_request(request: Request, plane: &ControlPlane) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Ok(parameters) = Parameters::<Q>::from_request_parts(&mut parts, plane).await;
        let Query(parameters) = parameters?;
        let if_generation = body::if_match(&parts.headers)?;
        let ChangeBody { asked, said } = body::json_or_none(&parts.headers, body).await?;
        check(&said)?;
        let Said { reason, ticket, impact } = said;
        let By(by) = parts.extensions.remove().ok_or_else(nobody)?;
        let ConnectInfo(peer) =
            *parts.extensions.get::<ConnectInfo<SocketAddr>>().ok_or_else(nobody)?;
        let caller = Caller {
            peer,
            method: &parts.method,
            uri: &parts.uri,
            headers: &parts.headers,
            subject: parts.extensions.get::<Subject>().map(|Subject(subject)| &**subject),
        };
        let (callers, now) = (plane.callers(), Instant::now());
        let second = {
            let controller = plane.controller();
            let known = Known { tokens: controller.tokens(), certificates: controller.holders() };
            auth::second(&caller, known, callers, now)?
        };
        let second = second.filter(|second| !is_same_holder(second, &by.name));
        let (reason, dry_run) = (reason.unwrap_or_default(), parameters.is_dry_run());
        let head = ChangeHead { by, second, reason, ticket, impact, if_generation, dry_run };
        Ok(Self { head, asked, parameters })
    }
}

/// The problem of a change that came past the authentication, which names everybody.
fn nobody() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "nobody knows who asks for this change")
}

/// Rejects text with control characters other than those that structure it: a terminal would obey them, and nobody has
/// meant them. `what` is named in the message, and `field` at fault.
pub(super) fn check_text(field: &str, what: &str, text: Option<&str>) -> Result<(), Problem> {
    let bad = |c: &char| c.is_control() && !matches!(c, '\n' | '\t');
    match text.and_then(|text| text.chars().find(bad)) {
        Some(found) => {
            let why = format!(
                "{what} has the control character {}; write text, with newlines and tabs at most",
                found.escape_default()
            );
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why).at(field))
        }
        None => Ok(()),
    }
}

/// Rejects a reason that is too long for a line of the log, or has control characters, and a ticket that is empty, too
/// long, or no line of text.
fn check(said: &Said) -> Result<(), Problem> {
    let refuse = |field, why| Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why).at(field));
    let is_longer = |text: &Option<String>, most| {
        text.as_deref().is_some_and(|text| text.chars().count() > most)
    };
    let (most, most_of_ticket) = (ChangeHead::REASON_CHARS, ChangeHead::TICKET_CHARS);
    if is_longer(&said.reason, most) {
        return refuse("reason", format!("the reason is longer than {most} characters"));
    }
    check_text("reason", "the reason", said.reason.as_deref())?;
    let Some(ticket) = &said.ticket else { return Ok(()) };
    let wrong = match ticket {
        _ if ticket.trim().is_empty() => "the ticket is empty; leave it out".to_owned(),
        _ if is_longer(&said.ticket, most_of_ticket) => format!(
            "the ticket is longer than {most_of_ticket} characters; write its number, or its address"
        ),
        _ if ticket.chars().any(char::is_control) => {
            "the ticket has control characters; write one line of text".to_owned()
        }
        _ => return Ok(()),
    };
    refuse("ticket", wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_no_control_characters_but_newlines_and_tabs() {
        for good in ["", "schema 42", "two\nlines\tand a tab", "Spiel ü שלום"] {
            assert_eq!(check_text("reason", "the reason", Some(good)), Ok(()), "{good:?}");
        }
        for (bad, told) in [("\n\r", "\\r"), ("a\0b", "\\u{0}"), ("\u{1b}[2J", "\\u{1b}")] {
            let problem = check_text("message", "the message", Some(bad)).expect_err(bad);
            assert_eq!(problem.status, StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(problem.field.as_deref(), Some("message"));
            assert!(problem.detail.contains(told), "{}", problem.detail);
        }
    }
}
