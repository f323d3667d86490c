//! House rules that the compiler does not hold: import edges, file sizes, where `unsafe`, clocks and
//! the runtime may appear, and that documents point at files that exist.
//!
//! Each rule is a function from the tree to its violations, so that a rule which can no longer fail shows
//! in [`rules_catch_violations`].

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// Lines a Rust source file may have. Design: 100-400, an explanation above 600, never 1,000.
const FILE_LINES_MAX: usize = 600;

/// Packages and the packages of ours that each may import, from the architecture document.
const IMPORTS: &[(&str, &str, &[&str])] = &[
    ("penstock-format", "storage/format", &[]),
    ("penstock-storage", "storage", &["penstock-format"]),
    ("penstock-protocol", "transport/protocol", &["penstock-format"]),
    ("penstock-core", "broker/core", &["penstock-format", "penstock-protocol"]),
    ("penstock", "broker", &["penstock-core", "penstock-format", "penstock-protocol", "penstock-storage"]),
    ("penstock-loadgen", "loadgen", &["penstock-format", "penstock-protocol"]),
    (
        "penstock-perf",
        "perf",
        &["penstock-format", "penstock-loadgen", "penstock-protocol", "penstock-storage"],
    ),
];

/// The only files that may hold `unsafe`; each allows it in so many words and proves each block.
const UNSAFE_FILES: &[&str] = &[
    "broker/src/network/socket.rs",
    "broker/src/runtime/heap.rs",
    "broker/src/runtime/os.rs",
    "perf/src/process.rs",
    "perf/src/ring.rs",
    "storage/format/tests/counting/mod.rs",
    "storage/src/disk/aligned.rs",
    "storage/src/disk/preflight/host.rs",
    "storage/src/disk/real/direct.rs",
    "storage/src/disk/real/tests.rs",
    "storage/src/disk/ring.rs",
    "storage/src/disk/ring/core.rs",
    "storage/src/disk/ring/doorbell.rs",
    "storage/src/disk/ring/tests.rs",
    "transport/protocol/src/wire_string.rs",
    "transport/protocol/tests/wire/allocation.rs",
];

/// Folders (or files) in which the executor and io_uring may be named.
const RUNTIME_PLACES: &[&str] = &[
    "storage/src/disk/",
    "storage/benches/",
    "storage/examples/",
    "storage/tests/",
    "broker/src/runtime/",
    "broker/src/shard/",
    "broker/src/network/",
    "broker/tests/tidy.rs",
    "loadgen/src/main.rs",
    "perf/src/",
];

/// Code that must be a pure function of its inputs: no clock, no randomness, no files, no sockets.
const PURE_PLACES: &[&str] = &["storage/format/src/", "broker/core/src/", "transport/protocol/src/"];
const IMPURE_WORDS: &[&str] = &[
    "SystemTime",
    "Instant::now",
    "thread_rng",
    "getrandom",
    "RandomState",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env::",
    "async fn",
    "tokio::",
    "libc::",
];
/// The log engine takes time as an input; only its disk drivers may look at a clock.
const CLOCK_WORDS: &[&str] = &["SystemTime", "Instant::now", "thread_rng", "getrandom"];

/// One source file: its path from the root, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| {
            let line = line.trim_start();
            !line.starts_with("//")
        })
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn collect(dir: &Path, endings: &[&str], found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !["target", ".git", "node_modules", "corpus", "artifacts"].contains(&name.as_str()) {
                collect(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path: relative, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

fn sources(endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), endings, &mut found);
    assert!(!found.is_empty(), "the tree was not found");
    found
}

fn starts_with_any(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX { vec![format!("{}: {lines} lines", source.path)] } else { Vec::new() }
}

fn has_unsafe(line: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code)"]
        .iter()
        .any(|w| line.contains(w))
}

fn unsafe_outside(source: &Source) -> Vec<String> {
    if UNSAFE_FILES.contains(&source.path.as_str()) || source.path == "broker/tests/tidy.rs" {
        return Vec::new();
    }
    let found = source.code_lines().filter(|(_, line)| has_unsafe(line));
    found.map(|(at, _)| format!("{}:{at}: unsafe outside the named files", source.path)).collect()
}

fn runtime_outside(source: &Source) -> Vec<String> {
    if starts_with_any(&source.path, RUNTIME_PLACES) {
        return Vec::new();
    }
    let named = |line: &str| line.contains("glommio::") || line.contains("io_uring::");
    let found = source.code_lines().filter(|(_, line)| named(line));
    found.map(|(at, _)| format!("{}:{at}: names the runtime", source.path)).collect()
}

