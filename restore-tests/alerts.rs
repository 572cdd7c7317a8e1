//! Who is told how runs end: over the network and by programs, once each, within a bound, without a secret in sight.

use crate::harness::{Bench, files, noise, small_tree};
use crate::reader::python;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a receiver does with a request.
#[derive(Clone, Copy)]
pub enum Answer {
    Status(u16),
    /// It says nothing until the other hangs up.
    Silence,
    /// Something that is no answer.
    Noise,
}

/// A receiver of webhooks: the n-th request gets the n-th answer, later ones the last.
pub struct Server {
    port: u16,
    /// Head and body of each request.
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    _thread: JoinHandle<()>,
}

impl Server {
    pub fn new(answers: &'static [Answer]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // It ends with the test's process.
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                take(stream, answers, &seen);
            }
        });
        Server { port, requests, _thread: thread }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks/TOKEN?key=TOKEN", self.port)
    }

    pub fn seen(&self) -> Vec<(String, Value)> {
        self.requests.lock().unwrap().clone()
    }
}

fn take(stream: TcpStream, answers: &[Answer], seen: &Mutex<Vec<(String, Value)>>) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push((head, serde_json::from_slice(&body).expect("JSON")));
        seen.len() - 1
    };
    let mut stream = reader.into_inner();
    match answers[number.min(answers.len() - 1)] {
        Answer::Status(status) => {
            let moved = if status == 302 { "location: http://127.0.0.1:1/\r\n" } else { "" };
            let _ = write!(stream, "HTTP/1.1 {status} x\r\n{moved}content-length: 0\r\nconnection: close\r\n\r\n");
        }
        Answer::Noise => drop(stream.write_all(b"who are you?\r\n\r\n")),
        Answer::Silence => drop(stream.read(&mut [0; 1])),
    }
}

/// A repository, a source, and a policy with these alerts.
fn bench(regions: &[&'static str]) -> Bench {
    let bench = Bench::with_key(regions);
    small_tree(&bench.path("source"));
    bench
}

fn configure(bench: &Bench, more: &str, alerts: &str) {
    let entry = |r: &&str| format!("{{name: {r}, url: {}}}", bench.region(r).display());
    let regions: Vec<String> = bench.regions.iter().map(entry).collect();
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions: [{}]\n  \
         copies: {{min: 1}}\n---\napiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: daily}}\n\
         spec:\n  retries: {{max: 0}}\n  sources: [{{paths: [{}]}}]\n{more}  alerts:\n{alerts}",
        regions.join(", "),
        bench.path("source").display()
    );
    std::fs::write(bench.path("holdfast.yaml"), text).unwrap();
}

fn webhook(name: &str, on: &str, url: &str) -> String {
    format!("  - {{name: {name}, events: [{on}], webhook: {{url: '{url}'}}, timeout: 1s}}\n")
}

/// Runs the policy; what was said must not hold the token.
fn run(bench: &Bench, args: &[&str], env: &[(&str, &str)]) -> (i32, Value, String) {
    let mut command = bench.command_at(&[], &[&["--json", "run", "daily"], args].concat());
    let out = command.env("NO_PROXY", "127.0.0.1,localhost").envs(env.iter().copied()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!said.contains("TOKEN") && !text.contains("TOKEN"), "{said}{text}");
    (out.status.code().unwrap(), serde_json::from_str(text.trim()).unwrap_or(Value::Null), said)
}

fn take_away(bench: &Bench) {
    std::fs::rename(bench.path("source"), bench.path("elsewhere")).unwrap();
}

fn give_back(bench: &Bench) {
    std::fs::rename(bench.path("elsewhere"), bench.path("source")).unwrap();
}

