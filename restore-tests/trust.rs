//! What is said of model files: pickles that would do harm and those that would not, hashes, signatures.

mod faces;
pub mod pickles;
pub mod signatures;
mod zips;

use crate::harness::Bench;
use crate::reader::python;
use holdfast::model::archive::examine;
use holdfast::model::verdict::{Grade, Report};
use std::path::{Path, PathBuf};

fn shown(report: &Report) -> Vec<String> {
    report.findings.iter().map(|f| format!("{}: {} > byte {}: {}", f.grade.name(), f.place, f.offset, f.what)).collect()
}

/// A folder of files that stays, for `scripts/pickles-show`.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trust").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("folder");
    path
}

/// A file's name from that of a case, with the ending that such a file has.
fn file_name(number: usize, name: &str) -> String {
    let endings = [("zip", "pt"), ("NumPy", "npy"), ("parts", "npy"), ("gzip", "pkl.gz"), ("tar", "tar")];
    let ending = endings.iter().find(|(word, _)| name.contains(word)).map_or("pkl", |(_, ending)| ending);
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    format!("{number:03}-{plain}.{ending}")
}

#[test]
fn nothing_that_would_do_harm_is_called_safe() {
    let cases = [pickles::all(), zips::all()].concat();
    let (mut bad, mut unknown, harmful) = (Vec::new(), 0, folder("harmful"));
    for (number, (name, bytes)) in cases.iter().enumerate() {
        std::fs::write(harmful.join(file_name(number, name)), bytes).expect("file");
        let report = examine(bytes);
        match report.grade {
            Grade::Unsafe => {}
            Grade::Unknown => unknown += 1,
            Grade::Safe | Grade::None => bad.push(format!("{name}: {} {:?}", report.grade.name(), shown(&report))),
        }
    }
    let all = cases.len();
    println!("{all} harmful: {} unsafe, {unknown} unknown, {} missed", all - unknown - bad.len(), bad.len());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(all >= 120 && unknown * 4 < all, "{unknown} of {all} are only unknown");
    // The program says the same.
    let bench = Bench::in_memory(&[]);
    let (code, value) = bench.json(&["model", "check", &harmful.display().to_string()]);
    assert_eq!((code, value["unknown"].as_u64()), (5, Some(unknown as u64)));
    assert_eq!((value["none"].as_u64(), value["safe"].as_u64()), (Some(0), Some(0)), "{value:#}");
}

#[test]
fn what_is_one_thing_to_one_reader_and_another_to_the_next_is_seen_by_all_of_them() {
    let wrong = faces::all().into_iter().filter_map(|(name, bytes, grade)| {
        let report = examine(&bytes);
        let said = || format!("{name}: {}, not {}: {:?}", report.grade.name(), grade.name(), shown(&report));
        (report.grade != grade).then(said)
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let kept = faces::all().into_iter().find(|(name, ..)| *name == "a memo that is kept").expect("the case").1;
    assert!(shown(&examine(&kept)).iter().any(|line| line.contains("keeps the memo")), "the reason is told");
}

#[test]
fn each_published_name_is_found_however_it_is_loaded() {
    for (module, name) in [("os", "system"), ("pip", "main"), ("torch.hub", "load"), ("builtins", "eval")] {
        for bytes in [pickles::by_lines(module, name), pickles::by_values(module, name)] {
            let report = examine(&bytes);
            assert_eq!(report.grade, Grade::Unsafe);
            let global = report.findings.iter().find_map(|f| f.global.as_deref());
            assert_eq!(global, Some(&*format!("{module}.{name}")), "the reason names it");
        }
    }
}

#[test]
fn a_checkpoint_cut_anywhere_or_with_any_byte_changed_panics_nowhere() {
    let cases = [pickles::all(), zips::all()].concat();
    let faces = faces::all().into_iter().map(|(name, bytes, _)| (name.to_owned(), bytes)).collect();
    let cases = [cases, faces].concat();
    for (_, bytes) in cases.iter().filter(|(_, bytes)| bytes.len() < 2000) {
        for cut in 0..bytes.len() {
            examine(&bytes[..cut].to_vec());
        }
    }
    let whole = zips::harmless();
    assert_eq!(examine(&whole).grade, Grade::Safe, "{:?}", shown(&examine(&whole)));
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 0x10] {
            let mut changed = whole.clone();
            changed[at] = value;
            examine(&changed);
        }
    }
}

/// Writes the harmless files into `folder`.
pub fn harmless(folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/trust/harmless.py");
    let output = python().arg(script).arg(folder).output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_libraries_write_is_not_called_unsafe() {
    let bench = Bench::in_memory(&[]);
    let models = folder("harmless");
    harmless(&models);
    let (code, value) = bench.json(&["model", "check", &models.display().to_string()]);
    let files = value["files"].as_array().expect("files");
    let of = |grade: &str| files.iter().filter(|file| file["pickle"] == grade).count();
    println!(
        "{} that are harmless: {} safe, {} without pickles, {} unknown, {} unsafe",
        files.len(),
        of("safe"),
        of("none"),
        of("unknown"),
        of("unsafe")
    );
    assert!(files.len() >= 60, "{}", files.len());
    assert_eq!(of("unsafe"), 0, "{value:#}");
    // joblib's arrays amid a pickle, what is packed by bzip2 and xz, and a type of NumPy with parts.
    let unknown = |file: &&serde_json::Value| file["pickle"] == "unknown";
    let names: Vec<&str> = files.iter().filter(unknown).filter_map(|file| file["path"].as_str()).collect();
    assert!(names.iter().all(|name| name.contains("joblib-") || name.ends_with("/parts.pkl")), "{names:?}");
    assert_eq!((code, value["exit"]["name"].as_str()), (3, Some("partial")));
}

#[test]
fn the_program_says_why_and_ends_with_the_code_for_damage() {
    let bench = Bench::in_memory(&[]);
    std::fs::create_dir(bench.path("models")).expect("folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(bench.path("models").join(name), bytes).expect("file");
    write("good.pt", &zips::harmless());
    assert_eq!(bench.ok(&["model", "check", "models"])["grade"], "safe");
    write("strange.bin", &pickles::by_values("my_module", "Net"));
    assert_eq!(bench.json(&["model", "check", "models"]).0, 3);
    write("bad\u{1b}[31m.txt", &pickles::by_lines("os", "system"));
    let (code, value) = bench.json(&["model", "check", "models"]);
    assert_eq!((code, value["grade"].as_str()), (5, Some("unsafe")));
    let (code, output) = bench.run(&["model", "check", "models"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code, 5);
    assert!(text.contains("UNSAFE") && text.contains("byte 0: it loads os.system: it runs commands"), "{text}");
    assert!(text.contains("my_module.Net") && text.contains("1 safe, 1 unknown, 1 UNSAFE") && !text.contains('\u{1b}'));
    assert_eq!(bench.run(&["model", "check", "nothing"]).0, 1);
    assert_eq!(bench.run(&["model", "check"]).0, 2);
    // A file by itself is judged as it is in its folder.
    assert_eq!(bench.json(&["model", "check", "models/good.pt"]).0, 0);
}
