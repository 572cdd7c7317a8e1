//! `holdfast manifest`.

use super::args::{CronJobArgs, ManifestVerb};
use super::common::Context;
use super::output::{Outcome, plain, remark};
use crate::cluster::{self, Claim, Manifest, Manifests, SecretKey, User, Wishes};
use crate::error::{Exit, Result};
use crate::policy::{self, yaml_text};
use serde_json::{Value, json};

pub fn run(context: &Context, verb: &ManifestVerb) -> Result<Outcome> {
    let ManifestVerb::Cronjob(args) = verb;
    cronjob(context, args)
}

fn cronjob(context: &Context, args: &CronJobArgs) -> Result<Outcome> {
    let configuration = context.configuration()?;
    let policy = configuration.policy(&args.policy)?;
    let repository = configuration.repository(Some(policy.repository().as_str()))?;
    let made = cluster::cron_jobs(policy, repository, &wishes(args)?)?;
    made.warnings.iter().for_each(|warning| remark(&plain(&format!("warning: {warning}"))));
    let one = |m: &Manifest| json!({"kind": m.kind, "name": m.name, "document": m.document});
    let value = json!({
        "verb": "manifest cronjob", "policy": args.policy, "manifests": made.manifests.iter().map(one).collect::<Value>(),
        "needs": made.needs, "warnings": made.warnings,
    });
    Ok(Outcome::new(Exit::Done, text(policy.name().as_str(), &made), value))
}

fn wishes(args: &CronJobArgs) -> Result<Wishes> {
    let image = args.image.clone().unwrap_or_else(|| format!("holdfast:{}", env!("CARGO_PKG_VERSION")));
    Ok(Wishes {
        namespace: args.namespace.clone(),
        image,
        config_map: args.config_map.clone(),
        secret: args.secret_name.as_deref().map(SecretKey::parse).transpose()?,
        claims: args.claim.iter().map(|text| Claim::parse(text)).collect::<Result<_>>()?,
        user: args.run_as.as_deref().map(User::parse).transpose()?.unwrap_or_default(),
        active_deadline_s: args.active_deadline.as_deref().map(policy::duration_ms).transpose()?.map(|ms| ms / 1000),
        memory: args.memory.clone(),
    })
}

/// The documents, below what must be said of them.
fn text(policy: &str, made: &Manifests) -> String {
    let mut text = format!("# CronJobs of the policy {policy}, by `holdfast manifest cronjob`. They need:\n");
    made.needs.iter().for_each(|need| text.push_str(&format!("#   {}\n", plain(need))));
    if !made.warnings.is_empty() {
        text.push_str("# Not as the policy or a careful administrator would have it:\n");
        made.warnings.iter().for_each(|warning| text.push_str(&format!("#   {}\n", plain(warning))));
    }
    for manifest in &made.manifests {
        text.push_str("---\n");
        text.push_str(&yaml_text(&manifest.document));
    }
    text
}
