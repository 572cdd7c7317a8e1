//! What a verb found wrong on its way: damaged objects, and regions that cannot be used.

use crate::repo::Repo;
use serde_json::{Value, json};

/// Findings shown by name in text.
const SHOWN_MAX: usize = 20;

/// Adds both to what a verb says at its end.
pub fn add(repo: &Repo, value: &mut Value, text: &mut String) {
    let findings: Vec<String> = repo.findings().iter().map(ToString::to_string).collect();
    let failures = repo.regions.failures();
    for (region, e) in &failures {
        text.push_str(&format!("NOT USED: region {region}: {e}\n"));
    }
    findings_text(&findings, text);
    value["findings"] = json!(findings);
    value["failed"] = failures.iter().map(|(region, e)| format!("region {region}: {e}")).collect();
}

/// Damage found on the way, for people.
pub fn findings_text(findings: &[String], text: &mut String) {
    if findings.is_empty() {
        return;
    }
    text.push_str(&format!("{} damaged or missing objects found:\n", findings.len()));
    findings.iter().take(SHOWN_MAX).for_each(|f| text.push_str(&format!("  {f}\n")));
    if findings.len() > SHOWN_MAX {
        text.push_str(&format!("  and {} more (see --json)\n", findings.len() - SHOWN_MAX));
    }
}
