//! Generates the wire messages: reads `schema/*.schema`, writes Rust modules into `OUT_DIR/messages`.

#![allow(clippy::print_stdout)] // a build script speaks to cargo on stdout

#[path = "build/check.rs"]
mod check;
#[path = "build/emit.rs"]
mod emit;
#[path = "build/emit_read.rs"]
mod emit_read;
#[path = "build/emit_write.rs"]
mod emit_write;
#[path = "build/model.rs"]
mod model;
#[path = "build/parse.rs"]
mod parse;
#[path = "build/text.rs"]
mod text;
#[path = "build/types.rs"]
mod types;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=schema");
    if let Err(fault) = generate() {
        println!("cargo::error={fault}");
        process::exit(1);
    }
}

fn generate() -> Result<(), String> {
    let mut schema = model::Schema::default();
    for path in schema_files(Path::new("schema"))? {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        parse::parse_file(&mut schema, &path.display().to_string(), &text)?;
    }
    check::check(&schema)?;
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let directory = PathBuf::from(out).join("messages");
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for file in emit::files(&schema) {
        let path = directory.join(&file.name);
        fs::write(&path, file.text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// The schema files in the order of their names, so that the output is the same everywhere.
fn schema_files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "schema"));
    files.sort();
    if files.is_empty() { Err(format!("{}: no schema files", directory.display())) } else { Ok(files) }
}