fn impure(source: &Source) -> Vec<String> {
    let words = if starts_with_any(&source.path, PURE_PLACES) {
        IMPURE_WORDS
    } else if source.path.starts_with("storage/src/") && !source.path.starts_with("storage/src/disk/") {
        CLOCK_WORDS
    } else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (at, line) in source.code_lines() {
        for word in words.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{at}: {word}", source.path));
        }
    }
    found
}

fn left_over(source: &Source) -> Vec<String> {
    if source.path == "broker/tests/tidy.rs" {
        return Vec::new();
    }
    let words = ["TODO", "FIXME", "XXX ", "XXX:", "todo!(", "unimplemented!("];
    let lines = source.text.lines().enumerate();
    let found = lines.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    found.map(|(at, line)| format!("{}:{}: {}", source.path, at + 1, line.trim())).collect()
}

fn foreign_path(source: &Source) -> Vec<String> {
    if source.path == "broker/tests/tidy.rs" {
        return Vec::new();
    }
    let words = ["/work/", "/root/", "../shared"];
    let lines = source.text.lines().enumerate();
    let found = lines.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    found.map(|(at, line)| format!("{}:{}: {}", source.path, at + 1, line.trim())).collect()
}

fn check(endings: &[&str], rule: fn(&Source) -> Vec<String>) {
    let violations: Vec<String> = sources(endings).iter().flat_map(rule).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn files_stay_short() {
    check(&[".rs", ".py"], too_long);
}

#[test]
fn unsafe_stays_in_named_files() {
    check(&[".rs"], unsafe_outside);
    for path in UNSAFE_FILES {
        let text = std::fs::read_to_string(root().join(path)).unwrap_or_default();
        assert!(text.contains("allow(unsafe_code)]"), "{path}: named for unsafe code, yet it has none");
        let blocks =
            text.lines().filter(|line| line.contains("unsafe {") || line.contains("unsafe impl")).count();
        let proofs = text.lines().filter(|line| line.contains("SAFETY:")).count();
        assert!(proofs >= blocks, "{path}: {blocks} unsafe blocks, {proofs} proofs (`// SAFETY:`)");
    }
}

#[test]
fn the_runtime_is_named_only_in_drivers() {
    check(&[".rs"], runtime_outside);
}

#[test]
fn decisions_are_pure() {
    check(&[".rs"], impure);
}

#[test]
fn nothing_is_left_for_later() {
    check(&[".rs", ".py", ".sh", ".java", ".js", ".toml"], left_over);
}

#[test]
fn the_tree_stands_alone() {
    check(&[".rs", ".py", ".sh", ".java", ".js", ".toml", ".md", ".json"], foreign_path);
}

/// The names of our packages among a manifest's lines of one section.
fn imports_of(manifest: &str, section: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != section).skip(1);
    let body = lines.take_while(|line| !line.starts_with('['));
    let names = body.filter(|line| line.starts_with("penstock"));
    names.map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned()).collect()
}

#[test]
fn packages_import_what_the_design_allows() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for (name, folder, allowed) in IMPORTS {
        assert!(workspace.contains(&format!("\"{folder}\"")), "{folder} is not a member of the workspace");
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{folder}: package {name} expected");
        for import in imports_of(&manifest, "[dependencies]") {
            assert!(
                allowed.contains(&import.as_str()),
                "{name} imports {import}, which the design does not allow"
            );
        }
    }
    let members = workspace.lines().filter(|line| line.starts_with("    \"")).count();
    assert_eq!(members, IMPORTS.len(), "a member of the workspace has no row in this table");
}

#[test]
fn documents_link_to_files_that_exist() {
    let mut missing = Vec::new();
    for source in sources(&[".md"]) {
        let folder = root().join(&source.path).parent().unwrap().to_path_buf();
        for link in source.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") && !folder.join(file).exists() {
                missing.push(format!("{}: {link}", source.path));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn rules_catch_violations() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    assert_eq!(too_long(&source("a.rs", &"x\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
    assert_eq!(unsafe_outside(&source("broker/src/a.rs", "let x = unsafe { 1 };")).len(), 1);
    assert_eq!(runtime_outside(&source("broker/core/src/a.rs", "use glommio::timer;")).len(), 1);
    assert_eq!(impure(&source("broker/core/src/a.rs", "let now = Instant::now();")).len(), 1);
    assert_eq!(impure(&source("storage/src/a.rs", "let now = SystemTime::now();")).len(), 1);
    assert_eq!(left_over(&source("a.rs", "// TODO later")).len(), 1);
    assert_eq!(foreign_path(&source("a.md", "see ../shared/x")).len(), 1);
    assert_eq!(
        imports_of("[dependencies]\npenstock-core.workspace = true\n[x]\npenstock-z = 1", "[dependencies]"),
        ["penstock-core"]
    );
}
