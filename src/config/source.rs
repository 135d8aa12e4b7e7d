//! The source of a running program's configuration, for reloads: the same flags and environment, and a file that may
//! have changed. Reads the file on request; has neither a task nor a clock.
//!
//! A file counts as changed when its content differs, and only after two consecutive looks have seen the same content,
//! because it may be half written. Each look searches for the file again and follows links, so that an editor's new
//! file in the place of the old one, and a mount whose links are swapped, are noticed like a plain write.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    environment::{Environment, Flags, process_environment, set},
    error::ConfigErrors,
    file::SEARCH_PATHS,
    load::{Loaded, load},
};

/// The configuration of this process.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    flags: Flags,
}

impl ConfigSource {
    /// Returns the source for these flags and this process's environment, and the watch of its file. The watch is made
    /// before the first [`load`](Self::load), so that no change is missed between the two.
    pub fn new(flags: Flags) -> (Self, FileWatch) {
        let watch = FileWatch::of(flags.clone());
        (Self { flags }, watch)
    }

    /// Loads the configuration.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        load(&self.flags, &process_environment)
    }
}

/// Returns the file that would be read: the named one, whether it exists or not, else the first of the usual ones that
/// exists.
fn file_of(flags: &Flags, env: &Environment<'_>) -> Option<PathBuf> {
    let usual = || SEARCH_PATHS.iter().map(PathBuf::from).find(|path| path.is_file());
    flags.config.clone().or_else(|| set(env, "SWARM_CONFIG").map(PathBuf::from)).or_else(usual)
}

/// Cheap signs that a file was touched: place, size and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    place: (u64, u64),
    size: u64,
    times: [(i64, i64); 2],
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let times = [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())];
        Some(Self { place: (found.dev(), found.ino()), size: found.size(), times })
    }
}

/// Hash of a file's content; `None` if the file does not exist.
type Content = Option<u64>;

/// Notices that the file has changed.
#[derive(Debug)]
pub struct FileWatch {
    flags: Flags,
    state: State,
}

impl FileWatch {
    fn of(flags: Flags) -> Self {
        let state = State::of(file_of(&flags, &process_environment).as_deref());
        Self { flags, state }
    }

    /// Takes the present content as known, because it is about to be loaded.
    pub fn take(&mut self) {
        self.state = State::of(file_of(&self.flags, &process_environment).as_deref());
    }

    /// Returns whether the file has changed since this was last reported or [taken](Self::take). Reads the file only if
    /// it looks touched.
    pub fn has_changed(&mut self) -> bool {
        self.state.look(file_of(&self.flags, &process_environment).as_deref())
    }
}

#[derive(Debug)]
struct State {
    mark: Option<Mark>,
    /// Content that is known.
    taken: Content,
    /// Different content that was seen once.
    candidate: Option<Content>,
}

impl State {
    fn of(path: Option<&Path>) -> Self {
        let mark = path.and_then(Mark::of);
        Self { mark, taken: path.and_then(content), candidate: None }
    }

    fn look(&mut self, path: Option<&Path>) -> bool {
        let mark = path.and_then(Mark::of);
        if mark == self.mark && self.candidate.is_none() {
            return false;
        }
        self.mark = mark;
        let content = path.and_then(content);
        let settled = self.candidate.replace(content) == Some(content);
        if content == self.taken {
            self.candidate = None;
            return false;
        }
        if settled {
            (self.taken, self.candidate) = (content, None);
        }
        settled
    }
}

fn content(path: &Path) -> Content {
    let bytes = fs::read(path).ok()?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Returns which of three looks reports a change.
    fn told_at(watch: &mut State, path: &Path) -> Option<usize> {
        (1..=3).find(|_| watch.look(Some(path)))
    }

    #[test]
    fn a_change_is_told_once_and_not_before_it_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "one").unwrap();
        let mut watch = State::of(Some(&file));
        assert_eq!(told_at(&mut watch, &file), None);
        fs::write(&file, "tw").unwrap();
        assert!(!watch.look(Some(&file)), "half of it");
        fs::write(&file, "two").unwrap();
        assert_eq!(told_at(&mut watch, &file), Some(2));
        assert_eq!(told_at(&mut watch, &file), None);
    }

    #[test]
    fn a_touch_and_a_change_that_was_taken_back_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "one").unwrap();
        let mut watch = State::of(Some(&file));
        fs::write(&file, "one").unwrap();
        assert_eq!(told_at(&mut watch, &file), None);
        fs::write(&file, "other").unwrap();
        assert!(!watch.look(Some(&file)));
        fs::write(&file, "one").unwrap();
        assert_eq!(told_at(&mut watch, &file), None);
    }

    #[test]
    fn a_new_file_in_its_place_a_swapped_link_and_a_loss_are_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (version, text) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("f"), text).unwrap();
        }
        // As in a mounted ConfigMap: the file is a link through `..data`, which is swapped.
        symlink("v1", path("..data")).unwrap();
        symlink("..data/f", path("f")).unwrap();
        let file = path("f");
        let mut watch = State::of(Some(&file));
        symlink("v2", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        assert_eq!(told_at(&mut watch, &file), Some(2));

        fs::write(path("edited"), "three").unwrap();
        fs::rename(path("edited"), &file).unwrap();
        assert_eq!(told_at(&mut watch, &file), Some(2));

        fs::remove_file(&file).unwrap();
        assert_eq!(told_at(&mut watch, &file), Some(2));
        assert_eq!(told_at(&mut watch, &file), None);
    }
}
