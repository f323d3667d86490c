//! A small file system for one test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the file system in bytes.
const BYTES: u64 = 640 << 20;

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

impl Volume {
    /// Makes and mounts one, or says why that cannot be done.
    pub(crate) fn mount() -> Result<Volume, String> {
        let dir = tempfile::Builder::new().prefix("full-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (image, mounted) = (dir.path().join("image"), dir.path().join("disk"));
        File::create(&image).unwrap().set_len(BYTES).unwrap();
        std::fs::create_dir(&mounted).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
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
        eprintln!("{} stays mounted", self.mounted.display());
    }
}
