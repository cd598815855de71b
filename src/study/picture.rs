//! The file of a picture. That it can't be written shall show before a run that takes minutes, not after it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A file that is open, and as it was before.
pub struct Picture {
    path: PathBuf,
    file: File,
    /// It was not there before: gone again unless it is written.
    is_new: bool,
}

/// Opens the file that a picture will be written to.
///
/// # Errors
///
/// A folder that is not there, a file that must not be written.
pub fn begin(path: &Path) -> anyhow::Result<Picture> {
    let shown = path.display();
    let advice = || {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        match folder {
            Some(folder) if !folder.exists() => {
                format!(
                    "can't write {shown}: make the folder {} first",
                    folder.display()
                )
            }
            _ => format!("can't write {shown}; give another file to --output"),
        }
    };
    let is_new = !path.exists();
    let file = OpenOptions::new().append(true).create(true).open(path);
    Ok(Picture {
        file: file.with_context(advice)?,
        path: path.to_owned(),
        is_new,
    })
}

impl Picture {
    /// Writes the picture in place of what was there.
    ///
    /// # Errors
    ///
    /// No room, or the like.
    pub fn end(mut self, svg: &str) -> anyhow::Result<()> {
        // What is no regular file (a pipe, /dev/stdout) has no length to cut off.
        if self.file.metadata().is_ok_and(|about| about.is_file()) {
            self.file
                .set_len(0)
                .with_context(|| format!("can't write {}", self.path.display()))?;
        }
        self.file
            .write_all(svg.as_bytes())
            .with_context(|| format!("can't write {}", self.path.display()))?;
        self.is_new = false;
        Ok(())
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        if self.is_new {
            // It is empty; that it stays is a pity, no failure.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_only_changed_once_there_is_a_picture() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.svg");
        drop(begin(&path).expect("it can be written"));
        assert!(!path.exists());
        begin(&path).expect("again").end("<svg/>").expect("written");
        drop(begin(&path).expect("again"));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "<svg/>");
        begin(&path).expect("again").end("<g/>").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "<g/>");
        let none = begin(&folder.path().join("b/a.svg"))
            .err()
            .expect("no folder");
        assert!(none.to_string().contains("make the folder"), "{none}");
        let folder = begin(folder.path()).err().expect("a folder");
        assert!(
            format!("{folder:#}").contains("give another file"),
            "{folder:#}"
        );
    }
}
