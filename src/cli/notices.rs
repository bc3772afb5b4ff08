//! `tidegate notices`: planned work that players and clients are told of, and its changes.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    change::ChangeArguments,
    client::{Call, ShowArguments, service_name},
    columns,
    failure::Failure,
    mode::some_time,
    printable::printable,
    say::{say, say_json},
};
use crate::{
    admin::model::{Notice, NoticeAnswer, NoticeList},
    config::schema::{self, NoticeKind, UtcTime},
};

/// Arguments of `tidegate notices`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct NoticesArguments {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    show: ShowArguments,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Plan work that players and clients are told of, or change a plan.
    Set(SetArguments),
    /// Take a notice back. If it has made something read-only, that ends, too.
    Withdraw(NameArguments),
}

/// A notice that was set at run time.
#[derive(Debug, clap::Args)]
struct NameArguments {
    /// The name of the notice.
    #[arg(value_parser = service_name)]
    name: String,
    #[command(flatten)]
    change: ChangeArguments,
}

/// Arguments of `tidegate notices set`.
#[derive(Debug, clap::Args)]
struct SetArguments {
    #[command(flatten)]
    subject: NameArguments,
    /// When it begins, such as 2026-12-01T03:00:00Z, or with an offset such as +01:00.
    #[arg(long, value_name = "TIME")]
    from: UtcTime,
    /// When it ends.
    #[arg(
        long,
        value_name = "TIME",
        conflicts_with = "duration",
        required_unless_present = "duration"
    )]
    until: Option<UtcTime>,
    /// How long it lasts, such as 10m.
    #[arg(long = "for", value_name = "TIME", value_parser = some_time)]
    duration: Option<Duration>,
    /// A service that it concerns; can be repeated. Default: all.
    #[arg(long = "service", value_name = "NAME", value_parser = service_name)]
    services: Vec<String>,
    /// Refuse the writes of these services meanwhile.
    #[arg(long)]
    read_only: bool,
    /// What people are told, with its language, such as "en=Deposits pause from 03:00 to 03:10 UTC."; can be repeated.
    #[arg(long = "text", value_name = "LANGUAGE=TEXT", value_parser = text)]
    texts: Vec<(String, String)>,
    /// What it is about: maintenance, freeze, release or information.
    #[arg(long, value_name = "KIND", value_parser = kind, default_value = "maintenance")]
    kind: NoticeKind,
    /// How long before it begins responses name it.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "24h")]
    announce: Duration,
}

/// Shows the notices, or changes one.
pub(super) fn run(arguments: &NoticesArguments) -> Result<(), Failure> {
    match &arguments.change {
        None => show(&arguments.show),
        Some(Change::Set(arguments)) => {
            let notice = arguments.notice();
            let is = match notice.from > SystemTime::now().into() {
                true => "planned",
                false => "in force",
            };
            let told = format!("{is} from {} until {}", notice.from, notice.until);
            change(&arguments.subject, Method::PUT, notice, &told)
        }
        Some(Change::Withdraw(subject)) => {
            change(subject, Method::DELETE, json!({}), "in force no more")
        }
    }
}

impl SetArguments {
    fn notice(&self) -> schema::Notice {
        let Self { from, until, duration, services, read_only, texts, kind, announce, .. } = self;
        let after = duration.unwrap_or_default().as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        schema::Notice {
            from: *from,
            until: until
                .unwrap_or_else(|| UtcTime::from_unix_ms(from.unix_ms().saturating_add(after))),
            services: (!services.is_empty()).then(|| services.clone()),
            text: texts.iter().cloned().collect(),
            kind: *kind,
            read_only: *read_only,
            announce: *announce,
        }
    }
}

fn change(
    subject: &NameArguments,
    method: Method,
    asked: impl serde::Serialize,
    told: &str,
) -> Result<(), Failure> {
    let NameArguments { name, change } = subject;
    let call = change.post(&format!("/v1/notices/{name}"), asked)?;
    let answer: NoticeAnswer = change.client.call(Call { method, ..call })?;
    if change.json {
        return say_json(&answer);
    }
    let NoticeAnswer { generation, name, dry_run } = printable(&answer)?;
    let verb = if dry_run { "would be" } else { "is" };
    say(&format!("notice {name} {verb} {told} (generation {generation})"));
    Ok(())
}

fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let list: NoticeList = arguments.client.call(Call::get("/v1/notices"))?;
    match arguments.json {
        true => say_json(&list)?,
        false => say(&report(&printable(&list)?, SystemTime::now().into())),
    }
    Ok(())
}

