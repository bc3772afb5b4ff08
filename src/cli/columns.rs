//! Tables for a terminal: columns without lines, words to the left and numbers to the right.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table without rows.
pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The text of `table`, in which these columns hold numbers.
pub(super) fn aligned(mut table: Table, is_number: impl Fn(usize) -> bool) -> String {
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_cell_alignment(match is_number(number) {
            true => CellAlignment::Right,
            false => CellAlignment::Left,
        });
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
