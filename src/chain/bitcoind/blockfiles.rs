//! bitcoind's block files, read beside it: `blk?????.dat` with the blocks, `rev?????.dat` with what they spent.
//!
//! - here: the folder, parts of blocks, whole files
//! - [`survey`]: where the blocks are, by the records' heads alone
//! - [`undos`]: which record of a `rev` file belongs to which block
//!
//! Blocks lie in the order in which they arrived. A file is a row of records, a network's magic number and a size before each; its end
//! may be zeros that were laid out in advance. Since version 28 all of it is XORed with the eight bytes in `xor.dat`.
//!
//! What this is not: a reader of bitcoind's block index, which it alone may open; so what is here is found by looking, and
//! which blocks are in the chain is for the node to say.

pub mod survey;
pub mod undos;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::chain::Network;

/// Files kept open. Reason: the chain of 2026 is in some 6,000 files, and a process has 1,024 descriptors where nobody
/// asked for more; the files in use at a time are those of the heavy scripts that are being looked up.
const MAX_OPEN: usize = 128;

/// Bytes of the largest file that is read whole. Reason: bitcoind begins a new one at 128 MiB, or behind the record
/// that crosses it.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The largest record, in bytes. Reason: bitcoind's own bound of what it sends or keeps as one piece (`MAX_SIZE`).
const MAX_RECORD_BYTES: u32 = 0x0200_0000;

/// Bytes before each record: magic number and size.
const HEAD_BYTES: u64 = 8;

/// Which of the two files of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The blocks.
    Blocks,
    /// What they spent.
    Undo,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The number of the file.
    pub file: u32,
    /// Where the block itself begins in it, in bytes.
    pub offset: u32,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The system says so.
    #[error("cannot read {path}: {error}")]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// Why it was not.
        error: io::Error,
    },
    /// `xor.dat` is not eight bytes.
    #[error("{0} is not the 8 bytes that bitcoind writes")]
    XorKey(PathBuf),
    /// A file is larger than any of bitcoind's.
    #[error("{0} is larger than bitcoind makes its files")]
    TooLarge(PathBuf),
}

/// The folder `blocks` of a bitcoind's datadir.
#[derive(Debug)]
pub struct BlockFiles {
    folder: PathBuf,
    key: [u8; 8],
    magic: [u8; 4],
    open: Cache<(Kind, u32), Arc<File>>,
}

