//! The evidence as a picture, and the verdict as lines.

use super::{super::trace::Trace, INNER};

/// Rows of the picture.
pub(in super::super) const ROWS: usize = 3;

/// Lines of a verdict that are shown.
pub(in super::super) const REASON: usize = 4;

/// Labels left of the picture, row by row.
const LABELS: [&str; ROWS] = ["evidence", "in nats,", "10 ms each"];

/// A bar for each sample, the latest on the right; only a sample that ejects v42 has a full bar.
/// The dashes are the threshold.
pub(in super::super) fn chart(trace: &Trace) -> [String; ROWS] {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let threshold = trace.threshold();
    let scale = [format!("{threshold:.1}"), String::new(), "0".to_owned()];
    let width = INNER - 17;
    std::array::from_fn(|row| {
        let below = 8 * (ROWS - 1 - row);
        let cell = |evidence: &f64| {
            let eighths = match eighths(*evidence, threshold).saturating_sub(below).min(8) {
                0 if row == 0 => return '┄',
                0 if row == ROWS - 1 => return '·',
                eighths => eighths,
            };
            EIGHTHS[eighths]
        };
        let bars: String = trace.samples().iter().map(cell).collect();
        let before = if row == 0 { '┄' } else { ' ' };
        let missing = width.saturating_sub(trace.samples().len());
        let before: String = std::iter::repeat_n(before, missing).collect();
        format!("{:<12}{:>4} {before}{bars}", LABELS[row], scale[row])
    })
}

/// Height of a bar.
fn eighths(evidence: f64, threshold: f64) -> usize {
    let full = 8 * ROWS;
    if evidence >= threshold {
        full
    } else {
        // The conversion turns negative values into 0.
        ((evidence / threshold * full as f64) as usize).min(full - 1)
    }
}

/// `text` in lines of at most `width`, broken at spaces, but not between a number and its unit.
pub(in super::super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let text = text.replace(" s ", "\u{a0}s ").replace(" %", "\u{a0}%");
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last_mut().expect("there is one from the beginning");
        let gap = usize::from(!line.is_empty());
        if line.chars().count() + gap + word.chars().count() <= width || line.is_empty() {
            line.push_str(&" "[..gap]);
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.into_iter().map(|line| line.replace('\u{a0}', " ")).collect()
}

/// Like [`wrapped`], in exactly [`REASON`] lines; further text is cut off.
pub(super) fn reason(text: &str) -> Vec<String> {
    let mut lines = wrapped(text, INNER);
    if lines.len() > REASON {
        lines.truncate(REASON);
        lines[REASON - 1].push('…');
    }
    lines.resize(REASON, String::new());
    lines
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::trace::{SAMPLES, tests::verdict},
        *,
    };
    use crate::analysis::Answer;

    #[test]
    fn bars_rise_to_the_threshold() {
        let mut trace = Trace::default();
        for evidence in [-3.0, 0.3, 2.4, 4.7, 6.99] {
            trace.note(Some(&verdict(Answer::Undecided, Some(evidence))));
        }
        trace.note(Some(&verdict(Answer::Fail, Some(9.0))));
        let [top, middle, bottom] = chart(&trace).map(|row| row.chars().collect::<Vec<_>>());
        let last = |row: &[char]| row[row.len() - 7..].iter().collect::<String>();
        assert_eq!(last(&top), "┄┄┄┄┄▇█");
        assert_eq!(last(&middle), "    ███");
        assert_eq!(last(&bottom), " ·▁████");
        assert!(top.iter().collect::<String>().starts_with("evidence     7.0 ┄"));
        for row in [top, middle, bottom] {
            assert_eq!(row.len(), INNER);
        }
        assert_eq!(SAMPLES, INNER - 17);
    }

    #[test]
    fn a_verdict_is_broken_at_spaces_and_always_as_high() {
        assert_eq!(
            wrapped("fail after 3.1 s:  the canary", 10),
            ["fail after", "3.1 s: the", "canary"]
        );
        assert_eq!(wrapped("since 15.0 s 4 (40 %) of", 8), ["since", "15.0 s 4", "(40 %)", "of"]);
        assert_eq!(wrapped("incomprehensible", 3), ["incomprehensible"]);
        assert_eq!(reason("short"), ["short", "", "", ""]);
        let long = reason(&"canary ".repeat(100));
        assert_eq!(long.len(), REASON);
        assert!(long[REASON - 1].ends_with("canary…"), "{long:?}");
    }
}
