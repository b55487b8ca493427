//! Files of `/proc` that are opened once and read again and again.
//!
//! A starved host can fail to open a file (no memory, no descriptor) long before it fails to read an open one, and reading into a
//! buffer that has grown once allocates nothing.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf};

/// The first size of the shared buffer: `/proc/stat` of a host with some dozen CPUs fits.
const FIRST_BUFFER_BYTES: usize = 16 * 1024;
/// No file that we read is larger on any host: `/proc/stat` with 4,096 CPUs and long interrupt lines is about 600 KiB.
const MAX_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The buffer that all files are read into, one after the other.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    pub fn new() -> Self {
        Self(vec![0; FIRST_BUFFER_BYTES])
    }

    /// The whole file from its beginning. Read again from the beginning when it did not fit, so that what is parsed is one
    /// snapshot and not two halves.
    pub fn fill(&mut self, file: &File) -> io::Result<&[u8]> {
        loop {
            let read = file.read_at(&mut self.0, 0)?;
            if read < self.0.len() || self.0.len() >= MAX_BUFFER_BYTES {
                return Ok(&self.0[..read]);
            }
            self.0.resize(self.0.len() * 2, 0);
        }
    }
}

/// A file that is opened at the first reading and kept. One that could not be opened is tried again at each reading.
#[derive(Debug)]
pub struct KeptFile {
    path: PathBuf,
    file: Option<File>,
}

impl KeptFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The file's content now.
    pub fn read<'b>(&mut self, buffer: &'b mut Buffer) -> io::Result<&'b [u8]> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        let content = buffer.fill(&file)?;
        self.file = Some(file);
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_larger_than_the_buffer_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        let mut file = KeptFile::new(path.clone());
        let mut buffer = Buffer::new();
        assert_eq!(file.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::NotFound);

        let content = vec![b'x'; FIRST_BUFFER_BYTES * 3 + 1];
        fs::write(&path, &content).unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), content);
        fs::write(&path, b"short").unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), b"short");
    }
}
