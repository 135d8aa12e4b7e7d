//! The directory that one run of Chromium writes to: fresh, and removed with the run. The next worker on the machine
//! removes the directory of a worker that was killed: a lock on a file in it shows whether its worker lives.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

const PREFIX: &str = "swarm-browser-";
const LOCK: &str = "swarm.lock";

/// A profile directory. Removed when dropped.
#[derive(Debug)]
pub(super) struct Profile {
    directory: TempDir,
    /// Locked while this process lives.
    _lock: File,
}

impl Profile {
    /// Creates a profile in `parent`.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let unlocked = directory.path().join("swarm.lock.new");
        let lock = File::create(&unlocked)?;
        lock.lock()?;
        // Under its final name the file is never seen unlocked while this process lives.
        fs::rename(unlocked, directory.path().join(LOCK))?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the profiles in `parent` whose worker is gone.
pub(super) fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(ours) {
        if is_abandoned(&path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removed the profile of a browser whose worker is gone");
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "can't remove an abandoned profile"),
            }
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    // The file is missing or can't be opened: the profile is being created, or belongs to another user.
    let Ok(lock) = File::options().write(true).open(path.join(LOCK)) else { return false };
    !matches!(lock.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let held = Profile::create(parent.path()).unwrap();
        let abandoned = parent.path().join(format!("{PREFIX}old"));
        let unfinished = parent.path().join(format!("{PREFIX}new"));
        let other = parent.path().join("other");
        for directory in [&abandoned, &unfinished, &other] {
            fs::create_dir(directory).unwrap();
        }
        for directory in [&abandoned, &other] {
            File::create(directory.join(LOCK)).unwrap();
        }
        sweep(parent.path());
        assert!(held.path().exists() && unfinished.exists() && other.exists() && !abandoned.exists());
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }
}
