//! Read-only modes in force, as several paths show them.

use super::model::Mode;
use crate::control::Controller;

/// The modes in force, each with what is wrong with it.
pub(super) fn modes_of(controller: &Controller) -> Vec<Mode> {
    let modes = controller.state().read_only().modes.iter();
    let each = modes.map(|(scope, mode)| {
        let warning = controller.mode_warning(scope, mode);
        Mode { warning, ..Mode::from((scope, mode)) }
    });
    each.collect()
}
