//! Documents that lie are worse than none: links lead somewhere, decisions are in their index, and nothing that is
//! tracked names a place on the machine of whoever wrote it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Starts of paths that exist only on somebody's machine.
const MACHINE_PATHS: &[&str] = &["/home/", "/root/", "/Users/", "/work/"];

/// Where such paths are meant: this file, for the list above and its examples.
const MAY_NAME_MACHINE_PATHS: &[&str] = &["tests/docs.rs"];

#[test]
fn relative_links_lead_somewhere() {
    let documents: Vec<PathBuf> =
        tracked().into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    assert!(documents.iter().any(|path| path.ends_with("README.md")), "README.md is not tracked");
    let mut broken = Vec::new();
    for document in documents {
        let text = read(&document);
        for (line, target) in links(&text) {
            if let Some(why) = why_broken(&document, &target) {
                broken.push(format!("{}:{line}: ({target}): {why}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_decision_is_in_the_index() {
    let index = read(Path::new("docs/adr/README.md"));
    let listed: Vec<String> = links(&index).into_iter().map(|(_, target)| target).collect();
    let decisions: Vec<String> = tracked()
        .iter()
        .filter_map(|path| path.strip_prefix("docs/adr").ok())
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    assert!(!decisions.is_empty(), "docs/adr holds no decision");
    for name in &decisions {
        assert!(listed.contains(name), "docs/adr/{name} is not in docs/adr/README.md");
        let number = name.split('-').next().unwrap_or_default();
        let twins = decisions.iter().filter(|other| other.starts_with(&format!("{number}-"))).count();
        assert!(number.len() == 4 && twins == 1, "docs/adr/{name}: name it NNNN-title.md with a number of its own");
    }
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let mut found = Vec::new();
    for path in tracked() {
        if MAY_NAME_MACHINE_PATHS.iter().any(|name| path == Path::new(name)) {
            continue;
        }
        // A file that is no text has no paths to read.
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if MACHINE_PATHS.iter().any(|place| names_path(line, place)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "paths of one machine:\n{}", found.join("\n"));
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "[a](b.md)\n```\n[no](code.md)\n```\n![i](p.png) and `[no](x)` [t](<c d.md>)\n[r]: e.md\n";
    let targets: Vec<(usize, String)> = links(text);
    let expected = [(1, "b.md"), (5, "p.png"), (5, "c d.md"), (6, "e.md")];
    assert_eq!(targets, expected.map(|(line, target)| (line, target.to_owned())));

    assert_eq!(why_broken(Path::new("README.md"), "https://example.org/x"), None);
    assert_eq!(why_broken(Path::new("docs/adr/README.md"), "../../Cargo.toml"), None);
    assert!(why_broken(Path::new("README.md"), "docs/none.md").is_some());
    assert!(why_broken(Path::new("README.md"), "#no-such-heading-here").is_some());

    assert!(names_path("cd /root/x", "/root/") && names_path("=/root/x", "/root/"));
    assert!(!names_path("https://example.org/root/x", "/root/") && !names_path("a/root/x", "/root/"));
    assert_eq!(anchor("`swarm demo`: what it does, in 2 steps"), "swarm-demo-what-it-does-in-2-steps");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files that git tracks, relative to the root, those deleted in the work tree left out.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git is installed");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    names.split_terminator('\0').map(PathBuf::from).filter(|path| root().join(path).exists()).collect()
}

/// Targets of the links and images of a Markdown text, with their line; code is left out.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, content) in prose(text) {
        let content = without_code_spans(content);
        for (start, _) in content.match_indices("](") {
            let rest = &content[start + 2..];
            let target = match rest.strip_prefix('<') {
                Some(rest) => rest.split('>').next(),
                None => rest.split([')', ' ']).next(),
            };
            found.extend(target.map(|target| (line, target.to_owned())));
        }
        if let Some((_, target)) = content.split_once("]: ").filter(|_| content.starts_with('[')) {
            found.push((line, target.trim().to_owned()));
        }
    }
    found
}

/// The numbered lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((number + 1, line))
    })
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// Why a link in `document` leads nowhere, if so. Links to other hosts are not followed.
fn why_broken(document: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => root().join(document),
        file => root().join(document.parent().expect("a document is in a directory")).join(file),
    };
    if !path.exists() {
        return Some("no such file".to_owned());
    }
    if fragment.is_empty() || path.extension().is_none_or(|extension| extension != "md") {
        return None;
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let has_heading = prose(&text)
        .filter(|(_, line)| line.starts_with('#'))
        .any(|(_, line)| anchor(line.trim_start_matches('#').trim()) == fragment);
    (!has_heading).then(|| "no such heading".to_owned())
}

/// The anchor that a heading gets when the document is rendered.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Whether `line` names a path that begins with `place`; `place` further down in a path or URL does not count.
fn names_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        line[..at]
            .chars()
            .next_back()
            .is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}' | '*')))
    })
}
