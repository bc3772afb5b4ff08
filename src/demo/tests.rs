use std::future::{pending, ready};

use super::{script::WEIGHTS, *};

const SMALL: DemoArguments = DemoArguments { players: 120, rate: 300, seconds_per_step: 1 };

fn played(live: bool, interrupted: impl Future<Output = ()>) -> (bool, String) {
    let mut out = Vec::new();
    let well = runtime().unwrap().block_on(play(&SMALL, live, &mut out, interrupted)).unwrap();
    (well, String::from_utf8(out).unwrap())
}

#[test]
fn a_small_demo_ejects_v42_once_it_fails_and_loses_nothing_else() {
    let (well, text) = played(false, pending());
    assert!(well, "{text}");
    assert!(text.contains("baseline: v41") && text.contains("step 4/5"), "{text}");
    let (_, summary) = text.split_once("\n\n  weight of v42").unwrap();
    // Four steps of 300 requests and one of 900; the rate must not be much lower.
    let requests = text.lines().find(|line| line.contains(" requests of 120 players")).unwrap();
    let count: u32 = requests.split_once(' ').unwrap().0.replace(',', "").parse().unwrap();
    assert!(
        (1_600..=2_110).contains(&count) && requests.ends_with(", 0 faults, 0 failures"),
        "{requests}"
    );

    let steps: Vec<Vec<usize>> = summary
        .lines()
        .skip(1)
        .take(WEIGHTS.len())
        .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .collect();
    let mut before = 0;
    for (step, weight) in steps.iter().zip(WEIGHTS) {
        let [shown, _, _, seen, moved, elsewhere] = step[..] else { panic!("{text}") };
        assert_eq!((shown, elsewhere), (usize::from(weight), 0), "{text}");
        assert_eq!(seen, before + moved, "{text}");
        before = seen;
    }
    assert!(before > 0, "{text}");
    // All players that were on v42 are back on v41.
    let back: Vec<_> = summary.lines().nth(1 + WEIGHTS.len()).unwrap().split_whitespace().collect();
    let [_, _, _, _, "0", moved, "to", "v41", "0"] = back[..] else { panic!("{text}") };
    // More players, if growth was observed late on a busy machine.
    assert!(back[0] == "ejected" && moved.parse::<usize>().unwrap() >= before, "{text}");
    assert!(text.contains("% of its requests failed ("), "{text}");
    assert!(text.contains("game-api/rollout") && text.contains("as computed"), "{text}");
    assert!(text.contains("v42 was ejected, nobody moved but as the split says.\n"), "{text}");
    let report = text.lines().last().expect("a line");
    let (_, path) = report.split_once("The report of the rollout: ").expect("its path");
    let page = std::fs::read_to_string(path).expect("a page");
    assert!(page.contains("Rolled back: the rollout of game-api to v42"), "{path}");
}

#[test]
fn an_interrupt_ends_it_with_a_summary_and_gives_the_cursor_back() {
    let soon = async { tokio::time::sleep(Duration::from_millis(700)).await };
    let (well, text) = played(true, soon);
    assert!(well, "{text}");
    let (hidden, shown) = (text.find("\u{1b}[?25l").unwrap(), text.rfind("\u{1b}[?25h").unwrap());
    assert!(hidden < shown && text[shown..].contains(", 0 failures"), "{text}");

    let (well, text) = played(false, ready(()));
    assert!(well && text.contains("0 failures"), "{text}");
}

#[test]
fn arguments_that_ask_nobody_twice_are_refused() {
    assert_eq!(check(&SMALL), Ok(()));
    let problem = check(&DemoArguments { players: 151, ..SMALL }).unwrap_err();
    assert!(problem.contains("--players"), "{problem}");
}

#[test]
fn arguments_that_leave_v42_too_few_requests_are_refused() {
    let problem = check(&DemoArguments { players: 20, rate: 100, ..SMALL }).unwrap_err();
    assert!(problem.contains("too few requests") && problem.contains("--rate"), "{problem}");
}

#[test]
fn the_configuration_is_valid_and_short() {
    let text = configuration([([127, 0, 0, 1], 9001).into(), ([127, 0, 0, 1], 9002).into()]);
    config::parse(&text).unwrap();
    assert!(text.lines().count() <= 15 && text.lines().all(|line| line.len() <= 78), "{text}");
}
