//! The address book on disk: `peers.dat` in the datadir, as Bitcoin Core calls it.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::chain::addrbook::{Book, BookRules, MAX_FILE_BYTES};
use crate::node::files::{Readers, advice, open_regular, write_atomically};

/// Its name.
pub const FILE: &str = "peers.dat";

/// The file of an address book.
#[derive(Debug)]
pub struct BookFile {
    path: PathBuf,
    /// How often it was to be written.
    writings: u64,
    /// The last of them that is done; held while one is going on, so that none overtakes another.
    written: Arc<Mutex<u64>>,
}

impl BookFile {
    /// The file at `path`, if it is there.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            writings: 0,
            written: Arc::default(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the book; a new one if there is none, or if what is there cannot be used: that is set aside, and said
    /// in the log. No book is worth a node that does not start.
    pub fn load(&self, rules: BookRules, seed: [u8; 32]) -> Book {
        let path = &self.path;
        let bytes = match read(path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Book::new(rules, seed),
            Err(error) => {
                tracing::warn!(
                    file = %path.display(), %error,
                    "the address book can't be read; a new one is begun; {}", advice(&error)
                );
                return Book::new(rules, seed);
            }
        };
        match Book::decode(&bytes, rules, seed) {
            Ok(book) => {
                tracing::info!(addresses = book.len(), "read the address book");
                book
            }
            Err(error) => {
                let aside = path.with_extension("dat.bak");
                let kept = match fs::rename(path, &aside) {
                    Ok(()) => format!("it is kept as {}", aside.display()),
                    Err(error) => format!("it can't be set aside ({error}) and will be replaced"),
                };
                tracing::warn!(file = %path.display(), %error, "a new address book is begun; {kept}");
                Book::new(rules, seed)
            }
        }
    }

    /// What writes `bytes`, whole or not at all, in a thread that may wait for the disk; nothing if a later writing
    /// was done before.
    pub fn writing(&mut self, bytes: Vec<u8>) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        self.writings += 1;
        let (number, path) = (self.writings, self.path.clone());
        let written = Arc::clone(&self.written);
        move || {
            // Whoever panicked with it has written the file or not; either way the next may.
            let mut last = written.lock().unwrap_or_else(PoisonError::into_inner);
            if *last > number {
                return Ok(());
            }
            write_atomically(&path, &bytes, Readers::OwnerOnly)?;
            *last = number;
            Ok(())
        }
    }
}

/// A byte more than a book can have is read at most: then it is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let most = MAX_FILE_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::addrbook::{Address, Hearsay, Locality, Networks, Source};
    use crate::time::Time;

    const RULES: BookRules = BookRules {
        flag: 1 << 30,
        locality: Locality::Public,
        reachable: Networks::IP,
    };

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut file = BookFile::new(path.clone());
        let mut book = file.load(RULES, [1; 32]);
        assert!(book.is_empty());
        let told = Hearsay {
            address: Address::bitcoin("1.2.3.4:8333".parse().unwrap()),
            services: 9,
            last_seen: 1_700_000_000,
        };
        let now = Time::from_unix_seconds(1_700_000_000);
        book.heard(now, Source::Operator, [told]);
        let stale = file.writing(b"an earlier state".to_vec());
        let newest = file.writing(book.encode());
        newest().unwrap();
        stale().unwrap();
        assert_eq!(file.load(RULES, [2; 32]).len(), 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(file.load(RULES, [3; 32]).is_empty());
        assert!(!path.exists());
        let aside = folder.path().join("peers.dat.bak");
        assert_eq!(fs::read(aside).unwrap(), bytes);
        // What is far too long is not read whole, and another flag is another book.
        fs::write(&path, vec![0; MAX_FILE_BYTES + 100]).unwrap();
        assert!(file.load(RULES, [4; 32]).is_empty());
        file.writing(book.encode())().unwrap();
        let other = BookRules {
            flag: 1 << 29,
            ..RULES
        };
        assert!(file.load(other, [5; 32]).is_empty());
        assert!(!path.exists());
    }
}
