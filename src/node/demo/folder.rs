//! The folder of one demo, or of a lab: datadirs and logs, removed at the end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rand::TryRng as _;
use rand::rngs::SysRng;

/// A folder that goes when it is dropped, unless it is kept.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// A new folder among the system's temporary files, for this user alone; `kind` is part of its name.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn new(kind: &str, keep: bool) -> anyhow::Result<Self> {
        Self::at(Self::place(kind)?, keep)
    }

    /// Where a new folder may be.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn place(kind: &str) -> anyhow::Result<PathBuf> {
        let random = SysRng
            .try_next_u32()
            .map_err(|error| anyhow!("the system has no randomness: {error}"))?;
        let name = format!("blocktorrent-{kind}-{}-{random:08x}", std::process::id());
        Ok(std::env::temp_dir().join(name))
    }

    /// Makes a folder at such a place.
    ///
    /// # Errors
    ///
    /// The system refuses, or there is something.
    pub fn at(path: PathBuf, keep: bool) -> anyhow::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .with_context(|| format!("can't make the folder {}; set TMPDIR", path.display()))?;
        Ok(Self { path, keep })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets it stay.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        self.keep
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            std::fs::remove_dir_all(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_unless_it_is_kept() {
        let folder = Folder::new("demo", false).unwrap();
        let path = folder.path().to_owned();
        std::fs::write(path.join("a"), "b").unwrap();
        drop(folder);
        assert!(!path.exists());
        let mut folder = Folder::new("demo", false).unwrap();
        folder.keep();
        let path = folder.path().to_owned();
        drop(folder);
        assert!(path.exists());
        std::fs::remove_dir_all(path).unwrap();
    }
}
