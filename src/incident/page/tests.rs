use proptest::prelude::*;

use super::*;
use crate::incident::{
    build::Opened,
    example::{evidence, opened},
    model::Moment,
};

/// The colors of the page, for a chart that stands alone.
fn colors() -> &'static str {
    let end = STYLE.find("*{").expect("the rules begin there");
    &STYLE[..end]
}

/// The tags of a page, each with the names of its attributes, in their order. Fails if a tag is not closed in
/// its place.
fn tags(page: &str) -> Vec<String> {
    let (mut tags, mut open) = (Vec::new(), Vec::new());
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document");
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a bracket in text: {:?}", &rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in its place");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        // Values are in double quotes, so outside of them are the names.
        let names: Vec<&str> = tag.split('"').step_by(2).map(str::trim).collect();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        tags.push(names.join(" "));
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("it ends")..];
        }
        if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert_eq!(open, [""; 0], "all are closed");
    tags
}

fn incident() -> Incident {
    Incident::new(&opened(), evidence(), State::Complete, None)
}

#[test]
fn a_page_has_everything_and_needs_nothing() {
    let page = page(&incident());
    assert_eq!(tags(&page).iter().filter(|tag| tag.starts_with("svg ")).count(), 5);
    for text in [
        "<h1>game-api v42 was ejected</h1>",
        "<b>13.8</b>",
        "14 − 40 × 0.5 % = 13.8",
        "<b>12</b><!-- -->".trim_end_matches("<!-- -->"),
        "14 of 40 (35 %)",
        "13.2 (6.7 – 26)",
        "1.1 × the baseline&#39;s rate and 0.3 % more",
        "v41 (baseline)",
        "v42 grows to 5 %",
        "tidegate reinstate game-api v42",
        "Check first that the cause is gone",
        "the comparison begins anew",
        "Failed attempts in that time, by whole seconds: 2 answered 5xx, 1 timed out.",
        "<h2>How requests failed</h2>",
        "players who met it from the onset to the verdict",
        "000000000000000000000000000000000000000000000000000000000000000c",
        "edge-1:9090",
        "06addf45ff87c65c",
    ] {
        assert!(page.contains(text), "{text} is missing in {page}");
    }
    let without_names = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for link in ["http:", "https:", "src=", "href=", "@import", "url(", "<script", "<link"] {
        assert!(!without_names.contains(link), "{link}");
    }
}

#[test]
fn what_is_not_known_is_said() {
    let mut opened: Opened = opened();
    opened.happened.verdict = None;
    let mut evidence = evidence();
    (evidence.journal, evidence.versions) = (Vec::new(), Vec::new());
    let page = page(&Incident::new(&opened, evidence, State::Open, None));
    tags(&page);
    for text in ["This report is open", "There is no estimate", "there is no journal"] {
        assert!(page.contains(text), "{text} is missing in {page}");
    }
}

/// The picture of docs/incidents.md.
#[test]
fn the_picture_of_the_documentation_is_that_of_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/incident.svg");
    let charts = charts(&incident());
    let picture = charts[0].svg(Some(&format!("{}{CHART_STYLE}", colors()))) + "\n";
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &picture).expect("the picture is written");
        return;
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == picture, "set BLESS=1 to accept another picture");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_name_and_no_reason_leaves_its_place(
        text in prop_oneof![
            any::<String>(),
            "[<>\"'&/ a-z=!-]{0,40}",
            Just("</style></title></svg><script>alert(1)</script>".to_owned()),
            Just("\" onload=\"alert(1)".to_owned()),
            Just("<!-- ]]> <![CDATA[".to_owned()),
        ],
    ) {
        let all = |text: &str| {
            let (mut opened, mut evidence) = (opened(), evidence());
            let happened = &mut opened.happened;
            for place in [&mut happened.service, &mut happened.version, &mut happened.by] {
                *place = text.to_owned();
            }
            happened.reason = format!("because {text}");
            (happened.endpoint, happened.route) = (Some(text.to_owned()), Some(text.to_owned()));
            let verdict = happened.verdict.as_mut().expect("one");
            verdict.reason = text.to_owned();
            verdict.findings[0].route = Some(text.to_owned());
            (opened.baseline, opened.config_hash) = (Some(text.to_owned()), text.to_owned());
            evidence.instance = text.to_owned();
            evidence.versions.iter_mut().for_each(|version| version.name = text.to_owned());
            for moment in &mut evidence.events {
                let Moment { what, subject, by, reason, .. } = moment;
                (*what, *reason) = (text.to_owned(), text.to_owned());
                (*subject, *by) = (Some(text.to_owned()), Some(text.to_owned()));
            }
            for entry in &mut evidence.journal {
                (entry.kind, entry.reason) = (text.to_owned(), text.to_owned());
                (entry.by, entry.hash) = (text.to_owned(), text.to_owned());
                entry.service = Some(text.to_owned());
            }
            tags(&page(&Incident::new(&opened, evidence, State::Complete, None)))
        };
        prop_assert_eq!(all(&text), all("plain"));
    }
}
