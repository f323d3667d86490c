//! Where a command of this program keeps its data: a directory of its own below the one it is given, which may have others'
//! things in it, or be empty and theirs.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Name of that directory.
const NAME: &str = "penstock-perf-work";

/// Makes the directory below `data_dir`, empty of what an earlier command left there; gives its whole path.
pub(crate) fn make(data_dir: &Path) -> io::Result<PathBuf> {
    let own = data_dir.join(NAME);
    if own.exists() {
        fs::remove_dir_all(&own)?;
    }
    fs::create_dir_all(&own)?;
    fs::canonicalize(own)
}

/// Removes it. The directory it is in stays.
pub(crate) fn remove(own: &Path) -> io::Result<()> {
    fs::remove_dir_all(own)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_there_stays() {
        let given = tempfile::tempdir().unwrap();
        let theirs = given.path().join("broker");
        fs::create_dir(&theirs).unwrap();
        let own = make(given.path()).unwrap();
        fs::write(own.join("data"), "ours").unwrap();
        assert_eq!(make(given.path()).unwrap(), own);
        assert_eq!(fs::read_dir(&own).unwrap().count(), 0, "begins empty");
        remove(&own).unwrap();
        assert!(theirs.exists() && !own.exists());
    }

    #[test]
    fn the_directory_that_was_given_stays_though_it_is_empty() {
        let given = tempfile::tempdir().unwrap();
        remove(&make(&given.path().join("new")).unwrap()).unwrap();
        assert_eq!(fs::read_dir(given.path().join("new")).unwrap().count(), 0);
    }
}
