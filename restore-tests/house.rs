//! What the README says about the house itself is true.

use holdfast::policy::{Text, load};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The code blocks of this language in the README, with the line each begins at.
fn blocks(language: &str) -> Vec<(usize, String)> {
    let readme = text("README.md");
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (number, line) in readme.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(opened) if !inside && opened == language => {
                found.push((number + 1, String::new()));
                inside = true;
            }
            Some(_) => inside = false,
            None if inside => found.last_mut().unwrap().1 += &format!("{line}\n"),
            None => {}
        }
    }
    found
}

#[test]
fn the_first_screen_has_the_two_commands() {
    let blocks = blocks("sh");
    let first: Vec<&str> = blocks.iter().take_while(|(line, _)| *line < 25).map(|(_, text)| text.trim()).collect();
    assert_eq!(first, ["scripts/quickstart PATH", "scripts/test"]);
}

#[test]
fn the_configuration_in_the_readme_is_read() {
    let blocks = blocks("yaml");
    let texts: Vec<Text> = blocks.iter().map(|(_, text)| Text { name: "README.md", text }).collect();
    let read = load(&texts).unwrap_or_else(|e| panic!("blocks at lines {:?}: {e}", blocks.iter().map(|b| b.0)));
    assert_eq!(read.repositories().iter().map(|r| r.regions().len()).collect::<Vec<_>>(), [2]);
    assert_eq!(read.policies().iter().map(|p| p.name().as_str()).collect::<Vec<_>>(), ["home"]);
}

#[test]
fn every_exit_code_is_in_the_readme() {
    use holdfast::error::Exit;
    let readme = text("README.md");
    for exit in Exit::ALL {
        assert!(readme.contains(&format!("\n| {} | ", exit as u8)), "{exit:?} is missing");
    }
}

#[test]
fn the_scripts_are_scripts() {
    let scripts = ["scripts/test", "scripts/quickstart", "scripts/static", "scripts/function-lengths", ".ci/run"];
    for name in scripts {
        let path = root().join(name);
        let mode = std::fs::metadata(&path).unwrap_or_else(|e| panic!("{name}: {e}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} cannot be executed");
        let checked = Command::new("bash").arg("-n").arg(&path).output().expect("bash is needed");
        assert!(checked.status.success(), "{name}: {checked:?}");
    }
    let commands: Vec<String> = text(".ci/run").lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
    assert_eq!(commands, ["exec \"$(dirname \"$0\")/../scripts/test\""]);
}

#[test]
fn quickstart_without_a_path_shows_how_to_use_it() {
    let out = Command::new(root().join("scripts/quickstart")).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("usage: scripts/quickstart PATH"), "{out:?}");
    assert!(out.stdout.is_empty());
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut checked = 0;
    for (folder, name) in
        [("", "README.md"), ("docs/", "docs/architecture.md"), ("docs/decisions/", "docs/decisions/README.md")]
    {
        for link in text(name).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") && !link.starts_with('#') {
                let target = root().join(folder).join(link.split('#').next().unwrap());
                assert!(target.exists(), "{name} links to {link}");
                checked += 1;
            }
        }
    }
    assert!(checked > 5, "no links were found");
}

#[test]
fn the_map_shows_the_rooms_and_crates_that_the_rules_know() {
    let map = text("docs/architecture.md");
    let table = |title: &str| map.split(title).nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let cells = |line: &str| -> Vec<String> {
        line.split('|')
            .skip(1)
            .map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>().join(" "))
            .collect()
    };
    let rooms: Vec<String> =
        table("| room | what lives there |").lines().skip(2).map(|l| cells(l)[0].clone()).collect();
    let known: Vec<&str> = crate::tidy::ROOMS.iter().copied().filter(|r| rooms.iter().any(|room| room == r)).collect();
    assert_eq!(rooms, known, "the order of the rooms differs");
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let room = name.trim_end_matches(".rs");
        assert!(room == "lib" || room == "main" || rooms.iter().any(|r| r == room), "`{room}` is not on the map");
    }
    let mut crates: Vec<(String, String)> = Vec::new();
    for line in table("| crates | room |").lines().skip(2) {
        let cells = cells(line);
        crates.extend(cells[0].split(' ').map(|c| (c.replace('-', "_"), cells[1].clone())));
    }
    for (name, homes) in crate::tidy::CRATES {
        let on_the_map = crates.iter().find(|(c, _)| c == name).map(|(_, room)| room.as_str());
        let there = rooms.iter().any(|r| homes.contains(&r.as_str()));
        assert_eq!(on_the_map, there.then(|| homes.join(" ")).as_deref(), "{name}");
    }
}
