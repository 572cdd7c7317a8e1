//! What is wrong with a backup that was made, in words.

use crate::format::snapshot::Miss;
use crate::ops::backup::BackupReport;
use crate::ops::verdicts::Complaint;
use std::os::unix::ffi::OsStrExt;

/// Complaints about models that are said of one source, and beside them malformed ones.
const COMPLAINTS_MAX: usize = 20;

/// All of it, for people.
pub(super) fn wrong_with(report: &BackupReport) -> Vec<String> {
    let mut why = Vec::new();
    if report.errors_total > 0 {
        let named = |miss: &Miss| format!("{}: {}", String::from_utf8_lossy(&miss.path), miss.message);
        why.push(format!("{} could not be read", report.errors_total));
        why.extend(report.errors.iter().map(named));
    }
    let complaints = report.verdicts.iter().flat_map(|verdicts| &verdicts.complaints);
    for Complaint { path, what, refused } in complaints.take(COMPLAINTS_MAX) {
        let mark = if *refused { "REFUSED: " } else { "" };
        why.push(format!("{mark}{}: {what}", String::from_utf8_lossy(path)));
    }
    let malformed = report.verdicts.iter().flat_map(|verdicts| &verdicts.report.malformed);
    for (path, malformed) in malformed.take(COMPLAINTS_MAX) {
        let path = String::from_utf8_lossy(path.as_os_str().as_bytes());
        why.push(format!("{path}: begins like a model, and is {malformed}"));
    }
    why.extend(report.behind.iter().map(|(region, reason)| format!("region {region} is behind: {reason}")));
    if report.regions.len() < report.copies_min {
        why.push(format!("{} complete copies, {} wanted", report.regions.len(), report.copies_min));
    }
    why
}
