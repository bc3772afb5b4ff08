//! Pieces of HTML. Every text passes through [`Esc`]; only names of tags and classes are written as they are.

use std::fmt::Write;

use crate::incident::text::Esc;

/// A page that grows. Each element that is opened is closed by the function that opened it.
#[derive(Debug, Default)]
pub(super) struct Html(String);

/// A cell of a table: its class, and its text.
pub(super) type Cell = (&'static str, String);

impl Html {
    /// The text of the page.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// Adds what is HTML already.
    pub(super) fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// An element with attributes as they are in HTML, and content.
    pub(super) fn element(
        &mut self,
        (name, attributes): (&'static str, &'static str),
        content: impl FnOnce(&mut Self),
    ) {
        let gap = if attributes.is_empty() { "" } else { " " };
        // Writing to a string does not fail, here and below.
        let _ = write!(self.0, "<{name}{gap}{attributes}>");
        content(self);
        let _ = writeln!(self.0, "</{name}>");
    }

    /// An element that holds text.
    pub(super) fn text(&mut self, name: (&'static str, &'static str), text: &str) {
        self.element(name, |html| html.say(text));
    }

    /// Text.
    pub(super) fn say(&mut self, text: &str) {
        let _ = write!(self.0, "{}", Esc(text));
    }

    /// A paragraph.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.text(("p", ""), text);
    }

    /// A section with a heading.
    pub(super) fn section(&mut self, heading: &str, content: impl FnOnce(&mut Self)) {
        self.element(("section", ""), |html| {
            html.text(("h2", ""), heading);
            content(html);
        });
    }

    /// Names with values.
    pub(super) fn facts(&mut self, facts: &[(&str, String)]) {
        self.element(("dl", "class=\"facts\""), |html| {
            for (name, value) in facts {
                html.text(("dt", ""), name);
                html.text(("dd", ""), value);
            }
        });
    }

    /// A number with what it is.
    pub(super) fn tile(&mut self, is_bad: bool, value: &str, what: &str) {
        let class = if is_bad { "class=\"tile bad\"" } else { "class=\"tile\"" };
        self.element(("div", class), |html| {
            html.text(("b", ""), value);
            html.text(("span", ""), what);
        });
    }

    /// A table; of `rows` each has its class and its cells. Columns of the class `n` hold numbers.
    pub(super) fn table(
        &mut self,
        caption: &str,
        heads: &[(&'static str, &str)],
        rows: impl IntoIterator<Item = (&'static str, Vec<Cell>)>,
    ) {
        let class_of = |class: &'static str| match class {
            "n" => "class=\"n\"",
            "t" => "class=\"t\"",
            "h" => "class=\"h\"",
            _ => "",
        };
        self.raw("<div class=\"scroll\"><table>");
        self.text(("caption", ""), caption);
        self.raw("<thead><tr>");
        for (class, head) in heads {
            let attributes =
                if *class == "n" { "scope=\"col\" class=\"n\"" } else { "scope=\"col\"" };
            self.text(("th", attributes), head);
        }
        self.raw("</tr></thead><tbody>\n");
        for (class, cells) in rows {
            let attributes = if class == "now" { "class=\"now\"" } else { "" };
            self.element(("tr", attributes), |html| {
                for (class, text) in &cells {
                    html.text(("td", class_of(class)), text);
                }
            });
        }
        self.raw("</tbody></table></div>\n");
    }
}