/// A table of the notices, as they stand at `now`.
fn report(list: &NoticeList, now: UtcTime) -> String {
    if list.notices.is_empty() {
        return "no notices".to_owned();
    }
    let mut table = columns::table();
    table.add_row(["NOTICE", "STATE", "FROM", "UNTIL", "ABOUT", "SERVICES", "WRITES"]);
    for Notice { name, notice, ended_early, .. } in &list.notices {
        let state = match () {
            () if now < notice.from => "coming",
            () if now < notice.until => "now",
            () => "over",
        };
        let services = notice.services.as_ref();
        table.add_row([
            name.clone(),
            state.to_owned(),
            notice.from.to_string(),
            notice.until.to_string(),
            notice.kind.label().to_owned(),
            services.map_or_else(|| "all".to_owned(), |services| services.join(", ")),
            match (notice.read_only, ended_early) {
                (true, true) => "accepted again",
                (true, false) => "refused",
                (false, _) => "accepted",
            }
            .to_owned(),
        ]);
    }
    columns::aligned(table, |_| false).trim_end().to_owned()
}

/// `en=Deposits pause.`
fn text(argument: &str) -> Result<(String, String), String> {
    let parts = argument.split_once('=').filter(|(language, _)| !language.trim().is_empty());
    let (language, text) = parts
        .ok_or_else(|| "write the language first, such as \"en=Deposits pause.\"".to_owned())?;
    Ok((language.trim().to_owned(), text.to_owned()))
}

fn kind(argument: &str) -> Result<NoticeKind, String> {
    let named = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(argument);
    NoticeKind::deserialize(named)
        .map_err(|_| "write maintenance, freeze, release or information".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        notices: NoticesArguments,
    }

    fn parsed(arguments: &str) -> Result<schema::Notice, String> {
        let words = ["tidegate"].into_iter().chain(arguments.split(' '));
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        match program.notices.change {
            Some(Change::Set(arguments)) => Ok(arguments.notice()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_notice_is_what_the_options_say() {
        let set = "set schema-42 --from 2026-12-01T04:00:00+01:00";
        let all =
            "--for 10m --service wallet --service bonus --read-only --text en=Later --kind freeze";
        let notice = parsed(&format!("{set} {all} --announce 2h")).expect("options");
        let expected: schema::Notice = serde_json::from_value(json!({
            "from": "2026-12-01T03:00:00Z", "until": "2026-12-01T03:10:00Z", "services": [ "wallet", "bonus" ],
            "text": { "en": "Later" }, "kind": "freeze", "read_only": true, "announce": "2h",
        }))
        .expect("a notice");
        assert_eq!(notice, expected);
        let until = parsed(&format!("{set} --until 2026-12-02T00:00:00Z")).expect("options");
        assert_eq!((until.services, until.text.len(), until.read_only), (None, 0, false));
        for (wrong, why) in [
            ("", "--until"),
            ("--for 1h --until 2026-12-02T00:00:00Z", "cannot be used with"),
            ("--for 1h --text Later", "write the language first"),
            ("--for 1h --kind party", "maintenance, freeze, release or information"),
        ] {
            let refused = parsed(format!("{set} {wrong}").trim()).expect_err(wrong);
            assert!(refused.contains(why), "{wrong}: {refused}");
        }
    }

    #[test]
    fn notices_are_shown_as_they_stand() {
        let at = UtcTime::from_unix_ms;
        let notice = |name: &str, from: u64, services: Option<Vec<String>>| Notice {
            name: name.to_owned(),
            in_file: false,
            notice: schema::Notice {
                from: at(from),
                until: at(from + 10),
                services,
                text: [].into(),
                kind: NoticeKind::default(),
                read_only: true,
                announce: Duration::ZERO,
            },
            ended_early: name == "c",
            told: [].into(),
        };
        let wallet = Some(vec!["wallet".to_owned()]);
        let notices = vec![notice("a", 5, None), notice("b", 15, wallet), notice("c", 25, None)];
        let shown = report(&NoticeList { generation: 1, notices }, at(20));
        let lines: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let states: Vec<&str> = lines.iter().map(|line| line[1]).collect();
        assert_eq!(states, ["STATE", "over", "now", "coming"]);
        assert_eq!(lines[2][4..], ["maintenance", "wallet", "refused"]);
        assert_eq!(lines[3][4..], ["maintenance", "all", "accepted", "again"]);
        assert_eq!(report(&NoticeList { generation: 1, notices: Vec::new() }, at(0)), "no notices");
    }
}
