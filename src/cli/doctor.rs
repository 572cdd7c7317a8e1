//! `holdfast doctor`.

use super::args::Doctor as Args;
use super::common::Context;
use super::output::{Outcome, plain};
use crate::error::Result;
use crate::ops::doctor::{self, Check, Grade, Region, Report, Wish};
use crate::store::{Lock, Rate, Tried};
use serde_json::{Value, json};

pub fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let places = context.places()?;
    let secret = context.secret_if_given()?;
    let state = context.state().ok();
    let wish = Wish { secret: secret.as_ref(), state: state.as_deref(), throughput: args.throughput };
    let report = doctor::run(&context.opening(&places), &wish, &context.cancel, &|meters| context.meter(meters))?;
    context.cancel.check()?;
    let value = json!({
        "verb": "doctor", "grade": report.grade().name(), "copies_min": report.copies_min,
        "repository": report.repository.id.map(|id| id.hex()),
        "regions": report.regions.iter().map(region_json).collect::<Vec<_>>(),
        "checks": report.repository.checks.iter().map(check_json).collect::<Vec<_>>(),
    });
    Ok(Outcome::new(report.exit(), text(&report), value))
}

fn check_json(check: &Check) -> Value {
    json!({"check": check.name, "grade": check.grade.name(), "says": check.says, "advice": check.advice})
}

fn region_json(region: &Region) -> Value {
    let x = &region.examined;
    let said = |tried: &Tried<Lock>| tried.as_ref().and_then(|said| said.as_ref().ok()).cloned();
    let (mode, days) = match said(&x.lock) {
        Some(Lock::Default { mode, days }) => (Some(mode), Some(days)),
        _ => (None, None),
    };
    let rate = |tried: &Tried<Option<Rate>>| tried.as_ref().and_then(|rate| rate.as_ref().ok().copied().flatten());
    let figures = region.figures();
    let versioning = x.versioning.as_ref().and_then(|said| said.as_ref().ok());
    json!({
        "region": region.name, "place": region.place.to_string(), "grade": region.grade().name(),
        "checks": region.checks.iter().map(check_json).collect::<Vec<_>>(),
        "first_answer_ms": figures.first_ms, "read_ms": figures.read_ms, "put_ms": figures.put_ms,
        "read_bytes_per_second": rate(&x.get_rate).map(Rate::per_second),
        "put_bytes_per_second": rate(&x.put_rate).map(Rate::per_second),
        "clock_ms": region.clock_ms(), "versioning": versioning.map(|v| v.name()),
        "lock_mode": mode, "lock_days": days,
        "free_bytes": x.ground.as_ref().map(|ground| ground.free_bytes),
        "file_system": x.ground.as_ref().map(|ground| ground.kind.clone()),
        "left": x.left,
    })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for region in &report.regions {
        text.push_str(&format!("region {}  {}\n", plain(&region.name), plain(&region.place.to_string())));
        region.checks.iter().for_each(|check| line(check, &mut text));
    }
    match &report.repository.id {
        Some(id) => text.push_str(&format!("repository {}\n", id.short())),
        None => text.push_str("repository\n"),
    }
    report.repository.checks.iter().for_each(|check| line(check, &mut text));
    let all = || report.regions.iter().flat_map(|region| &region.checks).chain(&report.repository.checks);
    let count = |grade: Grade| all().filter(|check| check.grade == grade).count();
    text.push_str(&match report.grade() {
        Grade::Good | Grade::Note => "all is well\n".to_owned(),
        Grade::Warning => format!("it works; {} to be looked at\n", count(Grade::Warning)),
        Grade::Bad => format!("BAD: {}; {} more to be looked at\n", count(Grade::Bad), count(Grade::Warning)),
    });
    text
}

fn line(check: &Check, text: &mut String) {
    let word = match check.grade {
        Grade::Bad => "BAD",
        other => other.name(),
    };
    text.push_str(&format!("  {word:<8}{:<17}{}\n", check.name, plain(&check.says)));
    if let Some(advice) = &check.advice {
        text.push_str(&format!("  {:25}-> {}\n", "", plain(advice)));
    }
}
