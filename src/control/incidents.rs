//! Incidents: opened by the controller, reported by the service thread.
//!
//! An ejection only notes its facts ([`Ledger`]); that costs no file and no wait. The service thread gathers what
//! is known around it, writes the report at once, and again a minute later, when the time after it is known.
//!
//! | file | content |
//! | --- | --- |
//! | `ledger` | names of incidents, and those that wait for their report |
//! | `history`, `failures`, `keeping` | rates and failures of each second, which reports need from before the incident, and the task that notes them |
//! | `gather` | what is known around an incident |
//! | `folder` | the files |
//! | `book` | reports that are open, and those that are in no file |
//! | `reporting` | the task |

mod book;
#[cfg(test)]
mod exact;
mod failures;
mod folder;
mod gather;
mod history;
mod keeping;
mod ledger;
mod reporting;

pub(super) use book::Book;
pub use folder::MOST_FILES;
pub use gather::AFTERMATH;
pub(super) use history::{History, counted_now};
pub use ledger::{Facts, Ledger};
