//! The file of a picture. That it can't be written shall show before a run that takes minutes, not after it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::source::senseless;

/// Formats that a picture is not, by the ends of their files' names.
const OTHERS: [&str; 7] = ["png", "jpg", "jpeg", "gif", "webp", "pdf", "ps"];

/// Where a picture will be.
pub struct Picture {
    /// What is no regular file (a pipe, /dev/stdout) is written to as it is.
    stream: Option<File>,
    path: PathBuf,
}

/// Sees that a picture can be written to a file, which stays as it is.
///
/// # Errors
///
/// A folder that is not there, a file that must not be written, the name of another format.
pub fn begin(path: &Path) -> anyhow::Result<Picture> {
    let shown = path.display();
    let ending = path.extension().and_then(|ending| ending.to_str());
    if let Some(ending) = ending.filter(|ending| {
        let ending = ending.to_ascii_lowercase();
        OTHERS.contains(&ending.as_str())
    }) {
        let problem = format!(
            "--output {shown}: a picture is SVG, not {ending}; give {}",
            path.with_extension("svg").display()
        );
        return Err(senseless(problem).into());
    }
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
    if !path.exists() {
        let picture = Picture {
            stream: None,
            path: path.to_owned(),
        };
        // That of a picture, gone at once: nothing is left if the run is ended.
        File::create(picture.beside())
            .and_then(|_| std::fs::remove_file(picture.beside()))
            .with_context(advice)?;
        return Ok(picture);
    }
    let file = OpenOptions::new()
        .append(true)
        .open(path)
        .with_context(advice)?;
    let is_regular = file.metadata().is_ok_and(|about| about.is_file());
    Ok(Picture {
        stream: (!is_regular).then_some(file),
        // Of a link the file that it leads to.
        path: path.canonicalize().with_context(advice)?,
    })
}

impl Picture {
    /// The file that becomes the picture once it is whole.
    fn beside(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        self.path.with_file_name(name)
    }

    /// Writes the picture in place of what was there: all of it, or nothing.
    ///
    /// # Errors
    ///
    /// No room, or the like.
    pub fn end(self, svg: &str) -> anyhow::Result<()> {
        let beside = self.beside();
        let written = match self.stream {
            Some(mut stream) => stream.write_all(svg.as_bytes()),
            None => std::fs::write(&beside, svg)
                .and_then(|()| std::fs::rename(&beside, &self.path))
                .inspect_err(|_| {
                    // That half of it stays is a pity, no further failure.
                    let _ = std::fs::remove_file(&beside);
                }),
        };
        written.with_context(|| format!("can't write {}", self.path.display()))
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
        let begun = begin(&folder.path().join("new.svg")).expect("it can be written");
        let names = std::fs::read_dir(folder.path()).expect("ours");
        assert_eq!(names.count(), 1, "a run that is ended leaves nothing");
        drop(begun);
        let other = begin(&folder.path().join("a.PNG")).err().expect("no SVG");
        assert!(
            other.to_string().contains("is SVG, not PNG; give ")
                && other.to_string().ends_with("a.svg"),
            "{other}"
        );
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
