//! `holdfast manifest cronjob`: what it prints is what clusters take, and says what the policy says.

use super::{documents, holdfast, root, said, text, tool};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// A folder with a configuration: two regions and one policy.
fn desk(policy: &str, spec: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let head = |kind: &str, name: &str| {
        format!("---\napiVersion: holdfast.io/v1alpha1\nkind: {kind}\nmetadata: {{name: \"{name}\"}}\nspec:\n")
    };
    let text = head("Repository", "main")
        + "  regions: [{name: a, url: /mnt/a/holdfast}, {name: b, url: /mnt/b/holdfast}]\n"
        + &head("BackupPolicy", policy)
        + spec;
    std::fs::write(dir.path().join("holdfast.yaml"), text).unwrap();
    dir
}

fn manifests(dir: &Path, args: &[&str]) -> Value {
    let (code, out, err) = holdfast(dir, &[&["--json", "manifest", "cronjob"], args].concat());
    assert_eq!(code, 0, "{out}{err}");
    serde_json::from_str(&out).unwrap()
}

fn cron_jobs(made: &Value) -> Vec<&Value> {
    let all = made["manifests"].as_array().unwrap().iter();
    all.filter(|m| m["kind"] == "CronJob").map(|m| &m["document"]).collect()
}

fn pod(job: &Value) -> &Value {
    &job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
}

/// Held against the schemas that Kubernetes publishes; nothing unknown is let through.
fn validate(file: &Path) {
    let out = tool("kubernetes-validate").args(["--strict", "--no-warn"]).arg(file).output().expect("it runs");
    assert!(out.status.success(), "{}", said(&out));
}

#[test]
fn the_example_is_what_the_program_prints() {
    let (code, out, _) =
        holdfast(&root(""), &["manifest", "cronjob", "home", "--config", "policies", "--namespace", "backup"]);
    assert_eq!(code, 0);
    let stale =
        "deploy/cronjob/home.yaml is stale: holdfast manifest cronjob home --config policies --namespace backup";
    assert!(text("deploy/cronjob/home.yaml") == out, "{stale} > deploy/cronjob/home.yaml");
    validate(&root("deploy/cronjob/home.yaml"));
}

#[test]
fn clusters_take_them_whatever_the_policy_is() {
    let long = "x".repeat(62);
    let spec = "  sources: [{name: one, paths: [/srv/one, /srv/one/inner, '/srv/Ü b']}, {name: two, paths: [/data/two]}]\n  \
                schedule: {incremental: '@hourly', full: '15 1-5 * * 5-7', timeZone: America/New_York}\n  \
                verify: {schedule: 0 4 1 jan 7}\n  startingDeadline: 5s\n";
    let wishes = [
        &["--run-as", "0", "--claim", "/srv=files/sub/folder", "--claim", "/data/two=files"][..],
        &["--namespace", "n", "--config-map", "c.x", "--secret", "s/key.txt", "--active-deadline", "12h"],
        &[
            "--claim",
            "/holdfast/state=state",
            "--memory",
            "512Mi",
            "--image",
            "registry.example:5000/holdfast@sha256:0",
        ],
    ];
    for (n, wish) in wishes.into_iter().enumerate() {
        for policy in ["007", "no", &format!("{long}a"), &format!("{long}b")] {
            let desk = desk(policy, spec);
            let (code, out, err) = holdfast(desk.path(), &[&["manifest", "cronjob", policy], wish].concat());
            assert_eq!(code, 0, "{err}");
            let file = desk.path().join("printed.yaml");
            std::fs::write(&file, out).unwrap();
            if policy == "007" {
                validate(&file);
            }
            // Somebody else's parser sees the same.
            let made = manifests(desk.path(), &[&[policy], wish].concat());
            let wanted: Vec<Value> =
                made["manifests"].as_array().unwrap().iter().map(|m| m["document"].clone()).collect();
            assert_eq!(documents(&file), wanted);
            assert_eq!(wanted.len(), if n == 1 { 3 } else { 4 });
        }
    }
}

