//! A small file system for one test.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the file system in bytes.
const BYTES: u64 = 640 << 20;
/// Set for the process that is in its namespaces already.
const INSIDE: &str = "PENSTOCK_FULL_INSIDE";

/// A mounted image, which goes with this.
pub(crate) struct Volume {
    mounted: PathBuf,
    _dir: tempfile::TempDir,
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Becomes a process in namespaces of its own for mounts and processes, which begins this program again; or says why that
/// cannot be. The kernel ends the processes and lets go of the mounts with it, however it ends.
pub(crate) fn enter_namespaces() -> Result<(), String> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        command
    };
    run(unshare().arg("true"))?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let error = unshare().arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1").exec();
    Err(format!("unshare: {error}"))
}

impl Volume {
    /// Makes and mounts one, or says why that cannot be done.
    pub(crate) fn mount() -> Result<Volume, String> {
        let dir = tempfile::Builder::new().prefix("full-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (image, mounted) = (dir.path().join("image"), dir.path().join("disk"));
        File::create(&image).unwrap().set_len(BYTES).unwrap();
        fs::create_dir(&mounted).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        // The loop device holds it until it is not mounted any more.
        fs::remove_file(&image).unwrap();
        Ok(Volume { mounted, _dir: dir })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The broker is gone, but the last of its files may still be on their way to be closed.
        for _ in 0..100 {
            match run(Command::new("umount").arg(&self.mounted)) {
                Ok(()) => return,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        }
        eprintln!("{} stays mounted until this process ends", self.mounted.display());
    }
}
