//! Answers that are written at the end of a run: those of requests that failed for a reason that may pass.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};

use anyhow::{Context, Result};

use crate::messages;

/// Lines in a temporary file: where memory is short, every request may fail.
#[derive(Default)]
pub struct Failed {
    file: Option<BufWriter<File>>,
    count: usize,
}

impl Failed {
    pub fn count(&self) -> usize {
        self.count
    }

    /// # Errors
    /// If there is no room for the temporary file.
    pub fn add(&mut self, line: &str) -> Result<()> {
        let file = match self.file.take() {
            Some(file) => Ok(file),
            None => tempfile::tempfile().map(BufWriter::new),
        };
        let mut file = file.with_context(messages::temporary_file)?;
        writeln!(file, "{line}").with_context(messages::temporary_file)?;
        self.file = Some(file);
        self.count += 1;
        Ok(())
    }

    /// Passes on the lines, and removes them.
    ///
    /// # Errors
    /// If the file cannot be read, or `put` fails.
    pub fn write(mut self, mut put: impl FnMut(String) -> Result<()>) -> Result<Self> {
        if let Some(file) = self.file.take() {
            let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
            let mut file = file.with_context(messages::temporary_file)?;
            file.rewind().with_context(messages::temporary_file)?;
            for line in BufReader::new(file).lines() {
                put(line.with_context(messages::temporary_file)?)?;
            }
        }
        Ok(self)
    }
}