#[test]
fn names_are_short_and_stay_different() {
    let names = |policy: &str| -> Vec<String> {
        let desk = desk(policy, "  sources: [{paths: [/srv]}]\n  schedule: {incremental: '@daily', full: '@weekly'}\n");
        let made = manifests(desk.path(), &[policy]);
        let jobs = cron_jobs(&made);
        jobs.iter().map(|job| job["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("home"), ["holdfast-home-incremental", "holdfast-home-full"]);
    let long = format!("{}-{}", "a".repeat(22), "b".repeat(39));
    let (one, other) = (names(&format!("{long}1")), names(&format!("{long}2")));
    assert!(one.iter().zip(&other).all(|(a, b)| a != b), "{one:?} {other:?}");
    for name in one.iter().chain(&other) {
        let plain = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        assert!(name.len() <= 52 && plain && !name.contains("--"), "{name}");
    }
}

#[test]
fn a_cron_job_says_what_the_policy_says() {
    let spec = "  sources: [{name: one, paths: [/srv/one]}]\n  schedule: {incremental: 30 2 * * *, full: 30 2 * * 7, \
                timeZone: Europe/Berlin, jitter: 10m}\n  verify: {schedule: '@monthly'}\n  startingDeadline: 6h\n  \
                retries: {max: 2}\n  concurrency: queue\n";
    let desk = desk("data", spec);
    let made = manifests(desk.path(), &["data", "--active-deadline", "90m"]);
    let jobs = cron_jobs(&made);
    let schedules: Vec<&str> = jobs.iter().map(|job| job["spec"]["schedule"].as_str().unwrap()).collect();
    assert_eq!(schedules, ["30 2 * * *", "30 2 * * 0", "0 0 1 * *"]);
    for job in &jobs {
        let (spec, template) = (&job["spec"], &job["spec"]["jobTemplate"]["spec"]);
        assert_eq!((&spec["concurrencyPolicy"], &spec["timeZone"]), (&"Forbid".into(), &"Europe/Berlin".into()));
        assert_eq!((&spec["startingDeadlineSeconds"], &template["backoffLimit"]), (&21_600.into(), &2.into()));
        assert_eq!(template["activeDeadlineSeconds"], 5400);
        let (pod, container) = (pod(job), &pod(job)["containers"][0]);
        assert_eq!((&pod["restartPolicy"], &pod["automountServiceAccountToken"]), (&"Never".into(), &false.into()));
        let (all, one) = (&pod["securityContext"], &container["securityContext"]);
        assert_eq!((&all["runAsNonRoot"], &all["seccompProfile"]["type"]), (&true.into(), &"RuntimeDefault".into()));
        assert_eq!(one["capabilities"], serde_json::json!({"drop": ["ALL"]}));
        assert_eq!((&one["allowPrivilegeEscalation"], &one["readOnlyRootFilesystem"]), (&false.into(), &true.into()));
        // The secret is a file, and nowhere else.
        assert!(container["env"].as_array().unwrap().iter().all(|v| v.get("valueFrom").is_none()), "{container:#}");
        let last_word: Vec<u64> = template["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|code| code.as_u64().unwrap())
            .collect();
        assert_eq!(last_word, [1, 2, 3, 4, 5, 10, 11, 12]);
    }
    // Sources are only read; a check does not see them at all.
    let mounts = |job: &Value| -> Vec<(String, bool)> {
        let all = pod(job)["containers"][0]["volumeMounts"].as_array().unwrap().clone();
        let ours = |m: &Value| m["mountPath"].as_str().unwrap().starts_with("/holdfast");
        let one = |m: &Value| (m["mountPath"].as_str().unwrap().to_owned(), m["readOnly"] == true);
        all.iter().filter(|m| !ours(m)).map(one).collect()
    };
    let regions = [("/mnt/a/holdfast".to_owned(), false), ("/mnt/b/holdfast".to_owned(), false)];
    assert_eq!(mounts(jobs[0]), [&regions[..], &[("/srv/one".to_owned(), true)]].concat());
    assert_eq!(mounts(jobs[2]), regions);
    let warnings = made["warnings"].to_string();
    for part in ["no jitter and no blackouts", "skips 02:30", "02:30 comes twice", "whatever `concurrency` says"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    // The same stands above the documents and on standard error.
    let (_, out, err) = holdfast(desk.path(), &["manifest", "cronjob", "data"]);
    assert!(
        out.contains("#   full: the change to summer time skips 02:30") && err.contains("warning: full: the change")
    );
}

#[test]
fn odd_texts_reach_the_pod_as_they_are_and_what_it_lacks_is_said() {
    let odd =
        ["*\u{2028}evil: true", "#no comment", "a\u{85}b", "'\"", "\u{feff}bom", "- [x]", "\u{1f980} \u{fffd}", "%TAG"];
    let spec = format!(
        "  sources: [{{name: 'one: {{two}}', paths: [/srv], exclude: {}}}]\n  schedule: {{full: '@daily'}}\n  \
         alerts: [{{name: ops, events: [failure], webhook: {{urlFile: /etc/h/url, headersFile: /etc/h/headers}}}}, \
         {{name: chat, events: [failure], webhook: {{url: 'https://chat.example.org/t'}}}}]\n",
        serde_json::to_string(&odd).unwrap()
    );
    let desk = desk("data", &spec);
    let (code, out, err) = holdfast(desk.path(), &["manifest", "cronjob", "data"]);
    assert_eq!(code, 0, "{err}");
    let file = desk.path().join("printed.yaml");
    std::fs::write(&file, out).unwrap();
    let seen = documents(&file);
    assert_eq!(seen.len(), 2, "{seen:#?}");
    let inner = desk.path().join("inner.yaml");
    std::fs::write(&inner, seen[0]["data"]["holdfast.yaml"].as_str().unwrap()).unwrap();
    let policy = &documents(&inner)[1]["spec"]["sources"][0];
    assert_eq!((&policy["exclude"], &policy["name"]), (&serde_json::json!(odd), &"one: {two}".into()));
    let warnings = manifests(desk.path(), &["data"])["warnings"].to_string();
    for part in ["the pod has no /etc/h/url:", "the pod has no /etc/h/headers:", "alert chat: its address stands in"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[test]
fn keys_that_the_pod_does_not_see_are_said() {
    let spec = "  sources: [{name: m, kind: model, paths: [/srv], trust: {signature: require, key: [/etc/k.pub], \
                chain: [/etc/c.pem]}}]\n  schedule: {full: '@daily'}\n";
    let warnings = manifests(desk("data", spec).path(), &["data"])["warnings"].to_string();
    for part in ["source m: the pod has no /etc/k.pub:", "source m: the pod has no /etc/c.pem:"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[test]
fn root_reads_everything_and_is_said() {
    let desk = desk("data", "  sources: [{paths: [/srv]}]\n  schedule: {full: '@daily'}\n");
    let made = manifests(desk.path(), &["data", "--run-as", "0"]);
    let pod = pod(cron_jobs(&made)[0]);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], false);
    let capabilities = &pod["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(capabilities, &serde_json::json!({"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]}));
    assert!(made["warnings"].to_string().contains("restricted"), "{made:#}");
}

#[test]
fn what_cannot_be_is_refused() {
    let plain = "  sources: [{paths: [/srv]}]\n  schedule: {full: '@daily'}\n";
    let refused = |spec: &str, args: &[&str], part: &str| {
        let desk = desk("data", spec);
        let (code, out, err) = holdfast(desk.path(), &[&["manifest", "cronjob", "data"], args].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains(part), "{part}: {err}");
    };
    refused("  sources: [{paths: [/srv]}]\n", &[], "nothing is scheduled");
    refused(&plain.replace("/srv", "/"), &[], "cannot be mounted");
    refused(&plain.replace("/srv", "/holdfast/bin"), &[], "taken in the pod");
    refused(&plain.replace("/srv", "/proc/self"), &[], "taken in the pod");
    refused(&plain.replace("/srv", "'/srv/a:b'"), &[], "cannot be written");
    // A line's end for some readers of YAML would end the comment that the path stands in.
    refused(&plain.replace("/srv", "\"/srv/a\\u2028b\""), &[], "cannot be written");
    refused(&plain.replace("/srv", "\"/srv/a\\tb\""), &[], "cannot be written");
    refused(plain, &["--claim", "/elsewhere=c"], "nothing of the policy is at /elsewhere");
    refused(plain, &["--claim", "/srv=c", "--claim", "/srv/=d"], "two claims");
    refused(plain, &["--claim", "/srv"], "names no claim");
    refused(plain, &["--claim", "/srv=c/../d"], "no folder");
    refused(plain, &["--claim", "srv=c"], "not absolute");
    refused(plain, &["--claim", "/srv=C"], "cannot be the name");
    refused(plain, &["--namespace", "a.b"], "not a valid name");
    refused(plain, &["--config-map", ""], "cannot be the name");
    refused(plain, &["--secret", "s/a b"], "key of a Secret");
    refused(plain, &["--image", "a b"], "no image");
    refused(plain, &["--run-as", "nobody"], "no user");
    refused(plain, &["--memory", "lots"], "no amount of memory");
    refused(plain, &["--active-deadline", "0s"], "the deadline is zero");
    let desk = desk("data", plain);
    let config = std::fs::read_to_string(desk.path().join("holdfast.yaml")).unwrap();
    std::fs::write(desk.path().join("holdfast.yaml"), config.replace("/mnt/a/holdfast", "a")).unwrap();
    let (code, _, err) = holdfast(desk.path(), &["manifest", "cronjob", "data"]);
    assert!(code == 2 && err.contains("the region a is not absolute"), "{err}");
}