#[test]
fn each_end_is_told_once_to_those_who_want_to_know() {
    let (all, failures) = (Server::new(&[Answer::Status(200)]), Server::new(&[Answer::Status(204)]));
    let bench = bench(&["a", "b"]);
    let alerts = webhook("all", "failure, degraded, damage, brake, recovered", &all.url());
    configure(&bench, "", &(alerts + &webhook("failures", "failure", &failures.url())));
    let (code, first, said) = run(&bench, &[], &[]);
    assert_eq!((code, &first["alerts"]), (0, &Value::Array(Vec::new())), "{first:#}");
    assert!(said.contains("how the run before ended is not known"), "{said}");
    take_away(&bench);
    let (code, failed, _) = run(&bench, &[], &[]);
    assert_eq!((code, failed["alerts"].as_array().unwrap().len()), (1, 2), "{failed:#}");
    assert!(failed["alerts"].as_array().unwrap().iter().all(|a| a["sent"] == true && a["attempts"] == 1), "{failed:#}");
    give_back(&bench);
    run(&bench, &[], &[]);
    let (_, quiet, said) = run(&bench, &[], &[]);
    assert_eq!((quiet["alerts"].as_array().unwrap().len(), said.contains("not known")), (0, false), "{said}");
    std::fs::rename(bench.region("b"), bench.path("away")).unwrap();
    run(&bench, &[], &[]);
    std::fs::rename(bench.path("away"), bench.region("b")).unwrap();
    let events =
        |server: &Server| -> Vec<String> { server.seen().iter().map(|(_, m)| m["events"].to_string()).collect() };
    assert_eq!(events(&all), [r#"["failure"]"#, r#"["recovered"]"#, r#"["degraded"]"#]);
    assert_eq!(events(&failures), [r#"["failure"]"#]);
    let (head, message) = &all.seen()[0];
    assert!(head.starts_with("POST /hooks/TOKEN?key=TOKEN HTTP/1.1"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    assert_eq!(
        (&message["policy"], &message["kind"], &message["version"]),
        (&"daily".into(), &"incremental".into(), &1.into())
    );
    assert_eq!((&message["alert"], &message["exit"]["code"]), (&"all".into(), &1.into()));
    let text = message["text"].as_str().unwrap();
    assert!(text.contains("daily (incremental): 1 sources: 0 protected") && text.contains("source daily: "), "{text}");
    assert_eq!(message["sources"][0]["fate"], "failed");
}

#[test]
fn damage_and_brakes_are_told() {
    let server = Server::new(&[Answer::Status(200)]);
    let bench = bench(&["a"]);
    configure(&bench, "  retention: {last: 1}\n", &webhook("all", "damage, brake", &server.url()));
    for n in 0..6 {
        std::fs::write(bench.path("source/new"), noise(n, 1000)).unwrap();
        bench.ok(&["backup", "--name", "daily", bench.path("source").to_str().unwrap()]);
    }
    std::fs::remove_dir_all(bench.path("source")).unwrap();
    std::fs::create_dir(bench.path("source")).unwrap();
    let (_, braked, _) = run(&bench, &[], &[]);
    assert_eq!(braked["alerts"][0]["events"][0], "brake", "{braked:#}");
    for pack in files(&bench.region("a").join("packs")) {
        std::fs::write(&pack, noise(1, 100)).unwrap();
    }
    let (code, damaged, _) = run(&bench, &["--kind", "verify"], &[]);
    assert_eq!((code, &damaged["alerts"][0]["events"][0]), (5, &"damage".into()), "{damaged:#}");
    let (_, message) = server.seen().pop().unwrap();
    assert!(message["findings_total"].as_u64().unwrap() > 0 && message["findings"][0].is_string(), "{message:#}");
}

#[test]
fn a_run_that_cannot_begin_is_told_too() {
    let server = Server::new(&[Answer::Status(200)]);
    let bench = bench(&["a"]);
    configure(&bench, "", &webhook("all", "failure, recovered", &server.url()));
    std::fs::rename(bench.region("a"), bench.path("away")).unwrap();
    let (code, _, _) = run(&bench, &[], &[]);
    assert!([1, 10].contains(&code), "{code}");
    std::fs::rename(bench.path("away"), bench.region("a")).unwrap();
    let key = bench.key.clone().unwrap();
    std::fs::rename(&key, bench.path("lost")).unwrap();
    assert_ne!(run(&bench, &[], &[]).0, 0);
    std::fs::rename(bench.path("lost"), &key).unwrap();
    assert_eq!(run(&bench, &[], &[]).0, 0);
    let events: Vec<String> = server.seen().iter().map(|(_, m)| m["events"].to_string()).collect();
    assert_eq!(events, [r#"["failure"]"#, r#"["failure"]"#, r#"["recovered"]"#]);
}

#[test]
fn what_is_not_taken_is_tried_again_within_a_bound_and_fails_nothing() {
    let busy = Server::new(&[Answer::Status(503), Answer::Noise, Answer::Status(200)]);
    let broken = Server::new(&[Answer::Status(500)]);
    let gone = Server::new(&[Answer::Status(404)]);
    let moved = Server::new(&[Answer::Status(302)]);
    let slow = Server::new(&[Answer::Silence]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bench = bench(&["a"]);
    let servers = [
        ("busy", busy.url()),
        ("broken", broken.url()),
        ("gone", gone.url()),
        ("moved", moved.url()),
        ("slow", slow.url()),
    ];
    let mut alerts: String = servers.iter().map(|(name, url)| webhook(name, "recovered", url)).collect();
    alerts += &webhook("closed", "recovered", &format!("http://127.0.0.1:{closed}/TOKEN"));
    configure(&bench, "", &alerts);
    take_away(&bench);
    assert_eq!(run(&bench, &[], &[]).0, 1);
    give_back(&bench);
    let began = Instant::now();
    let (code, report, said) = run(&bench, &[], &[]);
    assert_eq!(code, 0, "a good run stays good: {report:#}");
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    let told = |name: &str| {
        let all = report["alerts"].as_array().unwrap();
        let one = all.iter().find(|alert| alert["name"] == name).unwrap();
        (
            one["sent"].as_bool().unwrap(),
            one["attempts"].as_u64().unwrap(),
            one["why"].as_str().unwrap_or("").to_owned(),
        )
    };
    assert_eq!(told("busy"), (true, 3, String::new()));
    for (name, attempts, part) in [
        ("broken", 4, "status 500"),
        ("gone", 1, "status 404"),
        ("moved", 1, "status 302"),
        ("slow", 4, "within 1 s"),
        ("closed", 4, "refused"),
    ] {
        let (sent, tried, why) = told(name);
        assert!(!sent && tried == attempts && why.contains(part) && why.contains("127.0.0.1"), "{name}: {tried} {why}");
        assert!(said.contains(&format!("alert {name} was not sent")), "{said}");
    }
    assert_eq!((busy.seen().len(), broken.seen().len(), gone.seen().len()), (3, 4, 1));
}

#[test]
fn an_address_in_a_pipe_is_not_waited_for() {
    let bench = bench(&["a"]);
    let pipe = bench.path("pipe").display().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|s| s.success()), "mkfifo");
    configure(&bench, "", &format!("  - {{name: pipe, events: [failure], webhook: {{urlFile: {pipe}}}}}\n"));
    take_away(&bench);
    let (code, report, said) = run(&bench, &[], &[]);
    assert_eq!((code, &report["alerts"][0]["attempts"]), (1, &1.into()), "{report:#}");
    assert!(said.contains("it is no file"), "{said}");
}

#[test]
fn an_interruption_ends_the_telling() {
    let slow = Server::new(&[Answer::Silence]);
    let bench = bench(&["a"]);
    let alert = webhook("slow", "failure", &slow.url()).replace("timeout: 1s", "timeout: 1h");
    configure(&bench, "", &alert);
    take_away(&bench);
    let mut command = bench.command_at(&[], &["run", "daily"]);
    let child = command.env("NO_PROXY", "127.0.0.1").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while slow.seen().is_empty() {
        std::thread::yield_now();
    }
    let sent = Instant::now();
    let done = std::process::Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
    assert!(done.is_ok_and(|s| s.success()), "kill");
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(sent.elapsed() < Duration::from_secs(15) && said.contains("alert slow: NOT SENT: interrupted"), "{said}");
    assert_eq!(out.status.code(), Some(1));
}

#[test]
fn only_who_is_trusted_is_told_over_tls() {
    let bench = bench(&["a"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/restore-tests/alerts/receiver.py");
    let mut receiver = python();
    receiver.arg(script).arg(bench.path("authority.pem")).arg(bench.path("own.pem"));
    let mut receiver = receiver.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines();
    let port: u16 = lines.next().unwrap().unwrap().parse().unwrap();
    std::fs::write(bench.path("url"), format!("https://127.0.0.1:{port}/TOKEN\n")).unwrap();
    std::fs::write(bench.path("headers"), "# ours\nX-Ours: TOKEN\n").unwrap();
    let alert = |file: &str| {
        format!(
            "  - {{name: tls, events: [failure], webhook: {{urlFile: {}, headersFile: {}}}}}\n",
            bench.path(file).display(),
            bench.path("headers").display()
        )
    };
    configure(&bench, "", &alert("url"));
    take_away(&bench);
    let tried = |env: &[(&str, &str)]| run(&bench, &[], env).1["alerts"][0].clone();
    let system = tried(&[]);
    assert_eq!((&system["sent"], &system["attempts"]), (&false.into(), &1.into()), "{system:#}");
    let authority = bench.path("authority.pem").display().to_string();
    let trusted = tried(&[("SSL_CERT_FILE", &authority)]);
    assert_eq!((&trusted["sent"], &trusted["why"]), (&true.into(), &Value::Null), "{trusted:#}");
    let got: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&got["path"], &got["body"]["events"][0]), (&"/TOKEN".into(), &"failure".into()), "one request came");
    // The certificate is another host's.
    std::fs::write(bench.path("url"), format!("https://localhost:{port}/TOKEN")).unwrap();
    let other = tried(&[("SSL_CERT_FILE", &authority)]);
    assert_eq!((&other["sent"], &other["attempts"]), (&false.into(), &1.into()), "{other:#}");
    configure(&bench, "", &alert("gone"));
    let gone = tried(&[]);
    assert!(gone["why"].as_str().unwrap().contains("gone"), "{gone:#}");
    receiver.kill().unwrap();
    receiver.wait().unwrap();
}

#[test]
fn a_program_gets_the_message_and_no_secret() {
    let bench = bench(&["a"]);
    let (got, env) = (bench.path("got").display().to_string(), bench.path("env").display().to_string());
    let alerts = format!(
        "  - {{name: told, events: [failure], command: [sh, -c, 'cat > {got}; env > {env}']}}\n  \
         - {{name: fails, events: [failure], command: [sh, -c, 'echo no pager; exit 7']}}\n  \
         - {{name: slow, events: [failure], command: [sleep, '600'], timeout: 1s}}\n"
    );
    configure(&bench, "", &alerts);
    take_away(&bench);
    let (code, report, said) = run(&bench, &[], &[("HOLDFAST_PASSPHRASE", "TOKEN"), ("KEPT", "kept")]);
    assert_eq!(code, 1);
    let message: Value = serde_json::from_str(&std::fs::read_to_string(&got).unwrap()).unwrap();
    assert_eq!((&message["alert"], &message["events"][0]), (&"told".into(), &"failure".into()));
    let env = std::fs::read_to_string(&env).unwrap();
    for line in
        ["HOLDFAST_ALERT=told", "HOLDFAST_EVENTS=failure", "HOLDFAST_POLICY=daily", "HOLDFAST_EXIT=1", "KEPT=kept"]
    {
        assert!(env.lines().any(|l| l == line), "{line}: {env}");
    }
    assert!(env.contains("HOLDFAST_TEXT=holdfast on ") && !env.contains("TOKEN"), "{env}");
    let fails = &report["alerts"][1];
    assert!(fails["why"].as_str().unwrap().contains("exit code 7; it said: no pager"), "{fails:#}");
    assert!(report["alerts"][2]["why"].as_str().unwrap().contains("ended after 1 s"), "{report:#}");
    assert!(said.contains("alert fails was not sent (4 attempts)"), "{said}");
}