impl BlockFiles {
    /// Reads the key. The folder is that of the network, such as `~/.bitcoin/blocks` or `~/.bitcoin/regtest/blocks`.
    ///
    /// # Errors
    ///
    /// If there is no such folder, or its `xor.dat` can't be read or is none.
    pub fn open(folder: &Path, network: Network) -> Result<Self, FilesError> {
        let path = folder.join("xor.dat");
        let key = match std::fs::read(&path) {
            Ok(key) => <[u8; 8]>::try_from(key).map_err(|_| FilesError::XorKey(path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => [0; 8],
            Err(error) => return Err(FilesError::Io { path, error }),
        };
        let files = Self {
            folder: folder.to_owned(),
            key,
            magic: network.magic(),
            open: Cache::new(MAX_OPEN),
        };
        std::fs::read_dir(folder).map_err(|error| FilesError::Io {
            path: folder.to_owned(),
            error,
        })?;
        Ok(files)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The numbers of the files with blocks, rising. Those of a pruned node begin later than 0.
    ///
    /// # Errors
    ///
    /// If the folder can't be read.
    pub fn numbers(&self) -> Result<Vec<u32>, FilesError> {
        let failed = |error| FilesError::Io {
            path: self.folder.clone(),
            error,
        };
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number: Option<u32> = name.to_str().and_then(|name| {
                let digits = name.strip_prefix("blk")?.strip_suffix(".dat")?;
                digits.parse().ok()
            });
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads `length` bytes of a block from `offset` in it.
    ///
    /// # Errors
    ///
    /// If the file ends before, or is gone as pruned ones are.
    pub fn read(&self, place: Place, offset: u32, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let at = u64::from(place.offset) + u64::from(offset);
        self.read_exact(Kind::Blocks, place.file, at, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a file whole into `buffer`, whatever was in that.
    ///
    /// # Errors
    ///
    /// If it is not there, can't be read, or is larger than bitcoind makes them.
    pub fn load(&self, kind: Kind, number: u32, buffer: &mut Vec<u8>) -> Result<(), FilesError> {
        let path = self.path(kind, number);
        let mut read = || -> io::Result<bool> {
            let file = File::open(&path)?;
            if file.metadata()?.len() > MAX_FILE_BYTES {
                return Ok(false);
            }
            buffer.clear();
            file.take(MAX_FILE_BYTES).read_to_end(buffer)?;
            Ok(true)
        };
        match read() {
            Ok(true) => {
                self.unmask(0, buffer);
                Ok(())
            }
            Ok(false) => Err(FilesError::TooLarge(path)),
            Err(error) => Err(FilesError::Io { path, error }),
        }
    }

    /// The path of a file.
    pub fn path(&self, kind: Kind, number: u32) -> PathBuf {
        let kind = match kind {
            Kind::Blocks => "blk",
            Kind::Undo => "rev",
        };
        self.folder.join(format!("{kind}{number:05}.dat"))
    }

    fn file(&self, kind: Kind, number: u32) -> io::Result<Arc<File>> {
        self.open.get_or_insert_with(&(kind, number), || {
            File::open(self.path(kind, number)).map(Arc::new)
        })
    }

    fn read_exact(&self, kind: Kind, number: u32, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file(kind, number)?.read_exact_at(bytes, at)?;
        self.unmask(at, bytes);
        Ok(())
    }

    /// Reads as much as there is, at most all of `bytes`.
    fn read_some(&self, kind: Kind, number: u32, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let file = self.file(kind, number)?;
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unmask(at, bytes.get_mut(..filled).unwrap_or_default());
        Ok(filled)
    }

    /// Whether bytes from `at` on were never written: zeros, which stand under the mask or, where the system laid them out, have none.
    fn is_blank(&self, at: u64, bytes: &[u8]) -> bool {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        is_zero(bytes) || {
            let mut raw = bytes.to_vec();
            self.unmask(at, &mut raw);
            is_zero(&raw)
        }
    }

    /// Takes the mask off bytes that stand at `at` in their file.
    fn unmask(&self, at: u64, bytes: &mut [u8]) {
        if self.key == [0; 8] {
            return;
        }
        let mut key = self.key;
        key.rotate_left((at % 8) as usize);
        let (whole, rest) = bytes.as_chunks_mut::<8>();
        for chunk in whole {
            let plain = u64::from_ne_bytes(*chunk) ^ u64::from_ne_bytes(key);
            *chunk = plain.to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Records of `kind`, each as bitcoind writes it; `xor` masks the file.
    pub(crate) fn write(folder: &Path, kind: Kind, number: u32, records: &[Vec<u8>], xor: [u8; 8]) {
        let mut file = Vec::new();
        for record in records {
            file.extend(Network::Regtest.magic());
            let size = match kind {
                Kind::Blocks => record.len(),
                // The checksum is not counted.
                Kind::Undo => record.len() - 32,
            };
            file.extend((size as u32).to_le_bytes());
            file.extend(record);
        }
        for (at, byte) in file.iter_mut().enumerate() {
            *byte ^= xor[at % 8];
        }
        // Laid out by the system, which knows of no mask.
        file.extend([0; 20_000]);
        let name = match kind {
            Kind::Blocks => format!("blk{number:05}.dat"),
            Kind::Undo => format!("rev{number:05}.dat"),
        };
        std::fs::write(folder.join(name), file).unwrap();
        std::fs::write(folder.join("xor.dat"), xor).unwrap();
    }

    #[test]
    fn the_mask_comes_off_wherever_one_begins_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let record: Vec<u8> = (0..=255).collect();
        let xor = [1, 2, 3, 4, 5, 6, 7, 255];
        write(folder.path(), Kind::Blocks, 7, &[record.clone()], xor);
        let files = BlockFiles::open(folder.path(), Network::Regtest).unwrap();
        assert_eq!(files.numbers().unwrap(), [7]);
        let place = Place { file: 7, offset: 8 };
        for offset in 0..20 {
            for length in 0..20 {
                let read = files.read(place, offset, length).unwrap();
                assert_eq!(read, record[offset as usize..][..length]);
            }
        }
        assert!(files.read(place, 20_200, 100).is_err());
        assert!(files.read(Place { file: 8, offset: 8 }, 0, 1).is_err());
        let mut whole = Vec::new();
        files.load(Kind::Blocks, 7, &mut whole).unwrap();
        assert_eq!(whole[8..][..256], record);
    }

    #[test]
    fn a_folder_that_is_none_and_a_key_that_is_none_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("blocks");
        let error = BlockFiles::open(&absent, Network::Main).unwrap_err();
        assert!(error.to_string().contains("blocks"), "{error}");
        std::fs::write(folder.path().join("xor.dat"), [1; 7]).unwrap();
        let error = BlockFiles::open(folder.path(), Network::Main).unwrap_err();
        assert!(matches!(error, FilesError::XorKey(_)), "{error}");
    }
}
